"""Growth of a run's processes: memory, threads and descriptors, sampled and fitted."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from measure import memory
from scipy import stats

# The first share of the time is warm-up: pools, caches and allocators fill.
WARM_UP = 0.25
_SECONDS = 3.0
_MEGABYTE = 2**20


@dataclass(frozen=True)
class Sample:
    """All processes of a run at one moment.

    Attributes:
      seconds: since the watch started.
      pss_mb, rss_mb: memory in MiB, see ``measure.Cost``.
      threads, descriptors: numbers over all processes.
      processes: number of processes.
    """

    seconds: float
    pss_mb: float
    rss_mb: float
    threads: int
    descriptors: int
    processes: int


@dataclass(frozen=True)
class Trend:
    """A line through samples: the median of the slopes between any two of them (Theil and Sen).

    Attributes:
      median: median of the samples.
      growth: growth along the line, from the first sample to the last.
      least: the same with the lower end of the slope's 95 % confidence interval.
    """

    median: float
    growth: float
    least: float


class Watch(threading.Thread):
    """Samples until ``stop``.

    Args:
      processes: returns the process ids of the run.
    """

    def __init__(self, processes: Callable[[], set[int]]) -> None:
        super().__init__(daemon=True)
        self._processes = processes
        self._stopped = threading.Event()
        self.samples: list[Sample] = []

    def run(self) -> None:
        begin = time.monotonic()
        while not self._stopped.wait(_SECONDS):
            if processes := self._processes():
                self.samples.append(sample(processes, time.monotonic() - begin))

    def stop(self) -> None:
        self._stopped.set()
        self.join()


def sample(processes: set[int], seconds: float) -> Sample:
    """Samples these processes now; a process that has ended meanwhile counts as zero."""
    pss = rss = threads = descriptors = 0
    for pid in processes:
        one_pss, one_rss = memory(pid)
        pss, rss = pss + one_pss, rss + one_rss
        with suppress(OSError):
            threads += sum(1 for _ in Path(f"/proc/{pid}/task").iterdir())
            descriptors += sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
    return Sample(seconds, pss / _MEGABYTE, rss / _MEGABYTE, threads, descriptors, len(processes))


def warmed_up(samples: Sequence[Sample]) -> Sequence[Sample]:
    """Returns the samples after the warm-up."""
    if not samples:
        return samples
    begin = samples[-1].seconds * WARM_UP
    return [one for one in samples if one.seconds >= begin]


def trend(samples: Sequence[Sample], name: str) -> Trend:
    """Fits a line through one attribute of the samples, which must not be empty."""
    seconds = np.array([one.seconds for one in samples])
    values = np.array([getattr(one, name) for one in samples], float)
    slope, _, low, _ = stats.theilslopes(values, seconds)
    length = seconds[-1] - seconds[0]
    return Trend(float(np.median(values)), float(slope * length), float(low * length))
