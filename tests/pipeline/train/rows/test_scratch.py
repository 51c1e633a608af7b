"""An array in a scratch file releases its pages."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from beamlabel.pipeline.train.rows.scratch import scratch

_ROWS, _DIMENSION = 100_000, 1280


def _mapped() -> int:
    """The bytes of mapped files that the process holds in memory."""
    status = Path("/proc/self/status").read_text()
    kilobytes = sum(int(status.partition(name)[2].split()[0]) for name in ("RssFile:", "RssShmem:"))
    return kilobytes << 10


def test_half_a_gigabyte_is_written_and_read_in_less_memory() -> None:
    before = most = _mapped()
    array = scratch(_ROWS, _DIMENSION)
    for start in range(0, _ROWS, 4096):
        stop = min(start + 4096, _ROWS)
        array[start:stop] = np.arange(start, stop, dtype=np.float32)[:, None]
        most = max(most, _mapped())
    places = np.random.default_rng(0).permutation(_ROWS)
    for start in range(0, _ROWS, 4096):
        chosen = places[start : start + 4096]
        rows = array[chosen]
        assert type(rows) is np.ndarray
        assert (rows == chosen[:, None]).all()
        most = max(most, _mapped())
    for start in range(0, _ROWS, 4096):
        rows = array[start : start + 4096]
        assert (rows[:, [0, -1]] == np.arange(start, start + len(rows))[:, None]).all()
        rows.sum()  # touches all of them
        most = max(most, _mapped())
    assert most - before < 300 << 20  # of 512 MB


def test_what_is_written_by_places_is_there() -> None:
    array = scratch(1000, 8)
    places = np.array([5, 999, 0])
    array[places] = np.arange(24, dtype=np.float32).reshape(3, 8)
    array[places[:1]] = np.ones((1, 8), np.float32)
    assert array[5].tolist() == [1] * 8
    assert array[[999, 0]].tolist() == [list(range(8, 16)), list(range(16, 24))]
    assert scratch(0, 8).shape == (0, 8)
