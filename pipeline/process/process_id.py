"""Identifies a process, so that another one can tell later whether it still runs."""

from __future__ import annotations

import os
import platform
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ProcessId:
    """Identifies a process across reboots and PID reuse.

    Attributes:
      host: the machine's name, for people: several machines may share one.
      pid: its number.
      started_at: when it was created, in seconds since 1970.
      system: the boot of the machine and the namespace of the number; empty if the system does not tell.
      ticks: when it was created, in clock ticks since that boot; 0 if the system does not tell.
    """

    host: str
    pid: int
    started_at: float
    system: str
    ticks: int

    @classmethod
    def own(cls) -> ProcessId:
        """This process."""
        pid = os.getpid()
        return cls(platform.node(), pid, started_at(), _system(), _ticks(pid) or 0)

    def has_exited(self) -> bool:
        """Whether the process has certainly ended; always False for a process of another system."""
        return bool(self.system) and self.system == _system() and _ticks(self.pid) != self.ticks


def started_at() -> float:
    """When this process was created, in seconds since 1970; now, if the system does not tell."""
    ticks = _ticks(os.getpid())
    if ticks is None:
        return time.time()
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    return time.time() - age


def _ticks(pid: int) -> int | None:
    """When a process was created: /proc/PID/stat, field 22 (proc_pid_stat(5)); None if there is none."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except (OSError, IndexError):
        return None


def _system() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""
