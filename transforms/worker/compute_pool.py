"""The cores of a worker process, shared by decoding and inference.

There are as many threads as cores that the process may use, or fewer where several worker processes share a
host (``--worker_threads``). Inference goes first, since the runner's thread waits for it; decoding fills
whatever is left: the end of a batch, where one core has no chunk any more, and the time in which the runner's
thread does its own work. So no core idles while there is something to decode, and no two threads take turns on
one core, each throwing the other's data out of its cache.
"""

from __future__ import annotations

import itertools
import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Any, TypeVar

from beamlabel.transforms.worker.cpu import available_cores

T = TypeVar("T")


class ComputePool:
    """Threads that run urgent tasks first, and tasks of one urgency in the order in which they came.

    Args:
      threads: how many; they are daemons, since a worker may end at any time.

    Raises:
      ValueError: fewer than one.
    """

    def __init__(self, threads: int) -> None:
        if threads < 1:
            raise ValueError(f"threads must be at least 1, not {threads}")
        self.threads = threads
        self._urgent: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        self._other: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        # One token a task, so that a thread waits on one queue, not on two.
        self._tokens: SimpleQueue[None] = SimpleQueue()
        for number in range(threads):
            threading.Thread(target=self._work, name=f"compute-{number}", daemon=True).start()

    def submit(self, task: Callable[..., None], *arguments: Any, urgent: bool = False) -> None:
        """Has ``task(*arguments)`` run in one of the threads; it must not raise."""
        (self._urgent if urgent else self._other).append((task, arguments))
        self._tokens.put(None)

    def run(self, task: Callable[[T], None], arguments: Sequence[T], *, urgent: bool) -> None:
        """Runs ``task`` for each argument and waits for all; a plain latch, which wakes the caller once.

        Raises:
          Exception: what the first task that failed raised, after all have ended.
        """
        if not arguments:
            return
        errors: list[BaseException] = []
        ended = itertools.count(1)
        latch = threading.Lock()
        latch.acquire()

        def run_one(argument: T) -> None:
            try:
                task(argument)
            except BaseException as error:  # the caller's, who waits
                errors.append(error)
            if next(ended) == len(arguments):
                latch.release()

        for argument in arguments:
            self.submit(run_one, argument, urgent=urgent)
        latch.acquire()
        if errors:
            raise errors[0]

    def _work(self) -> None:
        while True:
            self._tokens.get()
            try:
                task, arguments = self._urgent.popleft()
            except IndexError:
                task, arguments = self._other.popleft()
            task(*arguments)
            del task, arguments  # else the last task's images live on until the next one comes


_pools: dict[int | None, ComputePool] = {}
_lock = threading.Lock()


def compute_pool(threads: int | None = None) -> ComputePool:
    """The process's pool; made at the first call, and anew in a forked child, which has no threads.

    Args:
      threads: how many it has; None: as many as ``available_cores``. All of a job say the same.
    """
    with _lock:
        pool = _pools.get(threads)
        if pool is None:
            pool = _pools[threads] = ComputePool(threads or available_cores())
        return pool


def _forget_pools() -> None:
    global _pools, _lock
    _pools, _lock = {}, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pools)
