"""Threads for file and network I/O, whose errors reach the waiting thread.

``ThreadPoolExecutor`` is not enough for a worker: at exit the interpreter waits for its threads, even for one that
hangs in a request, and if one of its threads dies, the wait for its future never ends.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from queue import SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")

LOOK_SECONDS = 2.0
"""Seconds between checks that an awaited thread is alive."""

_Task = tuple["Future[Any]", Callable[..., Any], tuple[Any, ...]]


class ThreadDiedError(RuntimeError):
    """A thread ended during a task, whose result will never come."""


def as_exception(error: BaseException) -> Exception:
    """Converts a thread's exception for the waiting thread.

    ``SystemExit`` and the like would end the waiting thread, which is Beam's, without an error for the runner: they
    become the cause of a ``RuntimeError``.
    """
    if isinstance(error, Exception):
        return error
    raised = RuntimeError(f"a thread raised {type(error).__name__}: {error}")
    raised.__cause__ = error
    return raised


def check_alive(threads: list[threading.Thread]) -> None:
    """Removes ended threads from the list, and raises ``ThreadDiedError`` if there were any."""
    dead = [thread for thread in threads if not thread.is_alive()]
    if dead:
        threads[:] = [thread for thread in threads if thread.is_alive()]
        raise ThreadDiedError(f"the thread {dead[0].name} died during a task")


class DaemonPool:
    """Threads that run tasks in the order of their submission; a hanging thread does not keep the process from ending.

    Args:
      threads: the most threads; each is started when it is first needed.
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
        """Runs ``task(*arguments)`` in one of the threads.

        Raises:
          RuntimeError: The pool is closed, or no thread can be started.
        """
        future: Future[T] = Future()
        with self._lock:
            if self._is_closed:
                raise RuntimeError(f"the thread pool {self._name} is closed")
            if self._unfinished >= len(self._threads) and len(self._threads) < self._limit:
                self._start_thread()
            self._unfinished += 1
            self._tasks.put((future, task, arguments))
        return future

    def result(self, future: Future[T]) -> T:
        """Waits for a task of this pool and returns its result.

        Raises:
          Exception: The task's exception, see ``as_exception``.
          ThreadDiedError: A thread died, so that the task may never end.
        """
        while not wait([future], LOOK_SECONDS).done:
            self.check()
        error = future.exception()
        if error is not None:
            raise as_exception(error)
        return future.result()

    def check(self) -> None:
        """Raises ``ThreadDiedError`` if a thread of the pool has died since the last check."""
        with self._lock:
            check_alive(self._threads)

    def close(self, seconds: float = 0.0) -> None:
        """Ends the threads after their tasks, and waits at most ``seconds`` for that."""
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
                    f"the thread {thread.name} cannot be started: {error}; check `ulimit -u` and the container's limits"
                ) from error
            self._limit = number  # the existing threads suffice
            return
        self._threads.append(thread)

    def _work(self) -> None:
        while (found := self._tasks.get()) is not None:
            future, task, arguments = found
            try:
                result = task(*arguments)
            except BaseException as error:  # the waiting thread raises it
                future.set_exception(error)
            else:
                future.set_result(result)
                del result
            del found, future, task, arguments  # else the task's data stay in memory until the next task
            with self._lock:
                self._unfinished -= 1
