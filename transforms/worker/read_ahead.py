"""Files read one after the other, the next ones meanwhile: from a bucket each begins with some round trips."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Generic, TypeVar

_T = TypeVar("_T")
# How often a reader that waits for room looks whether anybody still wants what it reads.
_LOOK_SECONDS = 0.1


def read_ahead(sources: Iterable[Callable[[], Iterable[_T]]], *, readers: int, held: int = 2) -> Iterator[_T]:
    """What the sources yield, in their order.

    Args:
      sources: each opens and reads one file, in a thread of its own.
      readers: sources that are read at a time; 1: none is read ahead, and no thread is started.
      held: what each of them yields that is in memory at a time, beside what it works on.

    Raises:
      Exception: what a source raises, in its turn.
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
    """One source, read by a thread."""

    def __init__(self, source: Callable[[], Iterable[_T]], held: int) -> None:
        self._source = source
        # Each with an error or without; None at the end.
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
