"""Files in the other storage systems of Beam (``azfs://``, ``hdfs://``, ...); see ``beamlabel.transforms.storage``.

Beam's ``FileSystems`` has no atomic writes and no streaming listings, and cannot tell a directory from a file; the same
holds for these functions. Its ``create`` replaces an existing file on Azure and fails on HDFS, see
https://github.com/apache/beam/blob/master/sdks/python/apache_beam/io/hadoopfilesystem.py.
"""

from __future__ import annotations

import errno
import http.client
import io
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from beamlabel.transforms.storage import beam_setup
from beamlabel.transforms.storage.buckets import azure_listing, azure_ranges
from beamlabel.transforms.storage.buckets.content_types import UNKNOWN, content_type
from beamlabel.transforms.storage.errors import ReplacedError
from beamlabel.transforms.storage.listing.stored_file import StoredFile
from beamlabel.transforms.storage.patterns import (
    Directory,
    escape,
    matcher,
    split_glob,
    without_directories,
)
from beamlabel.transforms.storage.ranged_file import RangedFile
from beamlabel.transforms.storage.retries import STATUSES, retried

# Errors that no storage system causes: a wrong path, a file system that is not installed or not configured.
_MISTAKES = (ValueError, TypeError, LookupError, AttributeError, ImportError, NotImplementedError)
_READ_SIZE = 4 << 20
"""Bytes of one read, as on ``gs://``."""

_T = TypeVar("_T")


def _raw() -> dict[str, str]:
    """Keeps Beam from compressing and decompressing by the suffix of the name."""
    from apache_beam.io.filesystem import CompressionTypes

    return {"compression_type": CompressionTypes.UNCOMPRESSED}


def _call(path: str, call: Callable[[Any], _T]) -> _T:
    """The result of ``call(FileSystems)``, tried again while the error is transient."""
    with _errors(path):
        return retried(lambda: call(beam_setup.filesystems()), is_transient)


@contextmanager
def _errors(path: str) -> Iterator[None]:
    """Turns Beam's errors into the ``OSError`` that a local file would raise, with ``path``."""
    from apache_beam.io.filesystem import BeamIOError

    try:
        yield
    except BeamIOError as error:
        if (lacking := lacking_library(path, error)) is not None:
            raise ValueError(lacking) from error
        codes = [_code(cause) for cause in _causes(error)]
        code = next((code for code in (errno.EACCES, errno.ENOENT, errno.EEXIST) if code in codes), errno.EIO)
        raise OSError(code, str(error), path) from error
    except OSError as error:
        if error.filename == path:
            raise
        raise OSError(_code(error), error.strerror or str(error), path) from error
    except _MISTAKES as error:
        if (lacking := lacking_library(path, error)) is not None:
            raise ValueError(lacking) from error
        raise
    except Exception as error:
        if (lacking := lacking_library(path, error)) is not None:
            raise ValueError(lacking) from error
        # HdfsError, BlobStorageError: each storage system has its own class, which may not be installed.
        raise OSError(_code(error), f"{type(error).__name__}: {error}", path) from error


def _causes(error: Any) -> list[Any]:
    """The causes by path if Beam wrapped them, also twice; else the error itself."""
    details = getattr(error, "exception_details", None)
    if not details:
        return [error]
    return [cause for detail in details.values() for cause in _causes(detail)]


def lacking_library(path: str, error: Exception) -> str | None:
    """The package to install, if a missing package is the cause; else None.

    Beam registers a file system even without its library, and then fails with an undefined name (Azure) or an
    assertion.
    """
    kind = path.partition("://")[0].lower()
    kinds = (NameError, ImportError, AssertionError, TypeError)
    if not beam_setup.is_lacking(kind) or not any(
        isinstance(cause, kinds) for cause in [error, *_causes(error)]
    ):
        return None
    return beam_setup.lacking(kind)


def is_transient(error: Exception) -> bool:
    """Whether another try may succeed: a busy service, a slow or broken connection, half a body."""
    # Azure's errors for a connection that was refused or broke.
    azure = sys.modules.get("azure.core.exceptions")
    kinds: tuple[type[Exception], ...] = (ConnectionError, TimeoutError, http.client.HTTPException)
    if azure is not None:
        kinds += (azure.ServiceRequestError, azure.ServiceResponseError, azure.IncompleteReadError)
    return any(isinstance(cause, kinds) or _status(cause) in STATUSES for cause in _causes(error))


def is_forbidden(error: Exception) -> bool:
    """Whether the credentials are insufficient or missing."""
    return any(_code(cause) == errno.EACCES for cause in _causes(error))


