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
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, TypeVar

from beamlabel.transforms.secrets.logs import get_logger
from beamlabel.transforms.worker.cpu import available_cores
from beamlabel.transforms.worker.daemon_pool import LOOK_SECONDS, ThreadDiedError, as_exception

T = TypeVar("T")
_Failed = Callable[[BaseException], None]

_LOGGER = get_logger(__name__)


class ComputePool:
    """Threads that run urgent tasks first, and tasks of one urgency in the order in which they came.

    Args:
      threads: how many; they are daemons, since a worker may end at any time. There are fewer if the system lets no
        more be started.

    Attributes:
      threads: how many there are.
      is_broken: whether one has died, and what it was at will never end.

    Raises:
      ValueError: fewer than one.
      RuntimeError: none can be started.
    """

    def __init__(self, threads: int) -> None:
        if threads < 1:
            raise ValueError(f"threads must be at least 1, not {threads}")
        self.is_broken = False
        self._urgent: deque[tuple[Callable[..., None], tuple[Any, ...], _Failed]] = deque()
        self._other: deque[tuple[Callable[..., None], tuple[Any, ...], _Failed]] = deque()
        # One token a task, so that a thread waits on one queue, not on two.
        self._tokens: SimpleQueue[None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        for number in range(threads):
            thread = threading.Thread(target=self._work, name=f"compute-{number}", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:
                advice = f"{error}; see `ulimit -u`, the limits of the container, and --worker_threads"
                if not self._threads:
                    raise RuntimeError(f"no thread can be started to compute in: {advice}") from error
                _LOGGER.warning("only %d of %d threads compute: %s", number, threads, advice)
                break
            self._threads.append(thread)
        self.threads = len(self._threads)

    def submit(
        self, task: Callable[..., None], *arguments: Any, failed: _Failed, urgent: bool = False
    ) -> None:
        """Has ``task(*arguments)`` run in one of the threads; ``failed`` is called there with what it raises."""
        (self._urgent if urgent else self._other).append((task, arguments, failed))
        self._tokens.put(None)

    def check(self) -> None:
        """For whoever waits for a task: raises ``ThreadDiedError`` if it may never end."""
        if self.is_broken or not all(thread.is_alive() for thread in self._threads):
            self.is_broken = True
            raise ThreadDiedError("a thread that computes died at work")

    def run(self, task: Callable[[T], None], arguments: Sequence[T], *, urgent: bool) -> None:
        """Runs ``task`` for each argument and waits for all; a plain latch, which wakes the caller once.

        Raises:
          Exception: what the first task that failed raised, see ``as_exception``; after all have ended, as a rule.
          ThreadDiedError: one of the threads died.
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

        def failed(error: BaseException) -> None:
            # In run_one itself, out of memory: the last task may not be counted, so the caller wakes now.
            errors.append(error)
            with suppress(RuntimeError):  # it is released already
                latch.release()

        for argument in arguments:
            self.submit(run_one, argument, failed=failed, urgent=urgent)
        while not latch.acquire(timeout=LOOK_SECONDS):
            self.check()
        if errors:
            raise as_exception(errors[0])

    def _work(self) -> None:
        try:
            while True:
                self._tokens.get()
                try:
                    task, arguments, failed = self._urgent.popleft()
                except IndexError:
                    task, arguments, failed = self._other.popleft()
                try:
                    task(*arguments)
                except BaseException as error:  # whoever waits for the task raises it
                    failed(error)
                del task, arguments, failed  # else the last task's images live on until the next one comes
        finally:
            self.is_broken = True


_pools: dict[int | None, ComputePool] = {}
_lock = threading.Lock()


def compute_pool(threads: int | None = None) -> ComputePool:
    """The process's pool; made at the first call, anew when a thread of it has died, and in a forked child, which
    has no threads.

    Args:
      threads: how many it has; None: as many as ``available_cores``. All of a job say the same.
    """
    with _lock:
        pool = _pools.get(threads)
        if pool is None or pool.is_broken:
            pool = _pools[threads] = ComputePool(threads or available_cores())
        return pool


def _forget_pools() -> None:
    global _pools, _lock
    _pools, _lock = {}, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pools)
