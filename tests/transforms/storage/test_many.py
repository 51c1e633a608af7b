"""``storage`` on many files at a time, on directories and on ranges, with request counts in a bucket."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from beamlabel.transforms import storage
from beamlabel.transforms.storage.buckets.content_types import content_type
from beamlabel.transforms.storage.errors import ReplacedError
from support.gcs_server import Bucket
from support.places import Place

LISTING, BATCH = "/o", "/batch/"
NAMES = [f"ö {number} %20.txt" for number in range(7)]


def put(place: Place, names: list[str], directory: str = "old") -> list[str]:
    return [place.put(f"{directory}/{name}", name.encode()) for name in names]


def moves(place: Place, names: list[str]) -> dict[str, str]:
    return {place.uri(f"old/{name}"): place.uri(f"new/{name}") for name in names}


def test_many_files_are_moved(place: Place) -> None:
    put(place, NAMES)
    storage.move_all(moves(place, NAMES))
    assert place.list() == sorted(f"new/{name}" for name in NAMES)
    assert [place.get(f"new/{name}") for name in NAMES] == [name.encode() for name in NAMES]
    storage.move_all(moves(place, NAMES))
    assert place.list() == sorted(f"new/{name}" for name in NAMES)
    storage.move_all({})


def test_interrupted_moves_continue(place: Place) -> None:
    """Some files are moved, some are copied but still at their old place, some are untouched."""
    put(place, NAMES[2:])
    put(place, NAMES[:4], "new")
    storage.move_all(moves(place, NAMES))
    assert place.list() == sorted(f"new/{name}" for name in NAMES)


def test_a_file_that_is_at_neither_place_is_named(place: Place) -> None:
    put(place, NAMES[2:])
    put(place, NAMES[1:2], "new")
    with pytest.raises(FileNotFoundError) as caught:
        storage.move_all(moves(place, NAMES))
    assert caught.value.filename == place.shown(f"old/{NAMES[0]}")


def test_many_files_are_copied(place: Place) -> None:
    put(place, NAMES)
    storage.copy_all(moves(place, NAMES))
    assert len(place.list("old/")) == len(place.list("new/")) == len(NAMES)
    with pytest.raises(FileNotFoundError):
        storage.copy_all(moves(place, [*NAMES, "missing"]))


def test_many_files_are_deleted(place: Place) -> None:
    paths = put(place, NAMES)
    storage.delete_all([*paths[1:], place.uri("missing")])
    assert place.list() == [f"old/{NAMES[0]}"]
    storage.delete_all([])


def test_what_lies_right_in_a_directory(place: Place) -> None:
    for name in ("f/b", "f/a[1]", "f/x/1", "f/x/2/3", "f.txt", "fx/1"):
        place.put(name, b"data")
    assert sorted(storage.entries(place.uri("f")), key=lambda found: found.path) == [
        storage.stat(place.uri("f/a[1]")),
        storage.stat(place.uri("f/b")),
        storage.Directory(place.shown("f/x")),
    ]
    assert list(storage.entries(place.uri("f/"))) == list(storage.entries(place.uri("f")))
    assert list(storage.entries(place.uri("missing"))) == []


def test_a_range_of_a_file(place: Place) -> None:
    path = place.put("a", b"0123456789")
    version = storage.stat(path).version
    assert storage.read_part(path, 2, 3) == b"234"
    assert storage.read_part(path, 0, 10, version) == b"0123456789"
    assert storage.read_part(path, 8, 5, version) == b"89"
    assert storage.read_part(path, 10, 5) == storage.read_part(path, 3, 0) == b""
    with pytest.raises(FileNotFoundError):
        storage.read_part(place.uri("missing"), 0, 1)


@pytest.mark.parametrize("place", ["local", "s3"], indirect=True)
def test_a_range_of_a_file_that_was_replaced(place: Place) -> None:
    path = place.put("a", b"0123456789")
    version = storage.stat(path).version
    storage.write_bytes(path, b"9876543210")
    with pytest.raises(ReplacedError):
        storage.read_part(path, 2, 3, version)


def test_a_file_comes_to_this_machine(place: Place, tmp_path: Path) -> None:
    data = bytes(range(256)) * 40_000
    storage.get_file(place.put("a", data), tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == data
    with pytest.raises(FileNotFoundError):
        storage.get_file(place.uri("missing"), tmp_path / "copy")


def test_an_interrupted_download_continues(gcs: Bucket, tmp_path: Path) -> None:
    data = bytes(range(256)) * 40_000
    path = gcs.put("a", data)
    gcs.server.cut_next(1, method="GET")
    storage.get_file(path, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == data


def test_a_known_file_is_opened_without_a_question(gs: Any) -> None:
    path = gs.put("a", b"0123456789")
    known = storage.stat(path)
    before = gs.server.count()
    with storage.open_input(path, known) as file:
        assert file.read() == b"0123456789"
    assert gs.server.count() == before + 1


# --- request counts ---


def test_hundreds_of_objects_take_a_few_requests(gcs: Bucket) -> None:
    names = [f"{number:03d}" for number in range(250)]
    put(gcs, names)
    storage.move_all(moves(gcs, names))
    assert len(gcs.list("new/")) == 250 and not gcs.list("old/")
    assert gcs.server.count("POST", BATCH) == gcs.server.count() == 6
    storage.move_all(moves(gcs, names))  # again, when everything is done
    assert gcs.server.count() == 10
    storage.delete_tree(gcs.uri("new"))
    assert gcs.list() == []
    assert gcs.server.count() == 10 + 1 + 3


def test_a_server_that_knows_no_batches_is_asked_one_by_one(gs: Any) -> None:
    put(gs, NAMES)
    gs.server.fail_next(2, 404, contains=BATCH)
    storage.move_all(moves(gs, NAMES))
    assert gs.list() == sorted(f"new/{name}" for name in NAMES)


def test_a_batch_whose_answer_is_lost_is_done_again(gcs: Bucket) -> None:
    put(gcs, NAMES)
    gcs.server.fail_next(2, 503, contains=BATCH, done=True)
    storage.move_all(moves(gcs, NAMES))
    assert gcs.list() == sorted(f"new/{name}" for name in NAMES)


def test_forbidden_is_forbidden_in_batches_too(gcs: Bucket) -> None:
    paths = put(gcs, NAMES)
    gcs.server.fail_next(100, 403)
    with pytest.raises(PermissionError):
        storage.delete_all(paths)


def test_objects_of_s3_take_one_request_a_copy_and_one_for_all_deletions(s3: Any) -> None:
    put(s3, NAMES)
    storage.move_all(moves(s3, NAMES))
    assert s3.list() == sorted(f"new/{name}" for name in NAMES)
    assert s3.server.count() == len(NAMES) + 1


def test_a_directory_is_listed_in_one_request_with_any_files_below(gcs: Bucket) -> None:
    for number in range(1200):
        gcs.put(f"f/x/{number}", b"")
    assert list(storage.entries(gcs.uri("f"))) == [storage.Directory(gcs.uri("f/x"))]
    assert gcs.server.count() == 1


# --- content types ---

TYPES = {
    "_report.html": "text/html; charset=utf-8",
    "_MANIFEST.json": "application/json",
    "part-20260101T000000Z-abcdef-00000.parquet": "application/vnd.apache.parquet",
    "part-20260101T000000Z-abcdef-00000.tfrecord": "application/octet-stream",
    "part-20260101T000000Z-abcdef-00000.tfrecord.gz": "application/gzip",
    "_failures/part-0.jsonl": "application/x-ndjson",
    "_schema.pbtxt": "text/plain; charset=utf-8",
    "_SUCCESS": "application/octet-stream",
    "corrections.CSV": "text/csv; charset=utf-8",
    "a.json/.json": "application/octet-stream",
}


def test_content_types() -> None:
    assert {name: content_type(f"gs://bucket.html/{name}") for name in TYPES} == TYPES


def test_what_is_written_says_what_it_is(gs: Any, tmp_path: Path) -> None:
    """For each way of writing; checks the requests, since the emulator keeps no parameters."""
    (tmp_path / "file").write_bytes(b"data")
    storage.write_bytes(gs.uri("_report.html"), b"data")
    storage.create_if_absent(gs.uri("commit.json"), b"data")
    storage.put_file(str(tmp_path / "file"), gs.uri("a.parquet"))
    assert gs.server.upload_types == [
        "text/html; charset=utf-8",
        "application/json",
        "application/vnd.apache.parquet",
    ]


def test_a_moved_object_is_still_of_its_type(gcs: Bucket) -> None:
    for name in ("a", "b"):
        storage.write_bytes(gcs.uri(f"old/{name}.parquet"), b"data")
    storage.move_all(moves(gcs, ["a.parquet", "b.parquet"]))
    stored = gcs.server._emulator._storage.objects[gcs.bucket]
    assert {stored[name]["contentType"] for name in gcs.list()} == {"application/vnd.apache.parquet"}


def test_content_types_on_s3(s3: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"data")
    storage.write_bytes(s3.uri("_report.html"), b"data")
    storage.create_if_absent(s3.uri("commit.json"), b"data")
    storage.put_file(str(tmp_path / "file"), s3.uri("old.parquet"))
    storage.move(s3.uri("old.parquet"), s3.uri("a.parquet"))
    found = {
        name: s3.server.client.head_object(Bucket=s3.bucket, Key=name)["ContentType"] for name in s3.list()
    }
    assert found == {name: content_type(name) for name in ("_report.html", "a.parquet", "commit.json")}


def test_content_types_on_azure(azure: Any) -> None:
    storage.write_bytes(azure.uri("_report.html"), b"data")
    storage.write_bytes(azure.uri("old.parquet"), b"data")
    storage.move(azure.uri("old.parquet"), azure.uri("a.parquet"))
    found = {blob.name: blob.content_settings.content_type for blob in azure._client.list_blobs()}
    assert found == {name: content_type(name) for name in ("_report.html", "a.parquet")}
