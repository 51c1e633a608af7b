"""``storage`` on a scheme that only Beam knows, beyond its contract: errors and times."""

from __future__ import annotations

import errno
import importlib.util
from contextlib import suppress
from pathlib import Path

import pytest
from apache_beam.io.filesystem import BeamIOError
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions

from beamlabel.transforms import storage
from beamlabel.transforms.loading.fetch import FetchOptions, fetch
from beamlabel.transforms.records import ImageError, Reason
from beamlabel.transforms.storage import retries
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
def test_what_a_file_system_raises_by_itself_keeps_its_class_and_names_the_path(
    disk: DiskFolder, monkeypatch: pytest.MonkeyPatch, cause: OSError
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
    """As that of Beam's S3: no OSError, and the status of HTTP in ``code``."""

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
def test_what_the_client_of_a_storage_raises_is_an_os_error(
    disk: DiskFolder, monkeypatch: pytest.MonkeyPatch, cause: Exception, expected: type
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
    disk: DiskFolder, monkeypatch: pytest.MonkeyPatch
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


@pytest.mark.parametrize(
    ("uri", "library", "extra"),
    [
        ("s3://b/a", "boto3", "aws"),
        ("hdfs://h/a", "hdfs", "hadoop"),
        ("azfs://a/b/c", "azure.storage.blob", "azure"),
    ],
)
def test_a_library_that_is_not_installed_is_named(uri: str, library: str, extra: str) -> None:
    """Beam registers these file systems also without what they need."""
    with suppress(ModuleNotFoundError):
        if importlib.util.find_spec(library):
            pytest.skip(f"{library} is installed")
    FileSystems.set_options(PipelineOptions([]))  # as each pipeline does
    for function in (storage.read_bytes, storage.stat, lambda path: storage.write_bytes(path, b"x")):
        with pytest.raises(ValueError, match=rf"apache-beam\[{extra}\]"):
            function(uri)
    with pytest.raises(ImageError, match=rf"apache-beam\[{extra}\]") as caught:
        fetch(uri, FetchOptions())
    assert caught.value.reason is Reason.UNSUPPORTED_SCHEME
