"""Identifies a process, so that another process can check later whether it still runs."""

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
      host: the machine's name, for messages only, since several machines may share one.
      pid: the process ID.
      started_at: creation time, in seconds since 1970.
      system: the machine's boot and the PID namespace; empty if unknown.
      ticks: creation time, in clock ticks since that boot; 0 if unknown.
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
    """The creation time of this process, in seconds since 1970; the current time if unknown."""
    ticks = _ticks(os.getpid())
    if ticks is None:
        return time.time()
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    return time.time() - age


def _ticks(pid: int) -> int | None:
    """The creation time of a process: /proc/PID/stat, field 22 (proc_pid_stat(5)); None if it does not exist."""
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