def _status(cause: Any) -> int | None:
    """The HTTP status of the answer; Azure's deletions report the bare number."""
    if isinstance(cause, int):
        return cause
    return getattr(cause, "status_code", None) or getattr(cause, "code", None)


def _says_exists(error: Any) -> bool:
    # "Path already exists" is Beam's, FileAlreadyExistsException that of HDFS.
    return isinstance(error, FileExistsError) or "alreadyexists" in str(error).lower().replace(" ", "")


def _code(cause: Any) -> int:
    if _says_exists(cause):
        return errno.EEXIST
    status = _status(cause)
    if status in (401, 403) or isinstance(cause, PermissionError):
        return errno.EACCES
    if status == 404 or isinstance(cause, FileNotFoundError):
        return errno.ENOENT
    return getattr(cause, "errno", None) or errno.EIO


def _is_azure(path: str) -> bool:
    return path.lower().startswith("azfs://")


def _exists(path: str) -> bool:
    try:
        return bool(_call(path, lambda filesystems: filesystems.exists(path)))
    except FileNotFoundError:  # raised on Azure
        return False


def stat(path: str) -> StoredFile:
    """The file at ``path``."""
    # For a missing file each of Beam's file systems raises another error, so ask first.
    if path.endswith("/") or not _exists(path):
        raise FileNotFoundError(errno.ENOENT, "no such file", path)
    return _call(path, lambda filesystems: _stored(filesystems.get_filesystem(path).metadata(path)))


def _stored(metadata: Any) -> StoredFile:
    updated = metadata.last_updated_in_seconds
    return StoredFile(metadata.path, metadata.size_in_bytes, str(updated) if updated else None)


def below(directory: str) -> Iterator[StoredFile]:
    """All files below ``directory``."""
    # Glob characters in the name are literal.
    return _match(escape(directory) + "**", directory, directory)


def entries(directory: str) -> Iterator[StoredFile | Directory]:
    """The direct entries of ``directory``, which ends in ``/``; Beam knows no directories, so lists all below."""
    directories = set()
    for file in below(directory):
        name, slash, _ = file.path[len(directory) :].partition("/")
        if not slash:
            yield file
        elif name not in directories:
            directories.add(name)
            yield Directory(directory + name)


def glob(pattern: str) -> Iterator[StoredFile]:
    """The files that match."""
    start, rest = split_glob(pattern)
    matches = matcher(rest)
    # In Beam "**/" needs at least one directory; the wider pattern also matches none.
    wider = start + rest.replace("**/", "**")
    return (file for file in _match(wider, pattern, start) if matches(file.path[len(start) :]))


def _match(pattern: str, path: str, prefix: str) -> Iterator[StoredFile]:
    """The files that Beam matches, on Azure those that begin with ``prefix``; ``path`` is for errors."""

    def listed(filesystems: Any) -> list[StoredFile]:
        if _is_azure(path):
            return azure_listing.list_blobs(prefix, beam_setup.pipeline_options())
        return [_stored(metadata) for metadata in filesystems.match([pattern])[0].metadata_list]

    return iter(sorted(without_directories(_call(path, listed)), key=lambda file: file.path))


