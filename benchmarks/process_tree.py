"""Runs a command and measures its whole process tree: seconds, CPU seconds, peak memory. Linux only.

Memory is the proportional set size (PSS): a page that several processes share counts once. It is read from
``/proc/PID/smaps_rollup`` a few times a second, so a peak that is shorter than that is missed.
"""

import os
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

_INTERVAL = 0.25
_TICKS = os.sysconf("SC_CLK_TCK")


class Cost(NamedTuple):
    """What a command took; memory in MB of 10^6 bytes, sampled with its time since the start in seconds."""

    seconds: float
    cpu_seconds: float
    peak_mb: float
    samples: list[tuple[float, float]]


def processes(root: int) -> Iterator[int]:
    """The process and its descendants, as far as they live."""
    yield root
    for task in Path(f"/proc/{root}/task").glob("*/children"):
        try:
            children = task.read_text().split()
        except OSError:
            continue
        for child in children:
            yield from processes(int(child))


def pss_mb(root: int) -> float:
    """Memory of a process tree."""
    total = 0
    for pid in processes(root):
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total * 1024 / 1e6


def cpu_seconds(pid: int) -> float:
    """CPU time of one living process, user and system, without its children."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def run(command: list[str], environment: Mapping[str, str] | None = None) -> Cost:
    """Runs a command to its end.

    Raises:
      subprocess.CalledProcessError: it failed; what it wrote to stderr is shown.
    """
    begin = time.perf_counter()
    process = subprocess.Popen(
        command, env={**os.environ, **(environment or {})}, stderr=subprocess.PIPE, text=True
    )
    samples: list[tuple[float, float]] = []
    ended = threading.Event()

    def sample() -> None:
        while not ended.wait(_INTERVAL):
            samples.append((time.perf_counter() - begin, pss_mb(process.pid)))

    sampler = threading.Thread(target=sample)
    sampler.start()
    assert process.stderr is not None
    complaints = process.stderr.read()
    # wait4 counts the descendants too that were waited for.
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - begin
    ended.set()
    sampler.join()
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command, stderr=complaints)
    peak = max((memory for _, memory in samples), default=0.0)
    return Cost(seconds, usage.ru_utime + usage.ru_stime, peak, samples)
