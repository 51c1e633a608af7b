"""``storage`` on a scheme that only Beam knows: a file system registered with Beam as its plugins are."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from apache_beam.io.filesystem import BeamIOError, FileMetadata
from apache_beam.io.localfilesystem import LocalFileSystem

from beamlabel.transforms import storage

ROOT = "disk://root"


class DiskFileSystem(LocalFileSystem):
    """``disk://root/a`` is ``a`` in ``folder``; Beam finds it as it finds ``s3://``, by its base class."""

    folder = Path()

    @classmethod
    def scheme(cls) -> str:
        return "disk"

    def _there(self, path: str) -> str:
        return str(self.folder) + path.removeprefix(ROOT) if path.startswith(ROOT) else path

    def join(self, base: str, *names: str) -> str:
        return "/".join([base.rstrip("/"), *names])

    def _list(self, prefix: str) -> Iterator[FileMetadata]:
        for found in super()._list(self._there(prefix)):
            path = ROOT + found.path.removeprefix(str(self.folder))
            yield FileMetadata(path, found.size_in_bytes, found.last_updated_in_seconds)

    def create(self, path: str, *args: Any) -> BinaryIO:
        # As HDFS does: folders are made for a new file, and not for one that is renamed.
        return super().create(self._there(path), *args)

    def open(self, path: str, *args: Any) -> BinaryIO:
        return super().open(self._there(path), *args)

    def mkdirs(self, path: str) -> None:
        super().mkdirs(self._there(path))

    def exists(self, path: str) -> bool:
        return super().exists(self._there(path))

    def metadata(self, path: str) -> FileMetadata:
        found = super().metadata(self._there(path))
        return FileMetadata(path, found.size_in_bytes, found.last_updated_in_seconds)

    def rename(self, sources: list[str], targets: list[str]) -> None:
        super().rename([self._there(path) for path in sources], [self._there(path) for path in targets])

    def delete(self, paths: list[str]) -> None:
        super().delete([self._there(path) for path in paths])


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(DiskFileSystem, "folder", tmp_path)
    return tmp_path


def names(pattern: str) -> list[str]:
    return [file.path.removeprefix(f"{ROOT}/") for file in storage.match(f"{ROOT}/{pattern}")]


def test_write_read_stat(disk: Path) -> None:
    path = f"{ROOT}/a/é b.txt.gz"
    storage.write_bytes(path, b"old")
    storage.write_bytes(path, b"not compressed")
    assert (disk / "a/é b.txt.gz").read_bytes() == b"not compressed"
    assert storage.read_bytes(path) == b"not compressed"
    assert storage.exists(path)
    os.utime(disk / "a/é b.txt.gz", (1_700_000_000, 1_700_000_000))
    assert storage.stat(path) == storage.StoredFile(path, 14, "1700000000.0")
    with storage.open_input(path) as file:
        file.seek(-10, os.SEEK_END)
        assert file.read() == b"compressed"


def test_what_is_not_there(disk: Path) -> None:
    path = f"{ROOT}/missing"
    assert not storage.exists(path)
    for function in (storage.stat, storage.open_input, storage.read_bytes):
        with pytest.raises(FileNotFoundError) as caught:
            function(path)
        assert caught.value.filename == path
    storage.delete(path)
    storage.delete_tree(path)


def test_an_unknown_scheme() -> None:
    with pytest.raises(ValueError, match="nowhere://a/b"):
        storage.read_bytes("nowhere://a/b")


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("", ["1.jpg", "a/2.jpg", "a/b/3.jpg", "ab.png"]),
        ("1.jpg", ["1.jpg"]),
        ("*.jpg", ["1.jpg"]),
        ("a/", ["a/2.jpg", "a/b/3.jpg"]),
        ("a?2.jpg", []),
        ("a/**/*.jpg", ["a/2.jpg", "a/b/3.jpg"]),
        ("**.png", ["ab.png"]),
        ("[!0-9]*", ["ab.png"]),
        ("missing*", []),
        ("missing", []),
        ("missing/", []),
    ],
)
def test_patterns(disk: Path, pattern: str, expected: list[str]) -> None:
    for name in ("1.jpg", "a/2.jpg", "a/b/3.jpg", "ab.png"):
        storage.write_bytes(f"{ROOT}/{name}", b"x")
    assert names(pattern) == expected


def test_create_if_absent(disk: Path) -> None:
    assert storage.create_if_absent(f"{ROOT}/a", b"1")
    assert not storage.create_if_absent(f"{ROOT}/a", b"2")
    assert storage.read_bytes(f"{ROOT}/a") == b"1"


def test_put_file(disk: Path) -> None:
    (disk / "local").write_bytes(b"x" * 3_000_000)
    storage.put_file(str(disk / "local"), f"{ROOT}/out/part")
    assert (disk / "out/part").read_bytes() == b"x" * 3_000_000
    assert not (disk / "local").exists()


def test_move_can_be_repeated(disk: Path) -> None:
    source, target = f"{ROOT}/staged", f"{ROOT}/out/final"
    storage.write_bytes(source, b"1")
    for _ in range(3):
        storage.move(source, target)
        assert names("") == ["out/final"]
    storage.write_bytes(source, b"2")
    storage.move(source, target)
    assert storage.read_bytes(target) == b"2"
    with pytest.raises(FileNotFoundError):
        storage.move(source, f"{ROOT}/elsewhere")


def test_delete_tree(disk: Path) -> None:
    for name in ("a/1", "a/b/2", "ab"):
        storage.write_bytes(f"{ROOT}/{name}", b"")
    storage.delete_tree(f"{ROOT}/a")
    assert names("") == ["ab"]
    with pytest.raises(ValueError, match="everything"):
        storage.delete_tree("disk://")


@pytest.mark.parametrize(
    ("cause", "expected"),
    [
        (PermissionError("no"), PermissionError),
        (FileNotFoundError("gone"), FileNotFoundError),
        (RuntimeError("broken"), OSError),
    ],
)
def test_what_beam_wraps_is_unwrapped(
    disk: Path, monkeypatch: pytest.MonkeyPatch, cause: Exception, expected: type
) -> None:
    path = f"{ROOT}/a"
    storage.write_bytes(path, b"")

    def fail(self: object, paths: list[str]) -> None:
        raise BeamIOError("Delete operation failed", dict.fromkeys(paths, cause))

    monkeypatch.setattr(DiskFileSystem, "delete", fail)
    with pytest.raises(OSError, match="Delete operation failed") as caught:
        storage.delete(path)
    assert type(caught.value) is expected
    assert caught.value.filename == path
