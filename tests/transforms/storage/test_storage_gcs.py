"""``storage`` on ``gs://``, against a server of the real protocol that also fails on order."""

from __future__ import annotations

import gzip
import io
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from beamlabel.transforms import storage
from support.gcs_server import Bucket


@pytest.mark.parametrize(
    "name", ["a.txt", "é 한글.txt", "a#b?c&d=e.txt", "50%.txt", "%20.txt", "12:30.txt", "x/[1]*"]
)
def test_any_name_works(gcs: Bucket, name: str) -> None:
    path = gcs.uri(name)
    assert not storage.exists(path)
    storage.write_bytes(path, b"data")
    assert gcs.list() == [name]
    assert storage.stat(path).size == 4
    assert [file.path for file in storage.match(path)] == [path]
    assert storage.read_bytes(path) == b"data"
    with storage.open_input(path) as file:
        assert file.read() == b"data"
    storage.move(path, gcs.uri("moved/" + name))
    assert gcs.list() == ["moved/" + name]
    storage.delete(gcs.uri("moved/" + name))
    assert gcs.list() == []


@pytest.mark.parametrize(
    "data",
    [b"", b"\n", b"line\r\n", bytes(range(256)) * 40, bytes(9 << 20)],
    ids=["0", "1", "6", "10k", "resumable"],
)
def test_bytes_come_back(gcs: Bucket, data: bytes) -> None:
    storage.write_bytes(gcs.uri("a"), data)
    assert gcs.get("a") == data
    assert storage.read_bytes(gcs.uri("a")) == data
    assert storage.create_if_absent(gcs.uri("b"), data)
    assert gcs.get("b") == data
    with storage.open_input(gcs.uri("a")) as file:
        assert file.read() == data


def test_what_is_not_there(gcs: Bucket) -> None:
    missing = [gcs.uri("missing"), gcs.uri("missing/a"), "gs://no-such-bucket/a"]
    for path in missing:
        assert not storage.exists(path)
        storage.delete(path)
        for function in (storage.stat, storage.open_input, storage.read_bytes):
            with pytest.raises(FileNotFoundError) as caught:
                function(path)
            assert caught.value.filename == path
    with pytest.raises(FileNotFoundError, match="no-such-bucket"):
        list(storage.match("gs://no-such-bucket/**"))
    with pytest.raises(FileNotFoundError, match="no-such-bucket"):
        storage.write_bytes("gs://no-such-bucket/a", b"")


@pytest.mark.parametrize("pattern", ["gs://*/a", "gs:///a", "gs://a b/c"])
def test_what_is_no_bucket(gcs: Bucket, pattern: str) -> None:
    with pytest.raises(ValueError, match="gs://bucket/name"):
        list(storage.match(pattern))


def test_a_bucket_is_not_a_file(gcs: Bucket) -> None:
    gcs.put("a", b"")
    assert not storage.exists(gcs.url)
    with pytest.raises(IsADirectoryError, match=gcs.bucket):
        storage.open_input(gcs.url)
    assert [file.path for file in storage.match(gcs.url)] == [gcs.uri("a")]


@pytest.mark.parametrize("status", [401, 403])
def test_forbidden(gcs: Bucket, status: int) -> None:
    path = gcs.put("a", b"")
    calls = (
        lambda: storage.read_bytes(path),
        lambda: storage.open_input(path),
        lambda: storage.exists(path),
        lambda: storage.write_bytes(path, b""),
        lambda: storage.create_if_absent(path, b""),
        lambda: storage.delete(path),
        lambda: list(storage.match(gcs.uri("*"))),
        lambda: storage.delete_tree(gcs.uri("x")),
    )
    gcs.server.fail_next(1000, status)
    for call in calls:
        with pytest.raises(PermissionError) as caught:
            call()
        assert str(caught.value.filename).startswith(gcs.url)


