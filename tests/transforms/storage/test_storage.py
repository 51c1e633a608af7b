"""``storage`` on local files: the same promises that ``test_storage_gcs`` checks on ``gs://``."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from beamlabel.transforms import storage


def left(folder: Path) -> list[str]:
    """All files below, also hidden ones that should not have been left behind."""
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if not p.is_dir())


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/a/b", "/a/b"),
        ("/a/b/", "/a/b/"),
        ("/a/./b/../c", "/a/c"),
        ("/", "/"),
        ("file:///a%20b/%C3%A9%23.jpg", "/a b/é#.jpg"),
        ("file:///a#b?c", "/a#b?c"),
        ("file://localhost/a/", "/a/"),
        ("gs://b/x%20y", "gs://b/x%20y"),
        ("s3://b/./x", "s3://b/./x"),
        ("/12:30 x://y.jpg", "/12:30 x:/y.jpg"),
    ],
)
def test_absolute(path: str, expected: str) -> None:
    assert storage.absolute(path) == expected


def test_absolute_of_relative_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert storage.absolute("a:b.txt") == str(tmp_path / "a:b.txt")
    assert storage.absolute("photos/") == f"{tmp_path}/photos/"


def test_a_file_uri_of_another_machine_is_refused() -> None:
    with pytest.raises(ValueError, match="server"):
        storage.absolute("file://server/share/a.jpg")


@pytest.mark.parametrize(
    ("path", "local"),
    [("a/b", True), ("file:///a", True), ("a:b", True), ("gs://b/a", False), ("s3://b/a", False)],
)
def test_is_local(path: str, local: bool) -> None:
    assert storage.is_local(path) == local


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        (("/a", "b", "c.txt"), "/a/b/c.txt"),
        (("/a/", "b"), "/a/b"),
        (("/", "b"), "/b"),
        (("gs://bucket", "b"), "gs://bucket/b"),
        (("file:///x%20y", "50%20.txt"), "/x y/50%20.txt"),
    ],
)
def test_join(parts: tuple[str, ...], expected: str) -> None:
    assert storage.join(*parts) == expected


def test_local_files_need_neither_beam_nor_google(tmp_path: Path) -> None:
    program = (
        "import sys; before = set(sys.modules); from transforms import storage; path = sys.argv[1];"
        "storage.write_bytes(path + '/a', b'x'); storage.move(path + '/a', path + '/b');"
        "assert [f.path for f in storage.match(path + '/*')] == [path + '/b'];"
        "assert storage.create_if_absent(path + '/c', b'') and storage.read_bytes(path + '/b') == b'x';"
        "storage.delete_tree(path);"
        "print([m for m in set(sys.modules) - before if m.startswith(('apache_beam', 'google.'))])"
    )
    run = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "name", ["a.txt", "é 한글.txt", "a#b?c.txt", "50%.txt", "%20.txt", "12:30.txt", "[1]*.txt"]
)
def test_any_name_works(tmp_path: Path, name: str) -> None:
    path = str(tmp_path / name)
    storage.write_bytes(path, b"data")
    assert [file.path for file in storage.match(path)] == [path]
    assert storage.exists(path)
    assert storage.stat(path).size == 4
    assert storage.read_bytes(path) == b"data"
    assert storage.read_bytes((tmp_path / name).as_uri()) == b"data"
    storage.delete(path)
    assert left(tmp_path) == []


def test_a_name_that_is_not_unicode(tmp_path: Path) -> None:
    path = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.jpg")
    Path(path).write_bytes(b"x")
    assert [file.path for file in storage.match(f"{tmp_path}/*")] == [path]
    assert storage.read_bytes(path) == b"x"
    assert storage.absolute(Path(path).as_uri()) == path


@pytest.mark.parametrize("path", ["missing", "file/below", "a\0b", "x" * 300])
def test_what_is_not_there(tmp_path: Path, path: str) -> None:
    (tmp_path / "file").write_bytes(b"")
    path = str(tmp_path / path)
    assert not storage.exists(path)
    for function in (storage.stat, storage.open_input, storage.read_bytes):
        with pytest.raises(FileNotFoundError) as caught:
            function(path)
        assert caught.value.filename == path


def test_a_folder_is_not_a_file(tmp_path: Path) -> None:
    assert not storage.exists(str(tmp_path))
    with pytest.raises(IsADirectoryError, match=tmp_path.name):
        storage.open_input(str(tmp_path))


def test_open_input_seeks_and_decompresses_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.gz").write_bytes(bytes(range(100)))
    with storage.open_input(str(tmp_path / "a.gz")) as file:
        assert file.seekable()
        assert file.seek(-2, os.SEEK_END) == 98
        assert file.read() == b"\x62\x63"
        file.seek(10)
        assert file.read(2) == b"\x0a\x0b"


def test_the_version_changes_with_the_content(tmp_path: Path) -> None:
    path = str(tmp_path / "a")
    storage.write_bytes(path, b"1")
    os.utime(path, ns=(0, 1_700_000_000_123_456_789))
    assert storage.stat(path).version == "1700000000123456789"
    storage.write_bytes(path, b"2")
    assert storage.stat(path).version != "1700000000123456789"


def test_write_bytes_replaces_and_makes_folders(tmp_path: Path) -> None:
    path = str(tmp_path / "a/b/c")
    storage.write_bytes(path, b"old")
    reader = storage.open_input(path)
    storage.write_bytes(path, b"new")
    with reader:
        assert reader.read() == b"old", "who reads the old file is not disturbed"
    assert storage.read_bytes(path) == b"new"
    assert left(tmp_path) == ["a/b/c"]


def test_a_written_file_can_be_read_by_others(tmp_path: Path) -> None:
    (tmp_path / "plain").write_bytes(b"")
    storage.write_bytes(str(tmp_path / "written"), b"")
    storage.create_if_absent(str(tmp_path / "created"), b"")
    assert {p.stat().st_mode for p in tmp_path.iterdir()} == {(tmp_path / "plain").stat().st_mode}


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "folder/inside").mkdir(parents=True)
    for function in (storage.write_bytes, storage.create_if_absent):
        if function is storage.write_bytes:
            with pytest.raises(IsADirectoryError):
                function(str(tmp_path / "folder"), b"x")
        else:
            assert not function(str(tmp_path / "folder"), b"x")
    assert left(tmp_path) == []


@pytest.mark.parametrize("links", [True, False])
def test_one_of_many_creates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool) -> None:
    if not links:
        # A file system without hard links cannot be had here.
        def refuse(*_: object, **__: object) -> None:
            raise OSError(errno.ENOTSUP, "no hard links")

        monkeypatch.setattr(os, "link", refuse)
    path = str(tmp_path / "units/1.json")
    start = threading.Barrier(16)

    def create(i: int) -> bool:
        start.wait()
        return storage.create_if_absent(path, b"%d" % i)

    with ThreadPoolExecutor(16) as threads:
        won = [i for i, mine in enumerate(threads.map(create, range(16))) if mine]
    assert len(won) == 1
    assert storage.read_bytes(path) == b"%d" % won[0]
    assert left(tmp_path) == ["units/1.json"]


def test_put_file_moves(tmp_path: Path) -> None:
    (tmp_path / "local").write_bytes(b"new")
    target = str(tmp_path / "out/part")
    storage.write_bytes(target, b"old")
    storage.put_file(str(tmp_path / "local"), target)
    assert storage.read_bytes(target) == b"new"
    assert left(tmp_path) == ["out/part"]


def test_put_file_from_another_file_system(tmp_path: Path) -> None:
    shm = Path("/dev/shm")
    if not (shm.is_dir() and os.access(shm, os.W_OK)) or shm.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("no second file system on this machine")
    source = shm / f"storage-test-{os.getpid()}"
    source.write_bytes(b"x" * 100_000)
    storage.put_file(str(source), str(tmp_path / "out/part"))
    assert not source.exists()
    assert storage.read_bytes(str(tmp_path / "out/part")) == b"x" * 100_000
    assert left(tmp_path) == ["out/part"]


def test_move_can_be_repeated(tmp_path: Path) -> None:
    source, target = str(tmp_path / "staged/a"), str(tmp_path / "final/b")
    storage.write_bytes(source, b"1")
    for _ in range(3):
        storage.move(source, target)
        assert left(tmp_path) == ["final/b"]
    storage.write_bytes(source, b"2")
    storage.move(source, target)
    assert storage.read_bytes(target) == b"2"
    storage.move(target, target)
    assert storage.read_bytes(target) == b"2"


def test_move_of_nothing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        storage.move(str(tmp_path / "a"), str(tmp_path / "b"))
    assert caught.value.filename == str(tmp_path / "a")


def test_move_between_storages_is_refused(tmp_path: Path) -> None:
    storage.write_bytes(str(tmp_path / "a"), b"")
    with pytest.raises(ValueError, match="gs://bucket/a"):
        storage.move(str(tmp_path / "a"), "gs://bucket/a")


def test_delete_what_is_absent(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    storage.delete(str(tmp_path / "a"))
    storage.delete(str(tmp_path / "file/a"))
    storage.delete_tree(str(tmp_path / "a/b"))
    assert left(tmp_path) == ["file"]


def test_delete_tree(tmp_path: Path) -> None:
    for name in ("a/1", "a/b/2", "ab/3"):
        storage.write_bytes(str(tmp_path / name), b"")
    storage.delete_tree(str(tmp_path / "a") + "/")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["ab"]


def test_several_delete_one_tree(tmp_path: Path) -> None:
    for i in range(500):
        storage.write_bytes(str(tmp_path / f"a/{i % 20}/{i}"), b"")
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(storage.delete_tree, [str(tmp_path / "a")] * 8))
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("path", ["/", "file:///", "gs://bucket", "gs://bucket/"])
def test_nobody_deletes_everything(path: str) -> None:
    with pytest.raises(ValueError, match="everything"):
        storage.delete_tree(path)
