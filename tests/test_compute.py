"""The pool that decoding and inference share."""

import os
import threading
import time

import pytest

from transforms import cpu
from transforms.compute import ComputePool, available_cores, compute_pool


@pytest.fixture
def pool():
    return ComputePool(1)


def test_urgent_tasks_go_first_and_others_keep_their_order(pool):
    seen, gate = [], threading.Event()
    pool.submit(gate.wait)
    for number in range(3):
        pool.submit(seen.append, number)
    for name in ("a", "b"):
        pool.submit(seen.append, name, urgent=True)
    gate.set()
    pool.run(lambda _: None, [None], urgent=False)
    assert seen == ["a", "b", 0, 1, 2]


def test_run_waits_for_all(pool):
    seen = []

    def slowly(number):
        time.sleep(0.01)
        seen.append(number)

    pool.run(slowly, range(4), urgent=True)
    assert seen == [0, 1, 2, 3]
    pool.run(slowly, [], urgent=True)


def test_what_a_task_raises_reaches_the_caller_after_all_have_run(pool):
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


def test_a_pool_has_threads():
    with pytest.raises(ValueError, match="not 0"):
        ComputePool(0)


@pytest.fixture
def cgroup(tmp_path, monkeypatch):
    """Writes ``cpu.max`` files, in the kernel's format, and says which group this process is in."""
    monkeypatch.setattr(cpu, "_CGROUP", tmp_path / "self")
    monkeypatch.setattr(cpu, "_CGROUPS", tmp_path / "groups")

    def write(path, limits):
        (tmp_path / "self").write_text(f"3:cpuset:/\n0::{path}\n")
        for folder, limit in limits.items():
            (tmp_path / "groups" / folder).mkdir(parents=True, exist_ok=True)
            (tmp_path / "groups" / folder / "cpu.max").write_text(limit + "\n")

    return write


def test_a_containers_cpu_limit_is_rounded_up(cgroup, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)))
    cgroup("/", {"": "350000 100000"})
    assert cpu.core_limit() == 3.5
    assert available_cores() == 4
    cgroup("/", {"": "20000 100000"})
    assert available_cores() == 1
    cgroup("/", {"": "max 100000"})
    assert available_cores() == 16


def test_the_least_limit_of_a_group_and_those_above_it(cgroup, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)))
    cgroup(
        "/pods/one/worker",
        {"pods/one/worker": "max 100000", "pods/one": "200000 100000", "pods": "800000 100000"},
    )
    assert available_cores() == 2


def test_a_limit_above_the_processors_changes_nothing(cgroup, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    cgroup("/", {"": "800000 100000"})
    assert available_cores() == 2


def test_without_control_groups_there_is_no_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(cpu, "_CGROUP", tmp_path / "missing")
    assert cpu.core_limit() == float("inf")
