"""Measures the cost of a command from outside: time, memory and CPU of the command and all its descendants."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import subprocess
import threading
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

SAMPLES_A_SECOND = 4
# The sampler may use up to this share of one core: it samples processes of many gigabytes less often.
SAMPLER_SHARE = 0.02
_MEGABYTE = 2**20
_TICKS = os.sysconf("SC_CLK_TCK")
_PR_SET_CHILD_SUBREAPER = 36
# Seconds after which processes that a command left behind are killed.
_GRACE = 10.0


@dataclass(frozen=True)
class Cost:
    """The cost of a run.

    Attributes:
      code: the exit code; negative if the process was killed.
      seconds: from the start of the process to its end.
      pss_mb, rss_mb: peak of the summed memory of all processes, in MiB. PSS counts a page that n processes
        share as 1/n in each, RSS as a whole one in each.
      cpu_seconds: user and system time of all processes.
      busy_seconds, steal_seconds: CPU time of the whole machine meanwhile: used by all processes, and given to
        other machines by the hypervisor.
      stderr: the end of its output to stdout and stderr.
    """

    code: int
    seconds: float
    pss_mb: float
    rss_mb: float
    cpu_seconds: float
    busy_seconds: float
    steal_seconds: float
    stderr: str = field(repr=False)


def descendants(root: int) -> set[int]:
    """Returns all descendants of ``root``, including zombies, without ``root``."""
    children = defaultdict(list)
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):  # it ended meanwhile
                children[_parent(entry)].append(int(entry.name))
    found: set[int] = set()
    waiting = [root]
    while waiting:
        new = children[waiting.pop()]
        found.update(new)
        waiting += new
    return found


def _stat(directory: Path) -> list[str]:
    """Returns the fields of ``/proc/PID/stat`` after the command's name, from the third (state) on."""
    return (directory / "stat").read_text().rpartition(")")[2].split()


def _parent(directory: Path) -> int:
    return int(_stat(directory)[1])


def parse_smaps_rollup(text: str) -> tuple[int, int]:
    """Returns PSS and RSS in bytes from the text of ``/proc/PID/smaps_rollup``."""
    kilobytes = {line.split(":")[0]: int(line.split()[1]) for line in text.splitlines()[1:]}
    return kilobytes["Pss"] * 1024, kilobytes["Rss"] * 1024


def memory(pid: int) -> tuple[int, int]:
    """Returns PSS and RSS of a process in bytes, or zeros if it has ended or belongs to another user."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0, 0
    return parse_smaps_rollup(text) if text else (0, 0)


def parse_proc_stat(text: str) -> tuple[float, float]:
    """Returns busy and stolen CPU seconds of all cores since boot from the text of ``/proc/stat``."""
    user, nice, system, _, _, irq, softirq, steal = (int(value) for value in text.split()[1:9])
    return (user + nice + system + irq + softirq) / _TICKS, steal / _TICKS


class Sampler(threading.Thread):
    """Watches all descendants of this process except earlier ones, until ``stop``."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.pss = self.rss = 0
        self._cpu: dict[int, float] = {}
        self._before = descendants(os.getpid())
        self._stopped = threading.Event()

    @property
    def cpu_seconds(self) -> float:
        """CPU seconds of all sampled processes; the last quarter of a second of each may be missing."""
        return sum(self._cpu.values())

    def current(self) -> set[int]:
        """Returns the processes that started after the sampler was created and still exist."""
        return descendants(os.getpid()) - self._before

    def sample(self) -> None:
        pss = rss = 0
        for pid in self.current():
            one_pss, one_rss = memory(pid)
            pss, rss = pss + one_pss, rss + one_rss
            with suppress(OSError):
                fields = _stat(Path(f"/proc/{pid}"))
                self._cpu[pid] = (int(fields[11]) + int(fields[12])) / _TICKS
        self.pss, self.rss = max(self.pss, pss), max(self.rss, rss)

    def run(self) -> None:
        pause = 0.0
        while not self._stopped.wait(pause):
            begin = time.thread_time()
            self.sample()
            pause = max(1 / SAMPLES_A_SECOND, (time.thread_time() - begin) / SAMPLER_SHARE)

    def stop(self) -> None:
        self._stopped.set()
        self.join()


def adopt_orphans() -> None:
    """Makes this process the parent of every descendant whose own parent ends, so the sampler keeps seeing it."""
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")


def measure(
    command: Sequence[str],
    *,
    environment: Mapping[str, str],
    directory: Path,
    log: Path,
    timeout: float = 1800,
) -> Cost:
    """Runs a command to its end and returns its cost; kills the processes that it leaves running.

    Args:
      command: program and arguments.
      environment: all its environment variables.
      directory: its working directory.
      log: a file for its stdout and stderr; replaced.
      timeout: seconds after which the command is killed.
    """
    adopt_orphans()
    sampler = Sampler()
    busy, steal = parse_proc_stat(Path("/proc/stat").read_text())
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with log.open("wb") as stream:
        begin = time.perf_counter()
        process = subprocess.Popen(
            command,
            cwd=directory,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            start_new_session=True,
        )
        sampler.start()
        try:
            code = process.wait(timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait()
        seconds = time.perf_counter() - begin
    sampler.stop()
    _end_rest(sampler)
    busy_after, steal_after = parse_proc_stat(Path("/proc/stat").read_text())
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    waited_for = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Cost(
        code=code,
        seconds=round(seconds, 3),
        pss_mb=round(sampler.pss / _MEGABYTE, 1),
        rss_mb=round(sampler.rss / _MEGABYTE, 1),
        # Only the second figure includes processes whose parents did not wait for them.
        cpu_seconds=round(max(waited_for, sampler.cpu_seconds), 2),
        busy_seconds=round(busy_after - busy, 2),
        steal_seconds=round(steal_after - steal, 2),
        stderr=log.read_bytes()[-20_000:].decode(errors="replace"),
    )


def _end_rest(sampler: Sampler) -> None:
    """Waits for the processes that the command left behind, kills those that do not end, and reaps them."""
    deadline = time.monotonic() + _GRACE
    while rest := sampler.current():
        for pid in rest:
            if time.monotonic() > deadline:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            with suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
        time.sleep(0.05)
