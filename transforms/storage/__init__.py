"""Files on local disks, ``gs://``, ``s3://``, and every other scheme that Beam's FileSystems supports.

The functions are thread-safe. Local paths need neither Beam nor Google's library; ``gs://`` and ``s3://`` use the
process's one google-cloud-storage client and one boto3 client. In every backend a missing file raises
``FileNotFoundError``, a forbidden file raises ``PermissionError``, and every error names the path.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import unquote

from beamlabel.transforms.storage import beam, gcs, local, patterns, s3
from beamlabel.transforms.storage.listing.stored_file import StoredFile
from beamlabel.transforms.storage.patterns import Directory, has_glob
from beamlabel.transforms.storage.ranged_file import unbuffered
from beamlabel.transforms.storage.uris import scheme

__all__ = [
    "Directory", "StoredFile", "absolute", "copy", "copy_all", "create_if_absent", "delete", "delete_all",
    "delete_temporary", "delete_tree", "entries", "escape", "exists", "get_file", "is_local", "join", "make_directory",
    "match", "move", "move_all", "move_directory", "open_input", "put_file", "read_bytes", "read_part", "read_range",
    "stat", "sync_directory", "write_bytes", "write_file",
]  # fmt: skip


_BUCKETS = (gcs, s3)
"""Backends with batch operations of their own."""

_THREADS = 16
"""Files that other backends move, copy or delete at a time."""

_FILE_URI = re.compile(r"file://(localhost)?(?=/)", re.IGNORECASE)


def is_local(path: str) -> bool:
    """Whether a path is on this machine."""
    return scheme(path) in (None, "file")


def absolute(path: str) -> str:
    """The absolute path of a local path or ``file://`` URI, with its last slash; other URIs are returned unchanged.

    Raises:
      ValueError: The ``file://`` URI names another machine.
    """
    if not is_local(path):
        return path
    if scheme(path) == "file":
        found = _FILE_URI.match(path)
        if not found:
            raise ValueError(f"not a file:///path URI of this machine: {path!r}")
        path = unquote(path[found.end() :], errors="surrogateescape")
    # Path.resolve would replace the symbolic links in the user's own names.
    whole = os.path.abspath(path)  # noqa: PTH100
    return whole + "/" if path.endswith("/") and whole != "/" else whole


def join(base: str, *names: str) -> str:
    """The path of names below a directory; a ``file://`` URI becomes a path, in which names are not percent-encoded."""
    base = absolute(base) if scheme(base) == "file" else base
    return "/".join([base.rstrip("/"), *names])


def escape(path: str) -> str:
    """A pattern that matches exactly ``path``; for a ``file://`` URI, a pattern of local paths."""
    return patterns.escape(absolute(path) if scheme(path) == "file" else path)


def match(pattern: str) -> Iterator[StoredFile]:
    """Streams the files that a pattern matches, sorted within each directory.

    ``*``, ``?`` and ``[...]`` stay within a directory, ``**`` does not, and ``**/`` also matches no directory at all. A
    path that ends in ``/``, a local directory or a bucket matches every file below it. A file or directory whose name
    holds glob characters is found by its own name; elsewhere in a pattern, ``escape`` makes them literal. Without a
    match the iterator is empty.

    Directories, and the empty objects that stand for directories, are not files. Links to directories are followed,
    except back to a directory on the way. At most one local directory, or one page of a bucket's listing, is in memory;
    Beam's file systems list everything at once.

    Raises:
      PermissionError: A directory cannot be listed.
      FileNotFoundError: There is no such bucket.
      ValueError: A range in brackets runs backwards, or the pattern names no bucket.
    """
    backend, pattern = _backend(pattern)
    found = False
    for file in _literal(backend, pattern):
        found = True
        yield file
    if not found and has_glob(pattern):
        yield from backend.glob(pattern + "**" if pattern.endswith("/") else pattern)


def _literal(backend: Any, path: str) -> Iterator[StoredFile]:
    """The file, or all files of the directory, whose name is literally ``path``."""
    if not path.endswith("/"):
        try:
            yield backend.stat(path)
            return
        except FileNotFoundError:
            return
        except IsADirectoryError:
            path += "/"
    yield from backend.below(path)