@pytest.mark.parametrize("status", [429, 500, 503])
def test_passing_errors_pass_unseen(gcs: Bucket, status: int, tmp_path: Path) -> None:
    path = gcs.uri("a")
    (tmp_path / "local").write_bytes(b"3")
    calls = (
        lambda: storage.write_bytes(path, b"1"),
        lambda: storage.read_bytes(path),
        lambda: storage.stat(path),
        lambda: list(storage.match(gcs.uri("*"))),
        lambda: storage.create_if_absent(gcs.uri("b"), b"2"),
        lambda: storage.put_file(str(tmp_path / "local"), gcs.uri("c")),
        lambda: storage.move(path, gcs.uri("d")),
        lambda: storage.delete(gcs.uri("b")),
    )
    for call in calls:
        gcs.server.fail_next(1, status)
        call()
    assert {name: gcs.get(name) for name in gcs.list()} == {"c": b"3", "d": b"1"}


def test_other_errors_name_the_path(gcs: Bucket) -> None:
    gcs.server.fail_next(1, 400)
    with pytest.raises(OSError, match="injected") as caught:
        storage.read_bytes(gcs.uri("a"))
    assert caught.value.filename == gcs.uri("a")


def test_one_request_to_read(gcs: Bucket) -> None:
    path = gcs.put("a", bytes(3 << 20))
    storage.read_bytes(path)
    assert [request.method for request in gcs.server.requests] == ["GET"]


def test_one_of_many_creates(gcs: Bucket) -> None:
    path = gcs.uri("units/1.json")
    start = threading.Barrier(16)

    def create(i: int) -> bool:
        start.wait()
        return storage.create_if_absent(path, b"%d" % i)

    with ThreadPoolExecutor(16) as threads:
        won = [i for i, mine in enumerate(threads.map(create, range(16))) if mine]
    assert len(won) == 1
    assert gcs.get("units/1.json") == b"%d" % won[0]


@pytest.mark.parametrize("size", [10, 9 << 20], ids=["multipart", "resumable"])
def test_a_create_whose_answer_was_lost(gcs: Bucket, size: int) -> None:
    method = "POST" if size < 1 << 20 else "PUT"
    gcs.server.fail_next(1, 503, method=method, contains="/upload/", done=True)
    assert storage.create_if_absent(gcs.uri("a"), b"x" * size)
    assert not storage.create_if_absent(gcs.uri("a"), b"y")
    assert gcs.get("a") == b"x" * size


def test_a_move_or_delete_whose_answer_was_lost(gcs: Bucket) -> None:
    path = gcs.put("a", b"1")
    gcs.server.fail_next(1, 503, contains="rewriteTo", done=True)
    gcs.server.fail_next(1, 503, method="DELETE", done=True)
    storage.move(path, gcs.uri("b"))
    assert gcs.list() == ["b"]


def test_put_file(gcs: Bucket, tmp_path: Path) -> None:
    for size in (0, 10, 9 << 20):
        (tmp_path / "part").write_bytes(b"x" * size)
        storage.put_file(str(tmp_path / "part"), gcs.uri("out/part"))
        assert gcs.get("out/part") == b"x" * size
        assert not (tmp_path / "part").exists()


def test_move_can_be_repeated(gcs: Bucket) -> None:
    source, target = gcs.put("staged/a", b"1"), gcs.uri("final/b")
    for _ in range(3):
        storage.move(source, target)
        assert gcs.list() == ["final/b"]
    gcs.put("staged/a", b"2")
    storage.move(source, target)
    assert gcs.get("final/b") == b"2"
    storage.move(target, target)
    assert gcs.get("final/b") == b"2"


def test_a_move_that_was_killed_after_its_copy(gcs: Bucket) -> None:
    gcs.put("a", b"1")
    gcs.server.fail_next(1, 403, method="DELETE")
    with pytest.raises(PermissionError):
        storage.move(gcs.uri("a"), gcs.uri("b"))
    assert gcs.list() == ["a", "b"]
    storage.move(gcs.uri("a"), gcs.uri("b"))
    assert gcs.list() == ["b"]


def test_move_of_nothing(gcs: Bucket) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        storage.move(gcs.uri("a"), gcs.uri("b"))
    assert caught.value.filename == gcs.uri("a")


def test_delete_tree(gcs: Bucket) -> None:
    gcs.server.page_size = 7
    for i in range(30):
        gcs.put(f"a/{i}", b"")
    gcs.put("a/folder/", b"")
    gcs.put("ab", b"")
    gcs.put("a", b"")
    storage.delete_tree(gcs.uri("a/"))
    assert gcs.list() == ["a", "ab"]
    storage.delete_tree(gcs.uri("a"))
    storage.delete_tree(gcs.uri("missing"))
    assert gcs.list() == ["a", "ab"]


