"""Files of every other storage that Beam knows (``s3://``, ``hdfs://``, ...); see ``beamlabel.transforms.storage``.

Beam's ``FileSystems`` promises neither atomic writes nor streaming listings, and does not tell a folder from a file:
neither do these functions. Its ``create`` replaces what is there on S3 and Azure, and fails on HDFS: see
https://github.com/apache/beam/blob/master/sdks/python/apache_beam/io/hadoopfilesystem.py.
"""

from __future__ import annotations

import errno
import io
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from beamlabel.transforms.storage.patterns import StoredFile, escape, matcher, split_glob

# By scheme, the extra of apache-beam that has what its file system needs.
_EXTRAS = {"s3": "aws", "azfs": "azure", "hdfs": "hadoop"}
# What is no fault of a storage: a wrong path, a file system that is not installed or not configured.
_MISTAKES = (ValueError, TypeError, LookupError, AttributeError, ImportError, NotImplementedError)


def _filesystems() -> Any:
    from apache_beam.io.filesystems import FileSystems

    return FileSystems


def _raw() -> dict[str, str]:
    """Bytes in are bytes out: Beam would decompress and compress by the ending of the name."""
    from apache_beam.io.filesystem import CompressionTypes

    return {"compression_type": CompressionTypes.UNCOMPRESSED}


@contextmanager
def _errors(path: str) -> Iterator[None]:
    """Makes of what Beam raises the ``OSError`` that a local file would raise, naming ``path``."""
    from apache_beam.io.filesystem import BeamIOError

    try:
        yield
    except BeamIOError as error:
        if (lacking := lacking_library(path, error)) is not None:
            raise ValueError(lacking) from error
        # It wraps what went wrong, path by path.
        codes = [_code(cause) for cause in (error.exception_details or {}).values()]
        codes = codes or [_code(error)]
        code = next((code for code in (errno.EACCES, errno.ENOENT, errno.EEXIST) if code in codes), errno.EIO)
        raise OSError(code, str(error), path) from error
    except OSError as error:
        if error.filename == path:
            raise
        raise OSError(_code(error), error.strerror or str(error), path) from error
    except _MISTAKES:
        raise
    except Exception as error:
        if (lacking := lacking_library(path, error)) is not None:
            raise ValueError(lacking) from error
        # S3ClientError, HdfsError, BlobStorageError: each storage has a class of its own, and need not be installed.
        raise OSError(_code(error), f"{type(error).__name__}: {error}", path) from error


def lacking_library(path: str, error: Exception) -> str | None:
    """What to install, if that is the cause: Beam registers a file system also without the library that it needs.

    It then fails by an assertion (S3: "Missing boto3 requirement"), or finds a name undefined (Azure).
    """
    kind = path.partition("://")[0].lower()
    causes = [error, *(getattr(error, "exception_details", None) or {}).values()]
    is_lacking = any(
        isinstance(cause, (NameError, ImportError))
        or (isinstance(cause, AssertionError) and "Missing" in str(cause))
        for cause in causes
    )
    if kind not in _EXTRAS or not is_lacking:
        return None
    return f"the library that reads {kind}:// is not installed: pip install 'apache-beam[{_EXTRAS[kind]}]'"


def _says_exists(error: BaseException) -> bool:
    # "Path already exists" is Beam's, FileAlreadyExistsException that of HDFS.
    return isinstance(error, FileExistsError) or "alreadyexists" in str(error).lower().replace(" ", "")


def _code(cause: BaseException) -> int:
    if _says_exists(cause):
        return errno.EEXIST
    status = getattr(cause, "code", None)  # of HTTP
    if status == 403 or isinstance(cause, PermissionError):
        return errno.EACCES
    if status == 404 or isinstance(cause, FileNotFoundError):
        return errno.ENOENT
    return getattr(cause, "errno", None) or errno.EIO


def _exists(path: str) -> bool:
    with _errors(path):
        return bool(_filesystems().exists(path))


def stat(path: str) -> StoredFile:
    """The file at ``path``."""
    # Asked first: what Beam raises for a missing file differs from storage to storage.
    if path.endswith("/") or not _exists(path):
        raise FileNotFoundError(errno.ENOENT, "no such file", path)
    with _errors(path):
        filesystem = _filesystems().get_filesystem(path)
        return _stored(filesystem.metadata(path))