def entries(directory: str) -> Iterator[StoredFile | Directory]:
    """The direct entries of a directory, whose name is not a pattern; none if it does not exist.

    A bucket takes one request for a thousand entries, however much lies below; Beam's file systems list all of that.

    Raises:
      PermissionError: The directory cannot be listed.
      FileNotFoundError: There is no such bucket.
    """
    backend, path = _backend(directory)
    yield from backend.entries(path.rstrip("/") + "/")


def stat(path: str) -> StoredFile:
    """Size and version of a file.

    Raises:
      FileNotFoundError, PermissionError.
    """
    backend, path = _backend(path)
    return backend.stat(path)


def exists(path: str) -> bool:
    """Whether the file exists; a directory does not count, except in Beam's file systems, which cannot tell."""
    try:
        stat(path)
    except (FileNotFoundError, IsADirectoryError):
        return False
    return True


def open_input(path: str, known: StoredFile | None = None) -> BinaryIO:
    """A seekable stream of a file's bytes, never decompressed.

    Args:
      path: of the file.
      known: the result of a listing or ``stat``, which saves a request to a bucket; the first read then notices that
        the file is missing or was replaced.

    Raises:
      FileNotFoundError, PermissionError.
    """
    backend, path = _backend(path)
    return backend.open_input(path, known)


def read_range(file: BinaryIO, start: int, size: int) -> bytes:
    """A range of an open file, fewer bytes if the file ends before; a bucket sends no other bytes.

    Raises:
      OSError: The file cannot be read.
    """
    source: Any = unbuffered(file)
    source.seek(start)
    parts = []
    while size > 0 and (part := source.read(size)):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def read_bytes(path: str) -> bytes:
    """The content of a file.

    Raises:
      FileNotFoundError, PermissionError.
    """
    backend, path = _backend(path)
    return backend.read_bytes(path)


def read_part(path: str, start: int, size: int, version: str | None = None) -> bytes:
    """A range of a file, fewer bytes if the file ends before; a bucket takes one request.

    Args:
      path: of the file.
      start, size: of the range.
      version: from ``stat`` or a listing, which the file must still have; None: any version.

    Raises:
      FileNotFoundError, PermissionError.
      ReplacedError: The file has another version; also a ``FileNotFoundError``.
    """
    if not size:
        return b""
    backend, path = _backend(path)
    return backend.read_part(path, start, size, version)


def get_file(path: str, local_path: Path) -> None:
    """Copies a file of any size to this machine, a piece at a time.

    Raises:
      FileNotFoundError, PermissionError.
    """
    backend, path = _backend(path)
    backend.get_file(path, local_path)


def write_bytes(path: str, data: bytes) -> None:
    """Writes a file; readers see the old content or the new content."""
    backend, path = _backend(path)
    backend.write_bytes(path, data)


def write_file(path: str, local_path: Path) -> None:
    """Copies a local file, which stays; readers see the old content or the new content."""
    with tempfile.TemporaryDirectory(prefix="tmp-") as directory:
        link = str(Path(directory) / "file")
        local.copy(str(local_path), link)
        put_file(link, path)


def create_if_absent(path: str, data: bytes) -> bool:
    """Writes a file unless it exists. One of several writers wins, except on Azure (by Beam), where all may.

    Returns:
      Whether this call wrote the file, even if the answer to its first request was lost. False if the file existed,
      even with the same data.
    """
    backend, path = _backend(path)
    return backend.create_if_absent(path, data)


def put_file(local_path: str, path: str) -> None:
    """Moves a finished local file to its place, where readers see the whole file or nothing."""
    backend, path = _backend(path)
    backend.put_file(local_path, path)


def copy(source: str, destination: str) -> None:
    """Copies a file within one backend; readers see the whole copy or nothing.

    Raises:
      FileNotFoundError, PermissionError.
      ValueError: The paths are in different backends.
    """
    backend, source, destination = _same_backend(source, destination)
    if source == destination:
        backend.stat(source)
        return
    backend.copy(source, destination)


def move_directory(source: str, destination: str) -> None:
    """Renames a local directory to a path that does not exist.

    Raises:
      FileExistsError: The destination exists.
      FileNotFoundError: The source does not exist.
    """
    local.move_directory(absolute(source), absolute(destination))


