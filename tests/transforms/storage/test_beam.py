"""``storage`` on a scheme that only Beam knows, beyond its contract: errors and times."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from apache_beam.io.filesystem import BeamIOError

from beamlabel.transforms import storage
from support.places import DiskFileSystem, DiskFolder


@pytest.fixture
def disk(tmp_path: Path) -> DiskFolder:
    return DiskFolder(tmp_path)


def test_the_version_is_the_time_of_the_last_update(disk: DiskFolder) -> None:
    path = disk.put("a/é b.txt.gz", b"not compressed")
    assert storage.stat(path) == storage.StoredFile(path, 14, "1700000000.0")


@pytest.mark.parametrize(
    ("cause", "expected"),
    [
        (PermissionError("no"), PermissionError),
        (FileNotFoundError("gone"), FileNotFoundError),
        (RuntimeError("broken"), OSError),
    ],
)
def test_what_beam_wraps_is_unwrapped(
    disk: DiskFolder, monkeypatch: pytest.MonkeyPatch, cause: Exception, expected: type
) -> None:
    path = disk.put("a", b"")

    def fail(self: object, paths: list[str]) -> None:
        raise BeamIOError("Delete operation failed", dict.fromkeys(paths, cause))

    monkeypatch.setattr(DiskFileSystem, "delete", fail)
    with pytest.raises(OSError, match="Delete operation failed") as caught:
        storage.delete(path)
    assert type(caught.value) is expected
    assert caught.value.filename == path


@pytest.mark.parametrize(
    "cause", [TimeoutError(errno.ETIMEDOUT, "late"), PermissionError("closed"), FileNotFoundError("gone")]
)
def test_what_a_file_system_raises_by_itself_keeps_its_class_and_names_the_path(
    disk: DiskFolder, monkeypatch: pytest.MonkeyPatch, cause: OSError
) -> None:
    path = disk.put("a", b"")

    def fail(self: object, *_: object) -> None:
        raise cause

    monkeypatch.setattr(DiskFileSystem, "open", fail)
    with pytest.raises(type(cause), match=r"late|closed|gone") as caught:
        storage.read_bytes(path)
    assert caught.value.filename == path
