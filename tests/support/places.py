"""Storages other than ``gs://`` for the contract tests of ``storage``: fresh directories with helpers."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Protocol
from urllib.parse import quote

from apache_beam.io.filesystem import BeamIOError, FileMetadata
from apache_beam.io.localfilesystem import LocalFileSystem

# Beam promises no atomic writes.
ATOMIC = ["local", "file", "emulator", "fake-gcs-server", "s3"]
# "beam" replaces files like Azure; "beam-refusing" creates only new files, like HDFS.
CREATES_ONCE = [*ATOMIC, "beam-refusing"]
ALL = [*CREATES_ONCE, "beam", "azure"]

LONG_AGO = 1_700_000_000


class Place(Protocol):
    """A fresh, empty directory or bucket with helpers that bypass the code under test.

    Attributes:
        url: The place itself, without a trailing slash.
    """

    url: str

    def uri(self, name: str) -> str:
        """The name under which the code under test gets a file."""

    def shown(self, name: str) -> str:
        """The name of the file in listings and errors."""

    def put(self, name: str, data: bytes) -> str:
        """Stores a file and returns its URI."""

    def get(self, name: str) -> bytes:
        """The bytes of a file."""

    def list(self, prefix: str = "") -> list[str]:
        """The names of all files that begin with ``prefix``, sorted."""


class LocalDirectory:
    """Plain paths."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.url = str(directory)

    def uri(self, name: str) -> str:
        return f"{self.url}/{name}"

    def shown(self, name: str) -> str:
        return f"{self.directory}/{name}"

    def put(self, name: str, data: bytes) -> str:
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        # A clock that ticks every few milliseconds cannot tell two successive files apart.
        os.utime(path, (LONG_AGO, LONG_AGO))
        return self.uri(name)

    def get(self, name: str) -> bytes:
        return (self.directory / name).read_bytes()

    def list(self, prefix: str = "") -> list[str]:
        """Like ``Place.list``, and includes hidden files that should not be left behind."""
        files = (path for path in self.directory.rglob("*") if not path.is_dir())
        names = (path.relative_to(self.directory).as_posix() for path in files)
        return sorted(name for name in names if name.startswith(prefix))


class FileUris(LocalDirectory):
    """``file://`` URIs, percent-encoded."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.url = directory.as_uri()

    def uri(self, name: str) -> str:
        return f"{self.url}/{quote(os.fsencode(name))}"


class DiskDirectory(LocalDirectory):
    """A scheme that only Beam supports: ``disk://root/a`` is ``a`` in the directory."""

    def __init__(self, directory: Path, refuses: bool = False) -> None:
        super().__init__(directory)
        self.url = DiskFileSystem.ROOT
        DiskFileSystem.directory, DiskFileSystem.refuses = directory, refuses

    def shown(self, name: str) -> str:
        return self.uri(name)


class DiskFileSystem(LocalFileSystem):
    """The file system of ``disk://``; Beam finds it by its base class, like ``hdfs://``."""

    ROOT = "disk://root"
    directory = Path()
    refuses = False

    @classmethod
    def scheme(cls) -> str:
        return "disk"

    def _there(self, path: str) -> str:
        return str(self.directory) + path.removeprefix(self.ROOT) if path.startswith(self.ROOT) else path

    def join(self, base: str, *names: str) -> str:
        return "/".join([base.rstrip("/"), *names])

    def _list(self, prefix: str) -> Iterator[FileMetadata]:
        for found in super()._list(self._there(prefix)):
            path = self.ROOT + found.path.removeprefix(str(self.directory))
            yield FileMetadata(path, found.size_in_bytes, found.last_updated_in_seconds)

    def create(self, path: str, *args: Any) -> BinaryIO:
        # Like HDFS: directories are created for a new file but not for a renamed one.
        there = Path(self._there(path))
        if self.refuses:
            there.parent.mkdir(parents=True, exist_ok=True)
            try:
                there.open("xb").close()
            except FileExistsError:
                raise BeamIOError(f"Path already exists: {path}") from None
        return super().create(str(there), *args)

    def open(self, path: str, *args: Any, **words: Any) -> BinaryIO:
        return super().open(self._there(path), *args, **words)

    def mkdirs(self, path: str) -> None:
        super().mkdirs(self._there(path))

    def exists(self, path: str) -> bool:
        return super().exists(self._there(path))

    def metadata(self, path: str) -> FileMetadata:
        found = super().metadata(self._there(path))
        return FileMetadata(path, found.size_in_bytes, found.last_updated_in_seconds)

    def copy(self, sources: list[str], targets: list[str]) -> None:
        super().copy([self._there(path) for path in sources], [self._there(path) for path in targets])

    def rename(self, sources: list[str], targets: list[str]) -> None:
        super().rename([self._there(path) for path in sources], [self._there(path) for path in targets])

    def delete(self, paths: list[str]) -> None:
        # Like HDFS and S3: these are names, not patterns.
        for path in paths:
            there = Path(self._there(path))
            try:
                if there.is_dir():
                    shutil.rmtree(there)
                else:
                    there.unlink()
            except OSError as error:
                raise BeamIOError("Delete operation failed", {path: error}) from error
