"""Read-ahead of files: in order, with a limited number, and errors at their position."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial

import pytest

from beamlabel.transforms.worker.read_ahead import read_ahead


@pytest.mark.parametrize("readers", [1, 2, 5, 50])
def test_all_in_order(readers: int) -> None:
    sources = (partial(range, start, start + 7) for start in range(0, 140, 7))
    assert list(read_ahead(sources, readers=readers)) == list(range(140))
    assert list(read_ahead([], readers=readers)) == []
    assert list(read_ahead([lambda: [None, 1], list, lambda: [2]], readers=readers)) == [None, 1, 2]


@pytest.mark.parametrize("readers", [1, 3])
def test_an_error_comes_after_the_elements_before_it(readers: int) -> None:
    def broken() -> Iterator[int]:
        yield 3
        raise OSError("broken")

    found = []
    with pytest.raises(OSError, match="broken"):
        for one in read_ahead([lambda: [1, 2], broken, lambda: [4]], readers=readers):
            found.append(one)
    assert found == [1, 2, 3]


def test_the_next_are_read_meanwhile_and_no_more() -> None:
    begun = threading.Semaphore(0)
    count = []

    def source(number: int) -> Iterator[int]:
        count.append(number)
        begun.release()
        yield number

    found = read_ahead([partial(source, number) for number in range(10)], readers=3)
    assert next(found) == 0
    for _ in range(3):
        assert begun.acquire(timeout=60)
    assert sorted(count) == [0, 1, 2]
    assert list(found) == list(range(1, 10))


def test_stopping_early_leaves_no_reader_behind() -> None:
    before = threading.active_count()
    found = read_ahead([lambda: range(1000)] * 5, readers=5)
    assert next(found) == 0
    readers = [thread for thread in threading.enumerate() if thread.name == "read-ahead"]
    found.close()
    for thread in readers:
        thread.join(timeout=60)
    assert threading.active_count() <= before
