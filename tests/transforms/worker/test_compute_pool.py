"""The pool that decoding and inference share."""

import os
import subprocess
import sys
import threading
import time

import pytest

from beamlabel.pipeline.runners.choose import choose, worker_threads
from beamlabel.transforms.worker.compute_pool import ComputePool, compute_pool
from beamlabel.transforms.worker.cpu import available_cores
from beamlabel.transforms.worker.daemon_pool import ThreadDiedError
from support.jobs import TINY, FinishedJob, label, photos, uri_list
from support.paths import ROOT
from support.threads import no_more_threads


@pytest.fixture
def pool():
    return ComputePool(1)


def test_urgent_tasks_go_first_and_others_keep_their_order(pool):
    seen, gate = [], threading.Event()
    failures = []
    pool.submit(gate.wait, failed=failures.append)
    for number in range(3):
        pool.submit(seen.append, number, failed=failures.append)
    for name in ("a", "b"):
        pool.submit(seen.append, name, failed=failures.append, urgent=True)
    gate.set()
    pool.run(lambda _: None, [None], urgent=False)
    assert seen == ["a", "b", 0, 1, 2]
    assert not failures


def test_run_waits_for_all(pool):
    seen = []

    def slowly(number):
        time.sleep(0.01)
        seen.append(number)

    pool.run(slowly, range(4), urgent=True)
    assert seen == [0, 1, 2, 3]
    pool.run(slowly, [], urgent=True)


def test_an_error_of_a_task_reaches_the_caller_after_all_have_run(pool):
    seen = []

    def fail(number):
        seen.append(number)
        if number in (1, 2):
            raise ValueError(f"no {number}")

    with pytest.raises(ValueError, match="no 1"):
        pool.run(fail, range(4), urgent=True)
    assert seen == [0, 1, 2, 3]
    pool.run(seen.append, [4], urgent=True)
    assert seen[-1] == 4


def test_several_callers_share_the_threads():
    pool = ComputePool(2)
    names, totals = set(), []

    def call():
        numbers = []

        def add(number):
            names.add(threading.current_thread().name)
            numbers.append(number)

        pool.run(add, range(50), urgent=True)
        totals.append(sum(numbers))

    callers = [threading.Thread(target=call) for _ in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert totals == [sum(range(50))] * 4
    assert names <= {"compute-0", "compute-1"}


def test_there_is_one_pool_a_process_with_a_thread_a_core():
    assert compute_pool() is compute_pool()
    assert compute_pool().threads == available_cores() >= 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_child_has_a_pool_that_works():
    compute_pool().run(lambda _: None, [None], urgent=True)
    child = os.fork()
    if child == 0:
        seen = []
        compute_pool().run(seen.append, [1], urgent=True)
        os._exit(0 if seen == [1] else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


COUNT = """
import sys, threading
from beamlabel.pipeline.options.parser import parse
from beamlabel.pipeline.run import run
code = run(*parse(sys.argv[1:]))
print(sorted(thread.name for thread in threading.enumerate() if thread.name.startswith("compute-")))
sys.exit(code)
"""


@pytest.mark.parametrize("threads", [1, 3])
def test_worker_threads_are_all_that_compute(tmp_path, threads):
    uris = uri_list(tmp_path / "list.txt", photos(tmp_path / "photos", 20))
    normal = label(tmp_path / "normal", "--input", uris)
    arguments = ["--module", TINY, "--input", uris, "--output", tmp_path / "out", "--worker_threads", threads]
    command = [sys.executable, "-c", COUNT, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str([f"compute-{number}" for number in range(threads)])
    assert FinishedJob(0, tmp_path / "out").rows == normal.rows


def test_worker_processes_of_this_machine_share_its_cores():
    def chosen(*arguments):
        return worker_threads(choose(arguments))

    many = "--direct_running_mode=multi_processing"
    assert chosen() is None
    assert chosen("--direct_running_mode=multi_threading", "--direct_num_workers=2") is None
    assert chosen("--runner=FlinkRunner") is None
    assert chosen(many, "--direct_num_workers=1") == available_cores()
    assert chosen(many, "--direct_num_workers=999") == 1


def test_a_pool_has_threads():
    with pytest.raises(ValueError, match="not 0"):
        ComputePool(0)


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "error", [ValueError("no"), MemoryError("no"), SystemExit("no"), KeyboardInterrupt("no")]
)
def test_an_error_of_a_task_is_raised_and_the_thread_continues(pool, error):
    def fail(_=None):
        raise error

    told, gate = [], threading.Event()
    pool.submit(fail, failed=lambda seen: (told.append(seen), gate.set()))
    assert gate.wait(30)
    assert told == [error]
    with pytest.raises(Exception, match="no"):  # not SystemExit, which would end the caller's thread
        pool.run(fail, [1, 2], urgent=True)
    seen = []
    pool.run(seen.append, [3], urgent=False)
    assert seen == [3]


@pytest.mark.timeout(60)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_waiting_for_a_pool_whose_thread_died_raises_and_the_next_caller_gets_another():
    def die(_=None):
        raise MemoryError

    pool = compute_pool(1)
    gate = threading.Event()
    pool.submit(gate.wait, failed=die)
    pool.submit(die, failed=die)
    threading.Timer(0.1, gate.set).start()
    with pytest.raises(ThreadDiedError):
        pool.run(lambda _: None, [1], urgent=False)
    other = compute_pool(1)
    assert other is not pool
    other.run(lambda _: None, [1], urgent=False)


@pytest.mark.timeout(60)
def test_no_thread_to_compute_in_is_an_error(monkeypatch):
    with (
        no_more_threads(monkeypatch, "compute-"),
        pytest.raises(RuntimeError, match="can't start new thread"),
    ):
        ComputePool(2)


@pytest.mark.timeout(60)
def test_fewer_threads_compute_too(monkeypatch, caplog):
    with no_more_threads(monkeypatch, "compute-", after=1):
        pool = ComputePool(3)
    assert pool.threads == 1
    assert "only 1 of 3" in caplog.text
    seen = []
    pool.run(seen.append, range(5), urgent=True)
    assert seen == list(range(5))
