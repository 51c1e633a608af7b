"""Threads that wait for files and networks, and whose faults reach whoever waits for them.

``ThreadPoolExecutor`` is not enough for a worker: the interpreter waits for its threads when it ends, also for one
that hangs in a request, and a thread of it that dies leaves its future, and who waits for that, waiting for ever.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from queue import SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")

LOOK_SECONDS = 2.0
"""Whoever waits for a thread looks this often whether it is still alive."""

_Task = tuple["Future[Any]", Callable[..., Any], tuple[Any, ...]]


class ThreadDiedError(RuntimeError):
    """A thread ended with a task in its hands, whose result will never come."""


def as_exception(error: BaseException) -> Exception:
    """What a thread raised, as whoever waits for it may raise it.

    ``SystemExit`` and the like would end the waiting thread, which is Beam's, without a word to the runner: they
    become the cause of a ``RuntimeError``.
    """
    if isinstance(error, Exception):
        return error
    raised = RuntimeError(f"a thread raised {type(error).__name__}: {error}")
    raised.__cause__ = error
    return raised


def check_alive(threads: list[threading.Thread]) -> None:
    """Raises ``ThreadDiedError`` if one of the threads has ended, and forgets those that have."""
    dead = [thread for thread in threads if not thread.is_alive()]
    if dead:
        threads[:] = [thread for thread in threads if thread.is_alive()]
        raise ThreadDiedError(f"the thread {dead[0].name} died at work")


class DaemonPool:
    """Threads that run tasks in the order in which they came; one that hangs holds up no end of a process.

    Args:
      threads: how many at the most; each is started when it is first needed.
      name: of the threads.
    """

    def __init__(self, threads: int, name: str) -> None:
        self._limit, self._name = threads, name
        self._tasks: SimpleQueue[_Task | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._unfinished = 0
        self._is_closed = False

    def submit(self, task: Callable[..., T], *arguments: Any) -> Future[T]:
        """Has ``task(*arguments)`` run in one of the threads.

        Raises:
          RuntimeError: the pool is closed; or there is no thread, and none can be started.
        """
        future: Future[T] = Future()
        with self._lock:
            if self._is_closed:
                raise RuntimeError(f"the threads {self._name} have ended")
            if self._unfinished >= len(self._threads) and len(self._threads) < self._limit:
                self._start_thread()
            self._unfinished += 1
            self._tasks.put((future, task, arguments))
        return future

    def result(self, future: Future[T]) -> T:
        """Waits for a task of this pool.

        Raises:
          Exception: what it raised, see ``as_exception``.
          ThreadDiedError: a thread died, and the task may never end.
        """
        while not wait([future], LOOK_SECONDS).done:
            self.check()
        error = future.exception()
        if error is not None:
            raise as_exception(error)
        return future.result()

    def check(self) -> None:
        """Raises ``ThreadDiedError`` if a thread of the pool has died since the last look."""
        with self._lock:
            check_alive(self._threads)

    def close(self, seconds: float = 0.0) -> None:
        """Lets the threads end when the tasks are done, and waits so long for that at the most."""
        with self._lock:
            threads, self._threads, self._limit = self._threads, [], 0
            self._is_closed = True
            for _ in threads:
                self._tasks.put(None)
        for thread in threads:
            thread.join(seconds / len(threads))

    def _start_thread(self) -> None:
        number = len(self._threads)
        thread = threading.Thread(target=self._work, name=f"{self._name}-{number}", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            if not self._threads:
                raise RuntimeError(
                    f"no thread {thread.name} can be started: {error}; see `ulimit -u` and the limits of the container"
                ) from error
            self._limit = number  # those that there are do it, too
            return
        self._threads.append(thread)

    def _work(self) -> None:
        while (found := self._tasks.get()) is not None:
            future, task, arguments = found
            try:
                result = task(*arguments)
            except BaseException as error:  # whoever waits for the future raises it
                future.set_exception(error)
            else:
                future.set_result(result)
                del result
            del found, future, task, arguments  # else what they hold lives on until the next one comes
            with self._lock:
                self._unfinished -= 1