class _File(RangedFile):
    """A file that reopens after a failed read and continues there if the file is unchanged."""

    def __init__(self, path: str) -> None:
        self._facts = stat(path)
        super().__init__(path, self._facts.size, self._range)
        self._file: Any = _call(path, lambda filesystems: filesystems.open(path, **_raw()))

    def _range(self, first: int, last: int) -> bytes:
        return _call(self.name, lambda filesystems: self._read(filesystems, first, last + 1 - first))

    def _read(self, filesystems: Any, start: int, size: int) -> bytes:
        if self._file is None:
            if stat(self.name) != self._facts:
                raise OSError(errno.EIO, "the file was replaced while it was read", self.name)
            self._file = filesystems.open(self.name, **_raw())
        try:
            if self._file.tell() != start:
                self._file.seek(start)
            data: bytes = self._file.read(size)
            return data
        except Exception:
            self._forget()
            raise

    def _forget(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            with suppress(Exception):  # the earlier error counts
                file.close()

    def close(self) -> None:
        if not self.closed:
            self._forget()
        super().close()


def open_input(path: str, known: StoredFile | None = None) -> BinaryIO:
    """Opens the file for reading; a read may raise ``OSError`` once another file replaced it."""
    return io.BufferedReader(_File(path), _READ_SIZE)


def read_bytes(path: str) -> bytes:
    """The whole file."""
    with open_input(path) as file:
        return file.read()


def read_part(path: str, start: int, size: int, version: str | None) -> bytes:
    """A range of the file."""
    if not path.startswith("azfs://"):
        if version is not None and stat(path).version != version:
            raise ReplacedError(errno.ENOENT, "the file was replaced", path)
        with _File(path) as file:
            file.seek(start)
            return file.read(size)
    options = beam_setup.pipeline_options()
    found = _call(path, lambda _: azure_ranges.read_range(path, start, size, options))
    if version is not None and str(found.updated_at) != version:
        raise ReplacedError(errno.ENOENT, "the file was replaced", path)
    return found.data


def get_file(path: str, local_path: Path) -> None:
    """Copies the file to a local file."""
    with open_input(path) as source, local_path.open("wb") as file:
        shutil.copyfileobj(source, file, 1 << 20)


def _create(path: str, source: BinaryIO) -> None:
    # HDFS stores no content types and refuses them.
    kind = content_type(path) if _is_azure(path) else UNKNOWN
    with _errors(path), beam_setup.filesystems().create(path, kind, **_raw()) as file:
        shutil.copyfileobj(source, file, 1 << 20)


def _replace(path: str, source: BinaryIO) -> None:
    def once() -> None:
        source.seek(0)
        try:
            _create(path, source)
        except FileExistsError:
            # HDFS: readers may find no file for a moment.
            delete(path)
            source.seek(0)
            _create(path, source)

    retried(once, _was_transient)


def _was_transient(error: Exception) -> bool:
    return is_transient(error) or (isinstance(error.__cause__, Exception) and is_transient(error.__cause__))


def write_bytes(path: str, data: bytes) -> None:
    """Writes the file, replacing an earlier one."""
    _replace(path, io.BytesIO(data))


def create_if_absent(path: str, data: bytes) -> bool:
    """Creates the file if a look before finds none.

    On HDFS one of several writers wins, since ``create`` fails if the file exists (the NameNode's CREATE without
    ``overwrite`` is atomic); a reader may see a half-written file. On Azure ``create`` replaces, and Beam has no
    conditional request (``If-None-Match``): two concurrent writers may both win, and the later one's file stays. That
    is harmless for names that are made of the content, such as those of units.
    """
    if _exists(path):
        return False
    try:
        _create(path, io.BytesIO(data))
    except FileExistsError:
        return False
    return True


def put_file(local_path: str, path: str) -> None:
    """Copies the local file, then removes it."""
    with Path(local_path).open("rb") as source:
        _replace(path, source)
    Path(local_path).unlink(missing_ok=True)


def copy(source: str, target: str) -> None:
    """Copies a file within the file system."""
    stat(source)  # fails before the target is deleted
    _make_room(target)
    if _copies_by_itself(source):
        _call(source, lambda filesystems: filesystems.copy([source], [target]))
    else:
        _stream(source, target)


def _copies_by_itself(path: str) -> bool:
    """Whether the copy is complete when Beam's ``copy`` returns.

    On Azure ``copy`` does not wait for the end of the copy, ``rename`` deletes the source right after, and both support
    only accounts at ``blob.core.windows.net``; see
    https://github.com/apache/beam/blob/master/sdks/python/apache_beam/io/azure/blobstorageio.py.
    """
    return not path.startswith("azfs://")


def _stream(source: str, target: str) -> None:
    """Reads the file here and writes it back."""
    with open_input(source) as file:
        _replace(target, file)


def move(source: str, target: str) -> None:
    """Renames the file; does nothing if only ``target`` exists."""
    if not _exists(source):
        if not _exists(target):
            raise FileNotFoundError(errno.ENOENT, "no such file", source)
        return
    _make_room(target)
    if _copies_by_itself(source):
        _call(source, lambda filesystems: filesystems.rename([source], [target]))
    else:
        _stream(source, target)
        delete(source)


def _make_room(target: str) -> None:
    # HDFS renames neither onto an existing file nor into a missing directory.
    delete(target)
    with suppress(OSError):  # it exists, or the next call fails
        beam_setup.filesystems().mkdirs(target.rpartition("/")[0])


def delete(path: str) -> None:
    """Deletes the file."""
    if _exists(path):
        with suppress(FileNotFoundError):
            _call(path, lambda filesystems: filesystems.delete([path]))


def delete_tree(path: str) -> None:
    """Deletes all files below ``path``, and the directory if the file system has one."""
    if "/" not in path.rstrip("/").partition("://")[2]:
        raise ValueError(f"refusing to delete a whole file system: {path!r}")
    files = (file.path for file in below(path.rstrip("/") + "/"))
    while chunk := list(islice(files, 100)):
        _delete_all(path, chunk)
    with suppress(OSError):  # not every file system deletes an empty directory, which is harmless
        delete(path)


def _delete_all(path: str, chunk: list[str]) -> None:
    _call(path, lambda filesystems: filesystems.delete(chunk))
