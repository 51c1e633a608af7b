"""Between the threads that load images and the one that takes them: results in bursts, and a brake."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from threading import Condition
from typing import Generic, TypeVar

from beamlabel.transforms.worker.daemon_pool import LOOK_SECONDS, as_exception

T = TypeVar("T")

# Encoded images that may wait to be decoded, beside those that are being fetched.
BACKLOG_BYTES = 64 << 20


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
        """Waits until there are ``count``, and takes all there are.

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
        return [self._items.popleft() for _ in range(len(self._items))]

    def _is_over(self, count: int) -> bool:
        return self._error is not None or len(self._items) >= count


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