def _stored(metadata: Any) -> StoredFile:
    updated = metadata.last_updated_in_seconds
    return StoredFile(metadata.path, metadata.size_in_bytes, str(updated) if updated else None)


def below(folder: str) -> Iterator[StoredFile]:
    """All files below ``folder``."""
    # The characters of its name mean themselves.
    return _match(escape(folder) + "**", folder)


def glob(pattern: str) -> Iterator[StoredFile]:
    """The files that match."""
    start, rest = split_glob(pattern)
    matches = matcher(rest)
    # For Beam "**/" is at least one folder; the wider pattern finds those that need none, too.
    wider = start + rest.replace("**/", "**")
    return (file for file in _match(wider, pattern) if matches(file.path[len(start) :]))


def _match(pattern: str, path: str) -> Iterator[StoredFile]:
    with _errors(path):
        found = [_stored(metadata) for metadata in _filesystems().match([pattern])[0].metadata_list]
    files = (file for file in found if not (file.path.endswith("/") and not file.size))
    return iter(sorted(files, key=lambda file: file.path))


def open_input(path: str) -> BinaryIO:
    """The file, open for reading."""
    stat(path)
    with _errors(path):
        return _filesystems().open(path, **_raw())


def read_bytes(path: str) -> bytes:
    """The whole file."""
    with open_input(path) as file:
        return file.read()


def _create(path: str, source: BinaryIO) -> None:
    with _errors(path), _filesystems().create(path, **_raw()) as file:
        shutil.copyfileobj(source, file, 1 << 20)


def _replace(path: str, source: BinaryIO) -> None:
    try:
        _create(path, source)
    except FileExistsError:
        # HDFS: readers may find no file for a moment.
        delete(path)
        source.seek(0)
        _create(path, source)


def write_bytes(path: str, data: bytes) -> None:
    """Write the file, replacing an earlier one."""
    _replace(path, io.BytesIO(data))


def create_if_absent(path: str, data: bytes) -> bool:
    """Look, then create.

    On HDFS, whose ``create`` fails if there is a file (the NameNode's CREATE without ``overwrite`` is atomic), one of
    many wins; a reader may see its file half written. On S3 and Azure ``create`` replaces, and Beam has no conditional
    request (``If-None-Match``): of two that do it at the same time both may win, and the file is that of the later
    one. Names that are made of what they hold, as those of units are, can bear that.
    """
    if _exists(path):
        return False
    try:
        _create(path, io.BytesIO(data))
    except FileExistsError:
        return False
    return True


def put_file(local_path: str, path: str) -> None:
    """Copy, then remove the local file."""
    with Path(local_path).open("rb") as source:
        _replace(path, source)
    Path(local_path).unlink(missing_ok=True)


def copy(source: str, target: str) -> None:
    """Copy within the file system."""
    stat(source)  # before the target goes
    _make_room(target)
    with _errors(source):
        _filesystems().copy([source], [target])


def move(source: str, target: str) -> None:
    """Rename; done already if only ``target`` is there."""
    if not _exists(source):
        if not _exists(target):
            raise FileNotFoundError(errno.ENOENT, "no such file", source)
        return
    _make_room(target)
    with _errors(source):
        _filesystems().rename([source], [target])


def _make_room(target: str) -> None:
    # HDFS renames neither onto what is there nor into a folder that is not.
    delete(target)
    with suppress(OSError):  # it is there already; if not, what comes next tells
        _filesystems().mkdirs(target.rpartition("/")[0])


def delete(path: str) -> None:
    """Delete the file."""
    if _exists(path):
        with _errors(path):
            _filesystems().delete([path])


def delete_tree(path: str) -> None:
    """Delete all files below ``path``, and the folder where there is such a thing."""
    if "/" not in path.rstrip("/").partition("://")[2]:
        raise ValueError(f"will not delete everything: {path!r}")
    files = (file.path for file in below(path.rstrip("/") + "/"))
    while chunk := list(islice(files, 100)):
        with _errors(path):
            _filesystems().delete(chunk)
    with suppress(OSError):  # an empty folder is no harm, and not all file systems delete one
        delete(path)