def _same_backend(source: str, destination: str) -> tuple[Any, str, str]:
    backend, from_path = _backend(source)
    other, to_path = _backend(destination)
    if other is not backend or scheme(from_path) != scheme(to_path):
        raise ValueError(f"{source!r} and {destination!r} are in different storage systems")
    return backend, from_path, to_path


def move(source: str, destination: str) -> None:
    """Moves a file within one backend; does nothing if it was moved already.

    On a local disk the new name survives a power cut after ``sync_directory``; call it once for many files.

    Raises:
      FileNotFoundError: Neither file exists.
      ValueError: The paths are in different backends.
    """
    backend, source, destination = _same_backend(source, destination)
    if source == destination:
        backend.stat(source)
        return
    backend.move(source, destination)


def move_all(moves: Mapping[str, str]) -> None:
    """Moves many files, each within one backend as ``move`` does; on buckets many at a time.

    Args:
      moves: from source to destination.

    Raises:
      FileNotFoundError: A file is at neither its old nor its new path.
      ValueError: The paths of a file are in different backends.
    """
    for backend, pairs in _by_backend(moves).items():
        if backend in _BUCKETS:
            backend.move_all(pairs)
        else:
            _each(backend, backend.move, pairs.keys(), pairs.values())


def copy_all(copies: Mapping[str, str]) -> None:
    """Copies many files, each within one backend, on buckets many at a time; readers see a whole copy or nothing.

    Args:
      copies: from source to destination, which must differ.

    Raises:
      FileNotFoundError, PermissionError.
      ValueError: The paths of a file are in different backends.
    """
    for backend, pairs in _by_backend(copies).items():
        if backend in _BUCKETS:
            backend.copy_all(pairs)
        else:
            _each(backend, backend.copy, pairs.keys(), pairs.values())


def _by_backend(pairs: Mapping[str, str]) -> dict[Any, dict[str, str]]:
    found: dict[Any, dict[str, str]] = {}
    for source, target in pairs.items():
        backend, source, target = _same_backend(source, target)
        found.setdefault(backend, {})[source] = target
    return found


def delete_all(paths: Iterable[str]) -> None:
    """Deletes the given files that exist; on buckets many at a time."""
    found: dict[Any, list[str]] = {}
    for each in paths:
        backend, path = _backend(each)
        found.setdefault(backend, []).append(path)
    for backend, names in found.items():
        if backend in _BUCKETS:
            backend.delete_all(names)
        else:
            _each(backend, backend.delete, names)


def _each(backend: Any, do: Callable[..., object], *arguments: Iterable[str]) -> None:
    """Works through local files one by one, and through remote files in threads, since each waits for answers."""
    if backend is local:
        for each in zip(*arguments, strict=True):
            do(*each)
        return
    with ThreadPoolExecutor(_THREADS) as threads:
        list(threads.map(do, *arguments))


def make_directory(path: str) -> None:
    """Creates a local directory and its parents; other backends need none."""
    if is_local(path):
        local.make_directory(Path(absolute(path)))


def sync_directory(path: str) -> None:
    """Flushes the names in a local directory to disk; other backends need no flush."""
    if is_local(path):
        local.sync_directory(Path(absolute(path)))


def delete(path: str) -> None:
    """Deletes a file if it exists."""
    backend, path = _backend(path)
    backend.delete(path)


def delete_temporary(directory: str) -> None:
    """Deletes the temporary files that killed writers left in a local directory; other backends leave none."""
    if is_local(directory):
        local.delete_temporary(absolute(directory))


def delete_tree(path: str) -> None:
    """Deletes a directory and everything below it, if it exists.

    Raises:
      ValueError: The path is the root of a file system, or a whole bucket.
    """
    backend, path = _backend(path)
    backend.delete_tree(path)


def _backend(path: str) -> tuple[Any, str]:
    """The backend of a path, and the path in the form that the backend takes."""
    kind = scheme(path)
    if kind in (None, "file"):
        return local, absolute(path)
    return {"gs": gcs, "s3": s3}.get(kind, beam), path