def test_listings_come_in_pages(gcs: Bucket) -> None:
    names = [f"p/{i:03}.jpg" for i in range(25)]
    for name in names:
        gcs.put(name, b"x")
    gcs.server.page_size = 10
    listing = storage.match(gcs.uri("p/"))
    next(listing)
    assert gcs.server.count("GET", "/o") == 1, "the second page is asked for when it is needed"
    assert [file.path for file in listing] == [gcs.uri(name) for name in names[1:]]
    assert gcs.server.count("GET", "/o") == 3


def test_what_a_pattern_cannot_match_is_not_listed(gcs: Bucket) -> None:
    for i in range(30):
        gcs.put(f"p/deep/{i:03}.jpg", b"x")
    gcs.put("p/a.jpg", b"x")
    gcs.server.page_size = 10
    assert [file.path for file in storage.match(gcs.uri("p/*.jpg"))] == [gcs.uri("p/a.jpg")]
    # One request for an object of this very name; the folder's own listing fits one page.
    assert len(gcs.server.requests) == 2


def test_open_input_seeks(gcs: Bucket) -> None:
    data = os.urandom(9 << 20)
    path = gcs.put("a", data)
    with storage.open_input(path) as file:
        assert file.seekable()
        assert file.seek(-8, os.SEEK_END) == len(data) - 8
        assert file.read() == data[-8:]
        assert file.read(5) == b""
        assert file.seek(1_000_003) == 1_000_003
        assert file.read(5) == data[1_000_003:1_000_008]
        assert file.seek(5 << 20, os.SEEK_CUR) == (5 << 20) + 1_000_008
        assert file.read(1 << 20) == data[(5 << 20) + 1_000_008 :][: 1 << 20]
        file.seek(0)
        assert file.read() == data
        file.seek(20 << 20)
        assert file.read() == b""
        with pytest.raises(ValueError, match="seek"):
            file.seek(-1 - len(data), os.SEEK_END)


def test_reading_on_reads_ahead(gcs: Bucket) -> None:
    lines = [b"gs://bucket/%08d.jpg\n" % i for i in range(300_000)]
    path = gcs.put("list.txt", b"".join(lines))
    with storage.open_input(path) as file:
        assert list(file) == lines
    assert len(gcs.server.requests) == 3, "the size, and 6 MB in two ranges"


def test_all_at_once_is_one_request(gcs: Bucket) -> None:
    path = gcs.put("a", bytes(20 << 20))
    with storage.open_input(path) as file:
        assert len(file.read()) == 20 << 20
    assert gcs.server.count("GET", "/a") == 2


def test_an_object_replaced_while_it_is_read(gcs: Bucket) -> None:
    path = gcs.put("a", b"1" * (5 << 20))
    with storage.open_input(path) as file:
        file.read(10)
        gcs.put("a", b"2" * (5 << 20))
        with pytest.raises(FileNotFoundError):  # not a mixture of both
            file.read()


def test_a_stored_encoding_is_left_alone(gcs: Bucket) -> None:
    compressed = gzip.compress(b"text" * 100)
    path = gcs.put("a.txt", compressed)
    gcs.server.set_encoding(gcs.bucket, "a.txt", "gzip")
    assert storage.read_bytes(path) == compressed
    with storage.open_input(path) as file:
        assert file.read() == compressed


def test_parquet(gcs: Bucket, tmp_path: Path) -> None:
    table = pa.table({"uri": [f"gs://b/{i}" for i in range(10_000)], "n": range(10_000)})
    buffer = io.BytesIO()
    pq.write_table(table, buffer, row_group_size=1000)
    with storage.open_input(gcs.put("a.parquet", buffer.getvalue())) as raw:
        file = pq.ParquetFile(raw, pre_buffer=False)
        assert file.read_row_group(7) == table.slice(7000, 1000)
        assert pa.Table.from_batches(file.iter_batches(300)) == table


def test_versions(gcs: Bucket) -> None:
    path = gcs.put("a", b"1")
    first = storage.stat(path).version
    assert first == storage.stat(path).version
    gcs.put("a", b"2")
    assert storage.stat(path).version not in (None, first)
