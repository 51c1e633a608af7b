"""``storage`` on ``gs://``, beyond the contract: failed requests, lost answers, and request counts.

The tests use two servers: one with a proxy that adds preconditions and pages, and a third-party one.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import pytest

from beamlabel.transforms import storage
from beamlabel.transforms.storage import gcs
from support.fake_gcs import FakeBucket
from support.gcs_server import Bucket as OurBucket

Bucket = OurBucket | FakeBucket
BIG = 9 << 20


# --- buckets ---


def test_a_bucket_that_is_not_there(gs: Bucket) -> None:
    path = "gs://no-such-bucket/a"
    assert not storage.exists(path)
    storage.delete(path)
    for function in (storage.stat, storage.open_input, storage.read_bytes):
        with pytest.raises(FileNotFoundError) as caught:
            function(path)
        assert caught.value.filename == path
    with pytest.raises(FileNotFoundError, match="no-such-bucket"):
        list(storage.match("gs://no-such-bucket/**"))
    for write in (storage.write_bytes, storage.create_if_absent):
        with pytest.raises(FileNotFoundError, match="no-such-bucket"):
            write(path, b"")


@pytest.mark.parametrize("pattern", ["gs://*/a", "gs:///a", "gs://a b/c"])
def test_what_is_no_bucket(pattern: str) -> None:
    with pytest.raises(ValueError, match="gs://bucket/name"):
        list(storage.match(pattern))


def test_a_bucket_is_not_a_file(gs: Bucket) -> None:
    gs.put("a", b"")
    assert not storage.exists(gs.url)
    with pytest.raises(IsADirectoryError, match=gs.bucket):
        storage.open_input(gs.url)
    assert [file.path for file in storage.match(gs.url)] == [gs.uri("a")]


def test_dots_are_names_like_others(gs: Bucket) -> None:
    for name in ("a/1.jpg", "a/b/2.jpg", "a/./3.jpg"):
        gs.put(name, b"")
    assert list(storage.match(gs.uri("a/b/../*.jpg"))) == []
    assert list(storage.match(gs.uri("a/b/../1.jpg"))) == []
    assert [file.path for file in storage.match(gs.uri("a/./*"))] == [gs.uri("a/./3.jpg")]


# --- errors ---


@pytest.mark.parametrize("status", [401, 403])
def test_forbidden(gs: Bucket, status: int) -> None:
    path = gs.put("a", b"")
    calls: tuple[Callable[[], object], ...] = (
        lambda: storage.read_bytes(path),
        lambda: storage.open_input(path),
        lambda: storage.exists(path),
        lambda: storage.write_bytes(path, b""),
        lambda: storage.create_if_absent(path, b""),
        lambda: storage.copy(path, gs.uri("b")),
        lambda: storage.move(path, gs.uri("b")),
        lambda: storage.delete(path),
        lambda: list(storage.match(gs.uri("*"))),
        lambda: storage.delete_tree(gs.uri("x")),
    )
    gs.server.fail_next(1000, status)
    for call in calls:
        with pytest.raises(PermissionError) as caught:
            call()
        assert str(caught.value.filename).startswith(gs.url)


@pytest.mark.parametrize("status", [429, 500, 503])
def test_passing_errors_pass_unseen(gs: Bucket, status: int, tmp_path: Path) -> None:
    path = gs.uri("a")
    (tmp_path / "local").write_bytes(b"3")
    calls: tuple[Callable[[], object], ...] = (
        lambda: storage.write_bytes(path, b"1"),
        lambda: storage.read_bytes(path),
        lambda: storage.stat(path),
        lambda: list(storage.match(gs.uri("*"))),
        lambda: storage.create_if_absent(gs.uri("b"), b"2"),
        lambda: storage.put_file(str(tmp_path / "local"), gs.uri("c")),
        lambda: storage.move(path, gs.uri("d")),
        lambda: storage.delete(gs.uri("b")),
    )
    for call in calls:
        gs.server.fail_next(1, status)
        call()
    assert {name: gs.get(name) for name in gs.list()} == {"c": b"3", "d": b"1"}


def test_other_errors_name_the_path(gs: Bucket) -> None:
    gs.server.fail_next(1, 400)
    with pytest.raises(OSError, match="injected") as caught:
        storage.read_bytes(gs.uri("a"))
    assert caught.value.filename == gs.uri("a")


# --- answers that are lost ---


def test_a_create_whose_answer_was_lost(gs: Bucket) -> None:
    gs.server.fail_next(1, 503, method="POST", contains="/upload/", done=True)
    assert storage.create_if_absent(gs.uri("a"), b"x")
    assert gs.server.count("POST", "/upload/") == 2
    assert [storage.create_if_absent(gs.uri("a"), data) for data in (b"x", b"y")] == [False, False]
    assert gs.get("a") == b"x"


def test_a_large_create_whose_answer_was_lost(gcs: OurBucket) -> None:
    # Not on fake-gcs-server, which forgets a finished upload. The service repeats its answer.
    gcs.server.fail_next(1, 503, method="PUT", contains="/upload/", done=True)
    assert storage.create_if_absent(gcs.uri("a"), b"x" * BIG)
    assert gcs.server.count("PUT", "/upload/") == 2
    assert not storage.create_if_absent(gcs.uri("a"), b"x" * BIG)
    assert gcs.get("a") == b"x" * BIG


@pytest.mark.parametrize("size", [1, BIG], ids=["small", "large"])
def test_a_create_that_fails_and_finds_anothers_file(gs: Bucket, size: int) -> None:
    gs.put("a", b"x" * size)
    gs.server.fail_next(1, 503, method="POST", contains="/upload/")
    assert not storage.create_if_absent(gs.uri("a"), b"x" * size)


def test_a_create_whose_answer_was_lost_and_whose_file_was_replaced(gs: Bucket) -> None:
    gs.server.fail_next(1, 503, method="POST", contains="/upload/", done=True)
    gs.server.before("/o/a", lambda: gs.put("a", b"x"))
    assert not storage.create_if_absent(gs.uri("a"), b"x")


def test_an_exchange_whose_answer_was_lost(gs: Bucket) -> None:
    first = gcs.exchange(gs.uri("a"), b"1", 0)
    gs.server.fail_next(1, 503, method="POST", contains="/upload/", done=True)
    second = gcs.exchange(gs.uri("a"), b"1", first)
    assert second not in (None, first)
    assert storage.stat(gs.uri("a")).version == str(second)
    assert gcs.exchange(gs.uri("a"), b"1", first) is None
    assert gcs.exchange(gs.uri("a"), b"1", 0) is None
    assert gcs.read_object(gs.uri("a"))[:2] == (b"1", second)


def test_a_move_or_delete_whose_answer_was_lost(gs: Bucket) -> None:
    path = gs.put("a", b"1")
    gs.server.fail_next(1, 503, contains="rewriteTo", done=True)
    gs.server.fail_next(1, 503, method="DELETE", done=True)
    storage.move(path, gs.uri("b"))
    assert gs.list() == ["b"]


def test_a_move_that_was_killed_after_its_copy(gs: Bucket) -> None:
    gs.put("a", b"1")
    gs.server.fail_next(1, 403, method="DELETE")
    with pytest.raises(PermissionError):
        storage.move(gs.uri("a"), gs.uri("b"))
    assert gs.list() == ["a", "b"]
    storage.move(gs.uri("a"), gs.uri("b"))
    assert gs.list() == ["b"]


# --- generations ---


def test_only_the_generation_that_is_meant_is_deleted(gs: Bucket) -> None:
    first = gcs.exchange(gs.uri("a"), b"1", 0)
    second = gcs.exchange(gs.uri("a"), b"2", first)
    gcs.delete_generation(gs.uri("a"), first)
    assert gs.get("a") == b"2"
    gs.server.fail_next(1, 503, method="DELETE", done=True)
    gcs.delete_generation(gs.uri("a"), second)
    gcs.delete_generation(gs.uri("a"), second)
    assert gs.list() == []


def test_an_object_that_is_read_while_it_is_replaced(gs: Bucket) -> None:
    gs.put("a", b"1")
    put = iter([lambda: gs.put("a", b"2"), lambda: gs.put("a", b"3")])
    gs.server.before("/download/", lambda: next(put, lambda: None)())
    found = gcs.read_object(gs.uri("a"))
    assert (found.data, str(found.generation)) == (b"3", storage.stat(gs.uri("a")).version)
    gs.server.before("/download/", lambda: storage.delete(gs.uri("a")))
    with pytest.raises(FileNotFoundError):
        gcs.read_object(gs.uri("a"))


# --- requests ---


def test_one_request_to_read(gs: Bucket) -> None:
    storage.read_bytes(gs.put("a", bytes(3 << 20)))
    assert [request.method for request in gs.server.requests] == ["GET"]


def test_one_request_to_create(gs: Bucket) -> None:
    storage.create_if_absent(gs.uri("a"), b"x")
    assert [request.method for request in gs.server.requests] == ["POST"]


def test_listings_come_in_pages(gs: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gcs, "PAGE_SIZE", 10)
    names = [f"p/{i:03}.jpg" for i in range(25)]
    for name in names:
        gs.put(name, b"x")
    listing = storage.match(gs.uri("p/"))
    next(listing)
    assert gs.server.count("GET", "/o") == 1, "the second page is asked for when it is needed"
    assert [file.path for file in listing] == [gs.uri(name) for name in names[1:]]
    assert gs.server.count("GET", "/o") == 3


def test_directories_that_a_pattern_cannot_match_are_not_listed(
    gs: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gcs, "PAGE_SIZE", 10)
    for i in range(30):
        gs.put(f"p/deep/{i:03}.jpg", b"x")
    gs.put("p/a.jpg", b"x")
    assert [file.path for file in storage.match(gs.uri("p/*.jpg"))] == [gs.uri("p/a.jpg")]
    # One request for an object with exactly this name; the directory's listing fits one page.
    assert len(gs.server.requests) == 2


def test_delete_tree_deletes_objects_that_stand_for_directories(gs: Bucket) -> None:
    for name in ("a", "a/", "a/1", "a/directory/", "ab"):
        gs.put(name, b"")
    storage.delete_tree(gs.uri("a/"))
    assert gs.list() == ["a", "ab"]
    storage.delete_tree(gs.uri("a"))
    storage.delete_tree(gs.uri("missing"))
    assert gs.list() == ["a", "ab"]


def test_reading_on_reads_ahead(gs: Bucket) -> None:
    lines = [b"gs://bucket/%08d.jpg\n" % i for i in range(300_000)]
    path = gs.put("list.txt", b"".join(lines))
    with storage.open_input(path) as file:
        assert list(file) == lines
    assert len(gs.server.requests) == 3, "the size, and 6 MB in two ranges"


def test_all_at_once_is_one_request(gs: Bucket) -> None:
    path = gs.put("a", bytes(20 << 20))
    with storage.open_input(path) as file:
        assert len(file.read()) == 20 << 20
    assert gs.server.count("GET", "/a") == 2


def test_a_stored_encoding_is_left_alone(gs: Bucket) -> None:
    compressed = gzip.compress(b"text" * 100)
    path = gs.put("a.txt", compressed, encoding="gzip")
    assert storage.read_bytes(path) == compressed
    with storage.open_input(path) as file:
        assert file.read() == compressed
