"""Sorted hashes on disk: exactly the added keys are found, and memory use is bounded."""

import random
import threading
import tracemalloc

import pytest

from beamlabel.transforms.inputs import key_index
from beamlabel.transforms.inputs.key_index import KEY_BYTES, KeyIndex, KeyIndexWriter, key


def write(path, keys):
    with KeyIndexWriter(path.parent) as writer:
        writer.add(keys)
        return writer.finish(path)


def test_all_that_was_added_is_found_and_nothing_else(tmp_path):
    keys = [key(f"gs://photos/{n}.jpg") for n in range(5000)]
    assert write(tmp_path / "index", random.Random(0).sample(keys, 5000)) == 5000
    content = (tmp_path / "index").read_bytes()
    index = KeyIndex(content)
    assert list(index) == sorted(keys) == index[:]
    assert len(content) == KEY_BYTES * len(index)
    assert all(each in index for each in keys)
    assert not any(key(f"gs://photos/{n}.png") in index for n in range(5000))


@pytest.mark.parametrize("edge", [bytes(KEY_BYTES), b"\xff" * KEY_BYTES, b"a" + bytes(KEY_BYTES - 1)])
def test_the_first_and_the_last_key(tmp_path, edge):
    write(tmp_path / "index", [edge])
    index = KeyIndex((tmp_path / "index").read_bytes())
    assert edge in index
    assert b"b" * KEY_BYTES not in index


def test_a_key_that_comes_twice_is_there_once(tmp_path):
    assert write(tmp_path / "index", [key("a"), key("b"), key("a")]) == 2


def test_nothing(tmp_path):
    assert write(tmp_path / "index", []) == 0
    assert key("a") not in KeyIndex(b"")


def test_what_is_no_index(tmp_path):
    with pytest.raises(ValueError, match="17 bytes"):
        KeyIndex(bytes(17))


def test_parts_are_told_apart():
    assert len({key("a", "b"), key("ab"), key("a", "b", ""), key("a")}) == 4
    key("\udcff")  # a file name that is not UTF-8


def test_threads_add_at_the_same_time(tmp_path, monkeypatch):
    monkeypatch.setattr(key_index, "_BUFFER_BYTES", 1000)
    with KeyIndexWriter(tmp_path) as writer:
        threads = [
            threading.Thread(target=lambda s=s: [writer.add([key(f"{s}/{n}")]) for n in range(500)])
            for s in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert writer.finish(tmp_path / "index") == 2000
    assert [path.name for path in tmp_path.iterdir()] == ["index"]


def _peak_of_writing(directory, count):
    """The peak of Python's memory in bytes while an index of this number of keys is written."""
    tracemalloc.start()
    try:
        with KeyIndexWriter(directory) as writer:
            for start in range(0, count, 1000):
                writer.add(key(str(n)) for n in range(start, start + 1000))
            writer.finish(directory / str(count))
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_the_number_of_keys(tmp_path, monkeypatch):
    monkeypatch.setattr(key_index, "_BUFFER_BYTES", 1 << 16)
    peaks = []
    for count in (20_000, 200_000):
        # A thread of an earlier test may allocate meanwhile, but not every time.
        peaks.append(min(_peak_of_writing(tmp_path, count) for _ in range(3)))
    assert peaks[1] < peaks[0] + 200_000 * KEY_BYTES / 20
