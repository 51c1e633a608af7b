"""The contract of ``storage`` for files on every storage. Patterns are in ``test_contract_match``."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from beamlabel.transforms import storage
from support.places import ATOMIC, CREATES_ONCE, Place

NAMES = [
    "a.txt",
    "é 한글 👍.txt",
    "e\u0301.txt",
    "a#b?c&d=e+f;g.txt",
    "50%.txt",
    "%20.txt",
    "%2F.txt",
    "12:30.txt",
    "'\"`$(x)|<>,.txt",
    " a\t",
    "-rf",
    "~",
    ".hidden",
    "..a",
    "back\\slash",
    "x/[1]*?{a}",
    "a/b/o/c d",
    "n" * 200,
]
BIG = 9 << 20
"""Bytes of a file that is written and read in several requests."""


# --- names and bytes ---


@pytest.mark.parametrize("name", NAMES)
def test_any_name_works(place: Place, name: str) -> None:
    if place.url.startswith("azfs://") and "\\" in name:
        pytest.skip("Azure's library turns backslashes into slashes")
    path = place.uri(name)
    assert not storage.exists(path)
    storage.write_bytes(path, b"data")
    assert place.list() == [name]
    assert place.get(name) == b"data"
    assert storage.exists(path)
    assert [file.path for file in storage.match(storage.escape(path))] == [place.shown(name)]
    assert [file.path for file in storage.match(path)] == [place.shown(name)]
    assert storage.stat(path).path == place.shown(name)
    assert storage.read_bytes(path) == b"data"
    with storage.open_input(path) as file:
        assert file.read() == b"data"
    assert not storage.create_if_absent(path, b"other")
    storage.copy(path, place.uri("copied/" + name))
    storage.move(path, place.uri("moved/" + name))
    assert place.list() == ["copied/" + name, "moved/" + name]
    storage.delete(place.uri("copied/" + name))
    assert storage.create_if_absent(path, b"new")
    storage.delete_tree(place.uri("moved"))
    assert place.list() == [name]


def test_names_that_look_alike_are_different(place: Place) -> None:
    names = ["é", "e\u0301", "%C3%A9", "E", "e", "a b", "a+b", "a%20b", "a*", "a?", "[a]"]
    for name in names:
        storage.write_bytes(place.uri(name), name.encode())
    assert place.list() == sorted(names)
    assert {name: storage.read_bytes(place.uri(name)) for name in names} == {n: n.encode() for n in names}
    storage.delete(place.uri("a*"))
    storage.delete(place.uri("[a]"))
    assert place.list() == sorted(set(names) - {"a*", "[a]"})


@pytest.mark.parametrize(
    "data",
    [b"", b"\n", b"line\r\n", bytes(range(256)) * 40, os.urandom(BIG)],
    ids=["0", "1", "6", "10k", "big"],
)
def test_bytes_come_back(place: Place, data: bytes, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(data)
    storage.write_bytes(place.uri("written.txt.gz"), data)
    storage.write_file(place.uri("copied"), source)
    assert storage.create_if_absent(place.uri("created"), data)
    storage.put_file(str(source), place.uri("put"))
    storage.copy(place.uri("written.txt.gz"), place.uri("again"))
    storage.move(place.uri("written.txt.gz"), place.uri("moved.txt.gz"))
    names = ["again", "copied", "created", "moved.txt.gz", "put"]
    assert place.list() == names
    for name in names:
        assert place.get(name) == data
        assert storage.read_bytes(place.uri(name)) == data
        assert storage.stat(place.uri(name)).size == len(data)
        with storage.open_input(place.uri(name)) as file:
            assert file.read() == data
    assert [file.size for file in storage.match(place.url + "/")] == [len(data)] * 5


# --- missing files and permissions ---


@pytest.mark.parametrize("name", ["missing", "missing/below", "é/ü [1]*"])
def test_what_is_not_there(place: Place, name: str) -> None:
    place.put("there", b"x")
    path = place.uri(name)
    assert not storage.exists(path)
    assert list(storage.match(path)) == []
    storage.delete(path)
    storage.delete_tree(path)
    calls: list[Callable[[], object]] = [
        lambda: storage.stat(path),
        lambda: storage.open_input(path),
        lambda: storage.read_bytes(path),
        lambda: storage.copy(path, place.uri("there")),
        lambda: storage.copy(path, place.uri("new")),
        lambda: storage.copy(path, path),
        lambda: storage.move(path, place.uri("new")),
        lambda: storage.move(path, path),
    ]
    for call in calls:
        with pytest.raises(FileNotFoundError) as caught:
            call()
        assert caught.value.filename == place.shown(name)
    assert place.list() == ["there"]
    assert place.get("there") == b"x"


@pytest.mark.parametrize("place", ATOMIC, indirect=True)
def test_a_directory_is_no_file(place: Place) -> None:
    place.put("a/b/c", b"x")
    for name in ("a", "a/b"):
        assert not storage.exists(place.uri(name))
        for function in (storage.stat, storage.open_input, storage.read_bytes):
            with pytest.raises((FileNotFoundError, IsADirectoryError)) as caught:
                function(place.uri(name))
            assert caught.value.filename == place.shown(name)


@pytest.mark.parametrize("status", [401, 403])
def test_gs_what_is_forbidden(gs: Place, status: int) -> None:
    path = gs.put("a", b"x")
    gs.server.fail_next(1000, status)
    _is_refused(path, path)


@pytest.mark.parametrize("place", ["local", "file", "beam"], indirect=True)
def test_what_is_forbidden(place: Place, request: pytest.FixtureRequest) -> None:
    path = place.put("a", b"x")
    (place.directory / "a").chmod(0)
    request.getfixturevalue("as_nobody")
    _is_refused(path, place.shown("a"))
    for write in (storage.write_bytes, storage.create_if_absent):
        with pytest.raises(PermissionError) as caught:
            write(place.uri("new"), b"x")
        assert caught.value.filename == place.shown("new")


def _is_refused(path: str, shown: str) -> None:
    for function in (storage.read_bytes, storage.open_input):
        with pytest.raises(PermissionError) as caught:
            function(path)
        assert caught.value.filename == shown


# --- reading ---


def test_open_input_seeks(place: Place) -> None:
    data = os.urandom(BIG)
    path = place.put("a.gz", data)  # and decompresses nothing, under any name
    with storage.open_input(path) as file:
        assert file.seekable()
        assert file.seek(-8, os.SEEK_END) == len(data) - 8
        assert file.read() == data[-8:]
        assert file.read(5) == b""
        assert file.seek(1_000_003) == 1_000_003
        assert file.read(5) == data[1_000_003:1_000_008]
        assert file.seek(5 << 20, os.SEEK_CUR) == (5 << 20) + 1_000_008
        assert file.tell() == (5 << 20) + 1_000_008
        assert file.read(1 << 20) == data[(5 << 20) + 1_000_008 :][: 1 << 20]
        file.seek(0)
        assert file.read() == data
        file.seek(20 << 20)
        assert file.read() == b""
        with pytest.raises((ValueError, OSError)):
            file.seek(-1 - len(data), os.SEEK_END)


def test_a_text_of_many_lines(place: Place) -> None:
    lines = [b"gs://bucket/%08d.jpg\n" % i for i in range(300_000)]
    path = place.put("list.txt", b"".join(lines))
    with storage.open_input(path) as file:
        assert list(file) == lines


def test_parquet(place: Place) -> None:
    table = pa.table({"uri": [f"gs://b/{i}" for i in range(10_000)], "n": range(10_000)})
    buffer = io.BytesIO()
    pq.write_table(table, buffer, row_group_size=1000)
    with storage.open_input(place.put("a.parquet", buffer.getvalue())) as raw:
        file = pq.ParquetFile(raw, pre_buffer=False)
        assert file.read_row_group(7) == table.slice(7000, 1000)
        assert pa.Table.from_batches(file.iter_batches(300)) == table


@pytest.mark.parametrize("place", ATOMIC, indirect=True)
def test_a_reader_of_a_replaced_file_gets_no_mixture(place: Place) -> None:
    path = place.put("a", b"1" * BIG)
    with storage.open_input(path) as file:
        assert file.read(10) == b"1" * 10
        storage.write_bytes(path, b"2" * BIG)
        try:
            rest = file.read()
        except FileNotFoundError as error:
            assert error.filename == place.shown("a")
        else:
            assert rest == b"1" * (BIG - 10)
    assert storage.read_bytes(path) == b"2" * BIG


# --- size and version ---


def test_the_version_changes_with_the_content(place: Place, tmp_path: Path) -> None:
    if place.url.startswith("azfs://"):
        pytest.skip("Beam reports only the time of Azure's last update, in whole seconds")
    path = place.put("a", b"1")
    first = storage.stat(path)
    assert first == storage.StoredFile(place.shown("a"), 1, first.version)
    assert first.version is not None
    assert storage.stat(path) == first
    assert list(storage.match(path)) == [first]
    storage.write_bytes(path, b"2")
    assert storage.stat(path).version not in (None, first.version)
    before = storage.stat(place.put("a", b"1")).version
    (tmp_path / "local").write_bytes(b"2")
    storage.put_file(str(tmp_path / "local"), path)
    assert storage.stat(path).version not in (None, before)


# --- writing ---


def test_writing_replaces(place: Place, tmp_path: Path) -> None:
    path = place.uri("a/b/c")
    local = tmp_path / "local"
    for number, write in enumerate((storage.write_bytes, storage.put_file, storage.write_file)):
        data = b"%d" % number * 10
        if write is storage.write_bytes:
            storage.write_bytes(path, data)
        else:
            local.write_bytes(data)
            storage.put_file(str(local), path) if write is storage.put_file else storage.write_file(
                path, local
            )
            assert local.exists() == (write is storage.write_file)
        assert place.get("a/b/c") == data
    assert place.list() == ["a/b/c"]


def test_a_file_is_created_once(place: Place) -> None:
    path = place.uri("units/1.json")
    assert [storage.create_if_absent(path, data) for data in (b"1", b"1", b"2")] == [True, False, False]
    assert place.list() == ["units/1.json"]
    assert place.get("units/1.json") == b"1"
    storage.delete(path)
    assert [storage.create_if_absent(path, data) for data in (b"", b"", b"1")] == [True, False, False]
    assert place.get("units/1.json") == b""


def test_what_was_written_otherwise_is_there_too(place: Place, tmp_path: Path) -> None:
    storage.write_bytes(place.uri("written"), b"x")
    (tmp_path / "local").write_bytes(b"x")
    storage.put_file(str(tmp_path / "local"), place.uri("put"))
    assert storage.create_if_absent(place.uri("created"), b"x")
    storage.copy(place.uri("created"), place.uri("copied"))
    storage.move(place.uri("created"), place.uri("moved"))
    for name in ("written", "put", "copied", "moved"):
        assert not storage.create_if_absent(place.uri(name), b"x")
    assert storage.create_if_absent(place.uri("created"), b"x")


@pytest.mark.parametrize("place", CREATES_ONCE, indirect=True)
@pytest.mark.parametrize("size", [1, BIG], ids=["small", "big"])
@pytest.mark.parametrize("same", [True, False], ids=["same", "different"])
def test_one_of_many_creates(place: Place, size: int, same: bool) -> None:
    path = place.uri("units/1.json")
    threads = 16 if size == 1 else 4
    data = [b"%x" % (0 if same else i) * size for i in range(threads)]
    start = threading.Barrier(threads)

    def create(content: bytes) -> bool:
        start.wait()
        return storage.create_if_absent(path, content)

    with ThreadPoolExecutor(threads) as pool:
        won = [content for content, mine in zip(data, pool.map(create, data), strict=True) if mine]
    assert len(won) == 1
    assert place.get("units/1.json") == won[0]
    assert place.list() == ["units/1.json"]


# --- copying, moving, deleting ---


def test_copy(place: Place) -> None:
    source = place.put("a", b"1")
    place.put("old", b"0")
    for target in ("old", "new/directory/b"):
        storage.copy(source, place.uri(target))
    storage.copy(source, source)
    assert {name: place.get(name) for name in place.list()} == {
        "a": b"1",
        "old": b"1",
        "new/directory/b": b"1",
    }
    storage.write_bytes(source, b"2")
    assert place.get("old") == b"1"


def test_move_can_be_repeated(place: Place) -> None:
    source, target = place.uri("staged/a"), place.uri("final/b")
    storage.write_bytes(source, b"1")
    for _ in range(3):
        storage.move(source, target)
        assert place.list() == ["final/b"]
    storage.write_bytes(source, b"2")
    storage.move(source, target)
    storage.move(target, target)
    assert place.list() == ["final/b"]
    assert storage.read_bytes(target) == b"2"


def test_nothing_goes_from_one_storage_to_another(place: Place) -> None:
    path = place.put("a", b"x")
    for function in (storage.copy, storage.move):
        with pytest.raises(ValueError, match="hdfs://host/a"):
            function(path, "hdfs://host/a")
    assert place.list() == ["a"]


def test_delete_tree(place: Place) -> None:
    names = ["a/1", "a/b/2", "a/é [x]*/3", "ab/3", "a*/4"]
    for name in names:
        place.put(name, b"")
    storage.delete_tree(place.uri("a/missing"))
    assert place.list() == sorted(names)
    storage.delete_tree(place.uri("a"))
    assert place.list() == ["a*/4", "ab/3"]
    storage.delete_tree(place.uri("a*") + "/")
    assert place.list() == ["ab/3"]


@pytest.mark.parametrize("place", ATOMIC, indirect=True)
def test_several_delete_one_tree(place: Place) -> None:
    for i in range(60 if place.url.startswith(("gs://", "s3://", "azfs://")) else 500):
        place.put(f"a/{i % 20}/{i}", b"")
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(storage.delete_tree, [place.uri("a")] * 8))
    assert place.list() == []
