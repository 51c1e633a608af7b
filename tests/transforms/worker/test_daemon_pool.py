"""Threads that wait: errors, hangs, dead threads, and no new threads."""

import threading
from concurrent.futures import Future

import pytest

from beamlabel.transforms.worker.daemon_pool import DaemonPool, ThreadDiedError
from support.threads import no_more_threads

pytestmark = pytest.mark.timeout(60)


def test_tasks_run_in_order_and_no_more_threads_than_are_needed():
    pool, seen = DaemonPool(3, "test"), []
    for number in range(5):
        pool.result(pool.submit(seen.append, number))
    assert seen == [0, 1, 2, 3, 4]
    gate = threading.Barrier(3, timeout=30)
    futures = [pool.submit(gate.wait) for _ in range(3)]
    assert sorted(map(pool.result, futures)) == [0, 1, 2]


@pytest.mark.parametrize("error", [ValueError("no"), MemoryError("no"), TimeoutError("no")])
def test_an_error_of_a_task_is_the_waiters(error):
    def task():
        raise error

    pool = DaemonPool(1, "test")
    with pytest.raises(type(error), match="no"):
        pool.result(pool.submit(task))
    assert pool.result(pool.submit(lambda: 1)) == 1


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit()])
def test_an_error_that_would_end_the_waiters_thread_is_raised_too(error):
    def task():
        raise error

    pool = DaemonPool(1, "test")
    with pytest.raises(RuntimeError, match=type(error).__name__) as raised:
        pool.result(pool.submit(task))
    assert raised.value.__cause__ is error
    assert pool.result(pool.submit(lambda: 1)) == 1


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_the_death_of_a_thread_is_noticed_and_another_takes_its_place(monkeypatch):
    def no_memory(future, result):
        raise MemoryError

    pool = DaemonPool(1, "test")
    with monkeypatch.context() as patch:
        patch.setattr(Future, "set_result", no_memory)
        with pytest.raises(ThreadDiedError):
            pool.result(pool.submit(lambda: 1))
    assert pool.result(pool.submit(lambda: 1)) == 1


def test_no_thread_at_all_is_an_error_and_nothing_is_queued(monkeypatch):
    pool, seen = DaemonPool(2, "test"), []
    with no_more_threads(monkeypatch), pytest.raises(RuntimeError, match="can't start new thread"):
        pool.submit(seen.append, 1)
    pool.result(pool.submit(seen.append, 2))
    assert seen == [2]


def test_fewer_threads_do_the_work_too(monkeypatch):
    pool, gate = DaemonPool(2, "test"), threading.Event()
    first = pool.submit(gate.wait, 30)
    with no_more_threads(monkeypatch):
        second = pool.submit(lambda: 2)
    gate.set()
    assert pool.result(first) is True
    assert pool.result(second) == 2


def test_closing_does_not_wait_for_hanging_tasks():
    pool, gate = DaemonPool(1, "test"), threading.Event()
    pool.submit(gate.wait)
    (thread,) = pool._threads
    pool.close(0.01)
    assert thread.is_alive()
    gate.set()
    thread.join(30)
    assert not thread.is_alive()
