"""Reads files in order, with the next ones read ahead, since a file from a bucket begins with several round trips."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Generic, TypeVar

_T = TypeVar("_T")
# Seconds between checks of a waiting reader that it was not stopped.
_LOOK_SECONDS = 0.1


def read_ahead(sources: Iterable[Callable[[], Iterable[_T]]], *, readers: int, held: int = 2) -> Iterator[_T]:
    """Yields the items of the sources, in order.

    Args:
      sources: each opens and reads one file, in a thread of its own.
      readers: sources read at a time; 1: no read-ahead and no thread.
      held: items of each source in memory at a time, besides the one being read.

    Raises:
      Exception: The exception of a source, in its turn.
    """
    if readers < 2:
        for source in sources:
            yield from source()
        return
    waiting = iter(sources)
    begun: deque[_Reader[_T]] = deque()
    try:
        begun.extend(_Reader(source, held) for source in islice(waiting, readers))
        while begun:
            yield from begun[0]
            begun.popleft()
            begun.extend(_Reader(source, held) for source in islice(waiting, 1))
    finally:
        for reader in begun:
            reader.stop()


class _Reader(Generic[_T]):
    """Reads one source in a thread."""

    def __init__(self, source: Callable[[], Iterable[_T]], held: int) -> None:
        self._source = source
        # Pairs of an item and an error; None at the end.
        self._read: queue.Queue[tuple[_T | None, BaseException | None] | None] = queue.Queue(held)
        self._over = threading.Event()
        threading.Thread(target=self._run, name="read-ahead", daemon=True).start()

    def __iter__(self) -> Iterator[_T]:
        while (found := self._read.get()) is not None:
            value, error = found
            if error is not None:
                raise error
            yield value  # type: ignore[misc]

    def stop(self) -> None:
        self._over.set()

    def _run(self) -> None:
        try:
            for value in self._source():
                if not self._put((value, None)):
                    return
            self._put(None)
        except BaseException as error:
            self._put((None, error))

    def _put(self, item: tuple[_T | None, BaseException | None] | None) -> bool:
        while not self._over.is_set():
            try:
                self._read.put(item, timeout=_LOOK_SECONDS)
            except queue.Full:
                continue
            return True
        return False
