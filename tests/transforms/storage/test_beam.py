"""``storage`` on a scheme that only Beam supports, beyond the contract: errors and times."""

from __future__ import annotations

import errno
import io
from pathlib import Path
from typing import Any, ClassVar

import pytest
from apache_beam.io.filesystem import BeamIOError

from beamlabel.transforms import storage
from beamlabel.transforms.loading.fetch import Fetched, FetchOptions, fetch
from beamlabel.transforms.records import ImageError, Reason
from beamlabel.transforms.storage import retries
from support.places import DiskDirectory, DiskFileSystem


@pytest.fixture
def disk(tmp_path: Path) -> DiskDirectory:
    return DiskDirectory(tmp_path)


def test_the_version_is_the_time_of_the_last_update(disk: DiskDirectory) -> None:
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
def test_errors_that_beam_wraps_are_unwrapped(
    disk: DiskDirectory, monkeypatch: pytest.MonkeyPatch, cause: Exception, expected: type
) -> None:
    path = disk.put("a", b"")

    def fail(self: object, sources: list[str], targets: list[str]) -> None:
        raise BeamIOError("Copy operation failed", dict.fromkeys(sources, cause))

    monkeypatch.setattr(DiskFileSystem, "copy", fail)
    with pytest.raises(OSError, match="Copy operation failed") as caught:
        storage.copy(path, disk.uri("b"))
    assert type(caught.value) is expected
    assert caught.value.filename == path


@pytest.mark.parametrize(
    "cause", [TimeoutError(errno.ETIMEDOUT, "late"), PermissionError("closed"), FileNotFoundError("gone")]
)
def test_an_error_of_a_file_system_keeps_its_class_and_names_the_path(
    disk: DiskDirectory, monkeypatch: pytest.MonkeyPatch, cause: OSError
) -> None:
    path = disk.put("a", b"")

    def fail(self: object, *_: object) -> None:
        raise cause

    monkeypatch.setattr(DiskFileSystem, "open", fail)
    monkeypatch.setattr(retries, "TIMEOUT", 0.0)
    with pytest.raises(type(cause), match=r"late|closed|gone") as caught:
        storage.read_bytes(path)
    assert caught.value.filename == path


class S3ClientError(Exception):
    """Like the error of Beam's S3 client: not an OSError, with the HTTP status in ``code``."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


@pytest.mark.parametrize(
    ("cause", "expected"),
    [
        (S3ClientError("Access Denied", 403), PermissionError),
        (S3ClientError("Slow Down", 503), OSError),
        (RuntimeError("org.apache.hadoop.fs.FileAlreadyExistsException: /a"), FileExistsError),
    ],
)
def test_errors_of_a_storages_client_are_os_errors(
    disk: DiskDirectory, monkeypatch: pytest.MonkeyPatch, cause: Exception, expected: type
) -> None:
    def fail(self: object, *_: object) -> None:
        raise cause

    monkeypatch.setattr(DiskFileSystem, "create", fail)
    monkeypatch.setattr(retries, "TIMEOUT", 0.0)
    with pytest.raises(OSError, match=str(cause)) as caught:
        storage.write_bytes(disk.uri("a"), b"x")
    assert type(caught.value) is expected
    assert caught.value.filename == disk.uri("a")


def test_a_file_that_comes_between_look_and_create_is_not_replaced(
    disk: DiskDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DiskFileSystem, "refuses", True)
    disk.put("a", b"theirs")
    with monkeypatch.context() as patch:
        patch.setattr(DiskFileSystem, "exists", lambda self, path: False)
        assert not storage.create_if_absent(disk.uri("a"), b"ours")
    assert disk.get("a") == b"theirs"


def test_a_storage_that_is_not_installed_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="abcd"):
        storage.write_bytes("abcd://bucket/a", b"x")


class Shaky(io.BytesIO):
    """A file whose reads fail in the middle while errors are left."""

    errors: ClassVar[list[Exception]] = []

    def read(self, size: int | None = -1) -> bytes:
        if self.tell() > 3 and self.errors:
            raise self.errors.pop()
        return super().read(3 if self.errors else size)


BUSY = [
    S3ClientError("Slow Down", 503),
    ConnectionResetError("gone"),
    BeamIOError("x", {"a": S3ClientError("", 500)}),
]


def test_temporary_errors_are_tried_again(disk: DiskDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    path = disk.put("a", b"0123456789")
    for name, call in [
        ("exists", lambda: storage.stat(path)),
        ("metadata", lambda: storage.stat(path)),
        ("_list", lambda: list(storage.match(disk.uri("*")))),
        ("open", lambda: storage.read_bytes(path)),
        ("create", lambda: storage.write_bytes(disk.uri("b"), b"x")),
        ("copy", lambda: storage.copy(path, disk.uri("c"))),
    ]:
        left, true = list(BUSY), getattr(DiskFileSystem, name)

        def fails_at_first(*words: object, left: list[Exception] = left, true: Any = true) -> Any:
            if left:
                raise left.pop()
            return true(*words)

        with monkeypatch.context() as patch:
            patch.setattr(DiskFileSystem, name, fails_at_first)
            call()
        assert not left, name


def test_an_interrupted_read_continues_at_its_position(
    disk: DiskDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = disk.put("a", b"0123456789")
    monkeypatch.setattr(DiskFileSystem, "open", lambda *_, **__: Shaky(b"0123456789"))
    monkeypatch.setattr(Shaky, "errors", list(BUSY))
    assert storage.read_bytes(path) == b"0123456789"
    monkeypatch.setattr(Shaky, "errors", list(BUSY))
    assert fetch(path, FetchOptions()) == Fetched(b"0123456789", "1700000000.0")
    assert not Shaky.errors


def test_a_file_that_is_replaced_while_a_read_breaks_off(
    disk: DiskDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = disk.put("a", b"0123456789")
    monkeypatch.setattr(DiskFileSystem, "open", lambda *_, **__: Shaky(b"0123456789"))
    with storage.open_input(path) as file:
        monkeypatch.setattr(Shaky, "errors", list(BUSY))
        disk.put("a", b"another")
        with pytest.raises(OSError, match="replaced"):
            file.read()


@pytest.mark.parametrize(
    ("cause", "reason"),
    [
        (S3ClientError("Access Denied", 403), Reason.FORBIDDEN),
        (BeamIOError("x", {"a": S3ClientError("", 401)}), Reason.FORBIDDEN),
        (FileNotFoundError("gone"), Reason.NOT_FOUND),
        (S3ClientError("Bad Request", 400), Reason.FETCH_ERROR),
    ],
)
def test_a_lasting_error_is_tried_once(
    disk: DiskDirectory, monkeypatch: pytest.MonkeyPatch, cause: Exception, reason: Reason
) -> None:
    path = disk.put("a", b"x")
    tries = []

    def fail(*_: object, **__: object) -> None:
        tries.append(1)
        raise cause

    monkeypatch.setattr(DiskFileSystem, "open", fail)
    with pytest.raises(ImageError) as caught:
        fetch(path, FetchOptions())
    assert caught.value.reason is reason
    assert len(tries) == 1
