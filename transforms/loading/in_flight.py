"""Queues and limits between the threads that load images and the thread that takes them."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from threading import Condition, Lock
from typing import Any, Generic, TypeVar

from beamlabel.transforms.worker.daemon_pool import LOOK_SECONDS, as_exception

T = TypeVar("T")

# Bytes of encoded images that may wait for decoding, besides those being fetched.
BACKLOG_BYTES = 64 << 20
# A local disk reads an image faster than this; the average covers about 64 reads.
_SLOW_READ_MSEC = 2.0
_READS_REMEMBERED = 64
# After so many reads in the fetching threads a slow disk is tried again: their times include waits for the GIL, and one
# busy moment must not slow the rest of the run.
_SLOW_READS = 4096


class Finished(Generic[T]):
    """A queue from many threads to one, which wakes up for a burst of results: a wake-up costs tens of µs."""

    def __init__(self) -> None:
        self._items: deque[T] = deque()
        self._wanted = 0
        self._error: BaseException | None = None
        self._enough = Condition()

    def put(self, item: T) -> None:
        """Adds a result."""
        # In this order: the waiting thread first sets the wanted count and then checks the queue.
        self._items.append(item)
        if 0 < self._wanted <= len(self._items):
            with self._enough:
                self._enough.notify()

    def fail(self, error: BaseException) -> None:
        """Records that a result will not come; the current or next ``take`` raises the error."""
        with self._enough:
            self._error = self._error or error
            self._enough.notify()

    def take(self, count: int, check: Callable[[], None]) -> list[T]:
        """Waits for ``count`` results and takes them.

        Args:
          count: at least 1.
          check: called from time to time; raises if the results will never come.

        Raises:
          Exception: A thread's exception, see ``as_exception``.
        """
        with self._enough:
            self._wanted = count
            try:
                while not self._enough.wait_for(lambda: self._is_over(count), LOOK_SECONDS):
                    check()
            finally:
                self._wanted = 0
        if self._error is not None:
            raise as_exception(self._error)
        return [self._items.popleft() for _ in range(count)]

    def ready(self) -> int:
        """The number of results in the queue."""
        return len(self._items)

    def _is_over(self, count: int) -> bool:
        return self._error is not None or len(self._items) >= count


class Patience:
    """Detects a hang: a thread that hangs in a file or a decoder does not die.

    Args:
      seconds: without another image ready after which the threads count as hung.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.renew()

    def renew(self) -> None:
        """Starts a wait."""
        self._ready, self._until = 0, 0.0

    def check(self, ready: int) -> None:
        """Checks for progress.

        Args:
          ready: number of images that are ready.

        Raises:
          HangError: There was no progress for too long.
        """
        now = time.monotonic()
        if not self._until or ready != self._ready:
            self._ready, self._until = ready, now + self._seconds
        elif now > self._until:
            raise HangError(
                f"No image was loaded for {self._seconds:g} s because a file system, a request or a decoder hangs. The "
                "images in flight are tried again; if the run has ended, rerun with --if_exists resume."
            )


class HangError(RuntimeError):
    """The threads that load images make no progress."""


class Backlog:
    """Fetched bytes that wait for decoding; fetching pauses while there are too many."""

    def __init__(self) -> None:
        self._bytes = 0
        self._is_abandoned = False
        self._less = Condition()

    def wait(self) -> bool:
        """Waits until more may be fetched; returns False once the backlog is abandoned."""
        with self._less:
            self._less.wait_for(lambda: self._bytes <= BACKLOG_BYTES or self._is_abandoned)
            return not self._is_abandoned

    def change(self, size: int) -> None:
        """Adds ``size`` bytes, or removes them if negative."""
        with self._less:
            self._bytes += size
            if size < 0 and self._bytes <= BACKLOG_BYTES < self._bytes - size:
                self._less.notify_all()

    def abandon(self) -> None:
        """Ends the waits of paused threads, since the images are no longer wanted."""
        with self._less:
            self._is_abandoned = True
            self._less.notify_all()


class Bounded:
    """Runs a bounded number of tasks at a time, in the order of their submission.

    Args:
      most: tasks at a time.
      begin: begins a task, called with the arguments of ``submit``.
    """

    def __init__(self, most: int, begin: Callable[..., None]) -> None:
        self._free, self._begin = most, begin
        self._waiting: deque[tuple[Any, ...]] = deque()
        self._lock = Lock()

    def submit(self, *task: Any) -> None:
        """Begins a task, now or when others are done."""
        with self._lock:
            if not self._free:
                self._waiting.append(task)
                return
            self._free -= 1
        self._begin(*task)

    def done(self, count: int) -> None:
        """Records that ``count`` of the begun tasks are done."""
        with self._lock:
            next_ones = [self._waiting.popleft() for _ in range(min(count, len(self._waiting)))]
            self._free += count - len(next_ones)
        for task in next_ones:
            self._begin(*task)


class Disk:
    """Tracks whether local files are slow to read: then the fetching threads read them, as from a network.

    Reading a file from the page cache or a local disk costs less than handing it to another thread.
    """

    def __init__(self) -> None:
        self._msec = 0.0
        self._slow_reads = 0

    @property
    def is_slow(self) -> bool:
        """Whether local files are slow to read."""
        return self._msec > _SLOW_READ_MSEC

    def saw(self, msec: float) -> None:
        """Records the time of reading a local file, in milliseconds."""
        self._msec += (msec - self._msec) / _READS_REMEMBERED
        self._slow_reads = self._slow_reads + 1 if self.is_slow else 0
        if self._slow_reads == _SLOW_READS:
            self._msec, self._slow_reads = 0.0, 0
