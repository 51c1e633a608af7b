"""The cores of a worker process, shared by decoding and inference.

There is one thread per core that the process may use, or fewer if several worker processes share a host
(``--worker_threads``). Inference goes first, since the runner's thread waits for it. Decoding fills the gaps: the end
of a batch, when a core has no chunk left, and the time of the runner's own work. So no core idles while images wait for
decoding, and no two threads evict each other's data from a core's cache.
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
    """Threads that run urgent tasks first, and tasks of one urgency in the order of their submission.

    Args:
      threads: number of threads, fewer if the system allows no more; they are daemons, since a worker may end at any
        time.

    Attributes:
      threads: actual number of threads.
      is_broken: whether a thread has died, so that its task will never end.

    Raises:
      ValueError: ``threads`` is less than 1.
      RuntimeError: No thread can be started.
    """

    def __init__(self, threads: int) -> None:
        if threads < 1:
            raise ValueError(f"threads must be at least 1, not {threads}")
        self.is_broken = False
        self._urgent: deque[tuple[Callable[..., None], tuple[Any, ...], _Failed]] = deque()
        self._other: deque[tuple[Callable[..., None], tuple[Any, ...], _Failed]] = deque()
        # One token per task, so that a thread waits on one queue instead of two.
        self._tokens: SimpleQueue[None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        for number in range(threads):
            thread = threading.Thread(target=self._work, name=f"compute-{number}", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:
                advice = f"{error}; check `ulimit -u`, the container's limits, and --worker_threads"
                if not self._threads:
                    raise RuntimeError(f"no compute thread can be started: {advice}") from error
                _LOGGER.warning("Started only %d of %d compute threads: %s", number, threads, advice)
                break
            self._threads.append(thread)
        self.threads = len(self._threads)

    def submit(
        self, task: Callable[..., None], *arguments: Any, failed: _Failed, urgent: bool = False
    ) -> None:
        """Runs ``task(*arguments)`` in one of the threads, which calls ``failed`` with its exception."""
        (self._urgent if urgent else self._other).append((task, arguments, failed))
        self._tokens.put(None)

    def check(self) -> None:
        """Raises ``ThreadDiedError`` if a thread has died, so that a task may never end."""
        if self.is_broken or not all(thread.is_alive() for thread in self._threads):
            self.is_broken = True
            raise ThreadDiedError("a compute thread died during a task")

    def run(self, task: Callable[[T], None], arguments: Sequence[T], *, urgent: bool) -> None:
        """Runs ``task`` for each argument and waits for all, on a latch that wakes the caller once.

        Raises:
          Exception: The exception of the first failed task, see ``as_exception``; usually after all tasks have ended.
          ThreadDiedError: A thread died.
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
            except BaseException as error:  # raised again in the caller
                errors.append(error)
            if next(ended) == len(arguments):
                latch.release()

        def failed(error: BaseException) -> None:
            # run_one itself failed, such as out of memory: the last task may not be counted, so wake the caller now.
            errors.append(error)
            with suppress(RuntimeError):  # already released
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
                except BaseException as error:  # the waiting thread raises it
                    failed(error)
                del task, arguments, failed  # else the task's images stay in memory until the next task
        finally:
            self.is_broken = True


_pools: dict[int | None, ComputePool] = {}
_lock = threading.Lock()


def compute_pool(threads: int | None = None) -> ComputePool:
    """The process's pool, created at the first call, and again after a thread died or in a forked child.

    Args:
      threads: number of threads, the same throughout a job; None: ``available_cores``.
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
