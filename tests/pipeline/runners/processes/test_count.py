"""The number of worker processes, and the order of the units."""

import logging

import pytest

from beamlabel.pipeline.runners.processes.bundle import Unit
from beamlabel.pipeline.runners.processes.count import CORES_A_PROCESS, FEWEST_CORES, Need, worker_processes
from beamlabel.pipeline.runners.processes.hand_out import in_hand_out_order
from beamlabel.pipeline.runners.processes.process import shares

GB = 1 << 30
NEED = Need(model_bytes=14 << 20, pixels=224 * 224, chunk=8, waiting_bytes=256 * 224 * 224 * 3)


@pytest.mark.parametrize("cores", range(1, 130))
def test_all_cores_are_used(cores):
    processes = worker_processes(None, cores, None, None, NEED)
    assert (processes == 1) == (cores < FEWEST_CORES)
    parts = shares(cores, processes)
    assert sum(parts) == cores and len(parts) == processes
    assert max(parts) - min(parts) <= 1
    assert processes == 1 or max(parts) <= CORES_A_PROCESS


def test_what_the_user_says():
    assert worker_processes(3, 2, None, None, NEED) == 3
    assert worker_processes(1, 64, None, 1, NEED) == 1
    assert worker_processes(None, 32, 8, None, NEED) == 4
    assert worker_processes(None, 32, 32, None, NEED) == 1
    assert shares(2, 3) == [1, 1, 1]


def test_memory_bounds_it(caplog):
    caplog.set_level(logging.INFO)
    whole = worker_processes(None, 32, None, 64 * GB, NEED)
    assert whole == 8 and not caplog.messages
    found = [worker_processes(None, 32, None, size * GB, NEED) for size in (0, 1, 2, 3, 4, 5)]
    assert found == sorted(found) and found[0] == 1 and found[-1] < whole
    assert "GB of memory are free" in caplog.messages[0]
    for size, processes in zip((3, 4, 5), found[3:], strict=True):
        assert processes == 1 or 32 * NEED.thread_bytes + processes * NEED.process_bytes < size * GB
    caplog.clear()
    assert worker_processes(8, 32, None, 1 * GB, NEED) == 8  # as requested, with a warning
    assert "--worker_processes" in caplog.text


def test_larger_images_take_more():
    larger = Need(model_bytes=14 << 20, pixels=600 * 600, chunk=8, waiting_bytes=256 * 600 * 600 * 3)
    assert larger.process_bytes - NEED.process_bytes == 256 * 3 * (600 * 600 - 224 * 224)
    counts = [worker_processes(None, 64, None, 12 * GB, need) for need in (NEED, larger)]
    assert counts[0] > counts[1]


def test_small_units_first_and_last():
    units = [Unit(b"", rows, str(number)) for number, rows in enumerate([64, 64, 64, 70, 80, 100, 90, 64])]
    order = [unit.rows for unit in in_hand_out_order(units, 2)]
    assert order == [64, 64, 100, 90, 80, 70, 64, 64]
    assert [unit.rows for unit in in_hand_out_order(units[:1], 8)] == [64]
    assert sorted(unit.name for unit in in_hand_out_order(units, 3)) == sorted(unit.name for unit in units)
