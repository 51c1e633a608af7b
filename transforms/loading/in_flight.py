"""Between the threads that load images and the one that takes them: results in bursts, and brakes."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from threading import Condition, Lock
from typing import Any, Generic, TypeVar

from beamlabel.transforms.worker.daemon_pool import LOOK_SECONDS, as_exception

T = TypeVar("T")

# Encoded images that may wait to be decoded, beside those that are being fetched.
BACKLOG_BYTES = 64 << 20
# A local disk reads an image in less; 64 reads are remembered, about.
_SLOW_READ_MSEC = 2.0
_READS_REMEMBERED = 64
# After so many reads by the fetching threads, whose times hold their waits for Python's lock, a slow disk gets
# another chance: else one busy moment would cost the rest of the run.
_SLOW_READS = 4096


class Finished(Generic[T]):
    """Results from many threads to one, which is woken for a burst of them: a wake-up costs tens of µs."""

    def __init__(self) -> None:
        self._items: deque[T] = deque()
        self._wanted = 0
        self._error: BaseException | None = None
        self._enough = Condition()

    def put(self, item: T) -> None:
        """One more result."""
        # In this order: whoever waits has first set what is wanted, then looked at what is there.
        self._items.append(item)
        if 0 < self._wanted <= len(self._items):
            with self._enough:
                self._enough.notify()

    def fail(self, error: BaseException) -> None:
        """A result that will not come, and why: whoever waits, or comes to wait, raises it."""
        with self._enough:
            self._error = self._error or error
            self._enough.notify()

    def take(self, count: int, check: Callable[[], None]) -> list[T]:
        """Waits until there are ``count``, and takes these.

        Args:
          count: at least 1.
          check: called from time to time; raises if they will never come.

        Raises:
          Exception: what a thread raised, see ``as_exception``.
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
        """How many are there."""
        return len(self._items)

    def _is_over(self, count: int) -> bool:
        return self._error is not None or len(self._items) >= count


class Patience:
    """Ends a wait for what will never come: a thread that hangs in a file or a decoder does not die.

    Args:
      seconds: in which at least one more image is ready, if no thread hangs.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.renew()

    def renew(self) -> None:
        """A wait begins."""
        self._ready, self._until = 0, 0.0

    def check(self, ready: int) -> None:
        """Looks whether there is any progress.

        Args:
          ready: how many images are ready.

        Raises:
          HangError: for too long there has been none.
        """
        now = time.monotonic()
        if not self._until or ready != self._ready:
            self._ready, self._until = ready, now + self._seconds
        elif now > self._until:
            raise HangError(
                f"no image was loaded for {self._seconds:g} s: a file system, a request or a decoder hangs; the images "
                "in flight are tried again, by --if_exists resume if the run has ended"
            )


class HangError(RuntimeError):
    """Threads that load images do nothing any more."""


class Backlog:
    """Bytes that were fetched and wait to be decoded: while they are too many, fetching pauses."""

    def __init__(self) -> None:
        self._bytes = 0
        self._is_abandoned = False
        self._less = Condition()

    def wait(self) -> bool:
        """Whether it is worth fetching more: not if nobody waits for it any more."""
        with self._less:
            self._less.wait_for(lambda: self._bytes <= BACKLOG_BYTES or self._is_abandoned)
            return not self._is_abandoned

    def change(self, size: int) -> None:
        """So many bytes more, or less."""
        with self._less:
            self._bytes += size
            if size < 0 and self._bytes <= BACKLOG_BYTES < self._bytes - size:
                self._less.notify_all()

    def abandon(self) -> None:
        """Nobody waits for what is fetched any more: threads that pause go on, and are told."""
        with self._less:
            self._is_abandoned = True
            self._less.notify_all()


class Bounded:
    """Tasks of which only so many may be begun and not yet done, in the order in which they came.

    Args:
      most: so many.
      begin: begins a task, called with what ``submit`` was.
    """

    def __init__(self, most: int, begin: Callable[..., None]) -> None:
        self._free, self._begin = most, begin
        self._waiting: deque[tuple[Any, ...]] = deque()
        self._lock = Lock()

    def submit(self, *task: Any) -> None:
        """Begins a task, now or as soon as others are done."""
        with self._lock:
            if not self._free:
                self._waiting.append(task)
                return
            self._free -= 1
        self._begin(*task)

    def done(self, count: int) -> None:
        """So many of those that were begun."""
        with self._lock:
            next_ones = [self._waiting.popleft() for _ in range(min(count, len(self._waiting)))]
            self._free += count - len(next_ones)
        for task in next_ones:
            self._begin(*task)


class Disk:
    """Whether reading local files is waiting: then it is done by the fetching threads, as for a network.

    A file in the page cache or on a local disk costs less to read than to hand to another thread.
    """

    def __init__(self) -> None:
        self._msec = 0.0
        self._slow_reads = 0

    @property
    def is_slow(self) -> bool:
        """Whether it is."""
        return self._msec > _SLOW_READ_MSEC

    def saw(self, msec: float) -> None:
        """A local file was read in so many milliseconds."""
        self._msec += (msec - self._msec) / _READS_REMEMBERED
        self._slow_reads = self._slow_reads + 1 if self.is_slow else 0
        if self._slow_reads == _SLOW_READS:
            self._msec, self._slow_reads = 0.0, 0
