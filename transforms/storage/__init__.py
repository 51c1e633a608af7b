"""Files wherever they are: local paths, ``gs://``, ``s3://``, and every other scheme that Beam's FileSystems knows.

Plain functions, safe in many threads. Local paths need neither Beam nor Google's library; ``gs://`` and ``s3://`` go
through the process's one google-cloud-storage client and one boto3 client. Whatever the backend, a missing file is a
``FileNotFoundError``, a forbidden one a ``PermissionError``, and every error names the path.
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
from beamlabel.transforms.storage.patterns import Folder, has_glob
from beamlabel.transforms.storage.ranged_file import RangedFile
from beamlabel.transforms.storage.uris import scheme

__all__ = [
    "Folder", "StoredFile", "absolute", "copy", "copy_all", "create_if_absent", "delete", "delete_all",
    "delete_temporary", "delete_tree", "entries", "escape", "exists", "get_file", "is_local", "join", "make_folder",
    "match", "move", "move_all", "move_folder", "open_input", "put_file", "read_bytes", "read_part", "read_range",
    "stat", "sync_folder", "write_bytes", "write_file",
]  # fmt: skip


_BUCKETS = (gcs, s3)
"""Backends that do much at a time by themselves."""

_THREADS = 16
"""Files that are moved, copied or deleted at a time by others."""

_FILE_URI = re.compile(r"file://(localhost)?(?=/)", re.IGNORECASE)


def is_local(path: str) -> bool:
    """Whether a path is one of this machine's."""
    return scheme(path) in (None, "file")


def absolute(path: str) -> str:
    """An absolute path for a local path or ``file://`` URI, its last slash kept; other URIs as they are.

    Raises:
      ValueError: a ``file://`` URI of another machine.
    """
    if not is_local(path):
        return path
    if scheme(path) == "file":
        found = _FILE_URI.match(path)
        if not found:
            raise ValueError(f"not a file:///path of this machine: {path!r}")
        path = unquote(path[found.end() :], errors="surrogateescape")
    # Not Path.resolve: symbolic links in the user's own names stay as they are.
    whole = os.path.abspath(path)  # noqa: PTH100
    return whole + "/" if path.endswith("/") and whole != "/" else whole


def join(base: str, *names: str) -> str:
    """Names below a folder; a ``file://`` folder becomes a path, in which names are not percent-encoded."""
    base = absolute(base) if scheme(base) == "file" else base
    return "/".join([base.rstrip("/"), *names])


def escape(path: str) -> str:
    """A pattern that matches exactly ``path``, whatever characters it holds; of a ``file://`` URI, one of paths."""
    return patterns.escape(absolute(path) if scheme(path) == "file" else path)


def match(pattern: str) -> Iterator[StoredFile]:
    """The files that a pattern names, listed in a streaming way, sorted within each folder.

    ``*``, ``?`` and ``[...]`` stay within a folder, ``**`` does not, and ``**/`` also stands for no folder at
    all. What ends in ``/``, or is a local folder or a bucket, means everything below it. A file or folder whose
    name holds glob characters is found by its own name; elsewhere in a pattern, ``escape`` takes the meaning
    from them. No match yields nothing.

    Folders, and the empty objects that stand for folders, are no files. Links to folders are followed, except
    back to where the listing came from. No more than one local folder, or one page of a bucket's listing, is
    in memory (Beam's file systems list all at once).

    Raises:
      PermissionError: a folder cannot be listed.
      FileNotFoundError: there is no such bucket.
      ValueError: a range in brackets runs backwards, or the pattern names no bucket.
    """
    backend, pattern = _backend(pattern)
    found = False
    for file in _literal(backend, pattern):
        found = True
        yield file
    if not found and has_glob(pattern):
        yield from backend.glob(pattern + "**" if pattern.endswith("/") else pattern)


def _literal(backend: Any, path: str) -> Iterator[StoredFile]:
    """The file, or all files of the folder, whose name is ``path`` as it stands."""
    if not path.endswith("/"):
        try:
            yield backend.stat(path)
            return
        except FileNotFoundError:
            return
        except IsADirectoryError:
            path += "/"
    yield from backend.below(path)


def entries(folder: str) -> Iterator[StoredFile | Folder]:
    """The files and folders right in a folder, whose name is no pattern; none if it is not there.

    In a bucket that is one request for a thousand of them, however much lies below (Beam's file systems list all that).

    Raises:
      PermissionError: the folder cannot be listed.
      FileNotFoundError: there is no such bucket.
    """
    backend, path = _backend(folder)
    yield from backend.entries(path.rstrip("/") + "/")


def stat(path: str) -> StoredFile:
    """Size and version of a file.

    Raises:
      FileNotFoundError, PermissionError.
    """
    backend, path = _backend(path)
    return backend.stat(path)


def exists(path: str) -> bool:
    """Whether there is such a file; a folder is none (Beam's file systems do not tell it from one)."""
    try:
        stat(path)
    except (FileNotFoundError, IsADirectoryError):
        return False
    return True


def open_input(path: str, known: StoredFile | None = None) -> BinaryIO:
    """A seekable stream of a file's bytes, never decompressed.

    Args:
      path: of the file.
      known: what a listing or ``stat`` told of it, which a bucket then is not asked for again; what is missing, or was
        replaced since, is noticed at the first read.

    Raises:
      FileNotFoundError, PermissionError.
    """
    backend, path = _backend(path)
    return backend.open_input(path, known)


def read_range(file: BinaryIO, start: int, size: int) -> bytes:
    """Some bytes of an open file; on a bucket no others are asked for. Fewer if the file ends before.

    Raises:
      OSError: it cannot be read.
    """
    raw = getattr(file, "raw", None)
    source: Any = raw if isinstance(raw, RangedFile) else file
    source.seek(start)
    parts = []
    while size > 0 and (part := source.read(size)):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def read_bytes(path: str) -> bytes:
    """All of a file.

    Raises:
      FileNotFoundError, PermissionError.
    """
    backend, path = _backend(path)
    return backend.read_bytes(path)


def read_part(path: str, start: int, size: int, version: str | None = None) -> bytes:
    """Bytes of a file, fewer if it ends there; in a bucket, by one request.

    Args:
      path: of the file.
      start, size: of the range.
      version: that ``stat`` or a listing has told, of which the file has to be still; None: whatever is there.

    Raises:
      FileNotFoundError, PermissionError.
      ReplacedError: it is of another version; a ``FileNotFoundError`` too.
    """
    if not size:
        return b""
    backend, path = _backend(path)
    return backend.read_part(path, start, size, version)


def get_file(path: str, local_path: Path) -> None:
    """Brings a copy of a file to this machine, a piece at a time; it may be of any size.

    Raises:
      FileNotFoundError, PermissionError.
    """
    backend, path = _backend(path)
    backend.get_file(path, local_path)


def write_bytes(path: str, data: bytes) -> None:
    """Writes a file; readers see the old content or the new one."""
    backend, path = _backend(path)
    backend.write_bytes(path, data)


def write_file(path: str, local_path: Path) -> None:
    """Writes a copy of a local file, which stays; readers see the old content or the new one."""
    with tempfile.TemporaryDirectory(prefix="tmp-") as folder:
        link = str(Path(folder) / "file")
        local.copy(str(local_path), link)
        put_file(link, path)


def create_if_absent(path: str, data: bytes) -> bool:
    """Writes a file unless there is one; of several writers one wins; on Azure (by Beam) all may.

    Returns:
      Whether this call has written the file, also when the answer to its first request was lost on the way. False if
      there was one already, even one with the same data.
    """
    backend, path = _backend(path)
    return backend.create_if_absent(path, data)


def put_file(local_path: str, path: str) -> None:
    """Brings a finished local file to its place, where readers see it whole or not at all; the source goes away."""
    backend, path = _backend(path)
    backend.put_file(local_path, path)


def copy(source: str, destination: str) -> None:
    """Copies a file within one backend; readers see all of the copy, or nothing.

    Raises:
      FileNotFoundError, PermissionError.
      ValueError: they are not within one backend.
    """
    backend, source, destination = _same_backend(source, destination)
    if source == destination:
        backend.stat(source)
        return
    backend.copy(source, destination)


def move_folder(source: str, destination: str) -> None:
    """Renames a local folder, to a place where nothing is.

    Raises:
      FileExistsError: there is something.
      FileNotFoundError: there is no such folder.
    """
    local.move_folder(absolute(source), absolute(destination))


def _same_backend(source: str, destination: str) -> tuple[Any, str, str]:
    backend, from_path = _backend(source)
    other, to_path = _backend(destination)
    if other is not backend or scheme(from_path) != scheme(to_path):
        raise ValueError(f"{source!r} and {destination!r} are in different storages")
    return backend, from_path, to_path


def move(source: str, destination: str) -> None:
    """Moves a file within one backend; nothing happens when it was moved already.

    On a local disk the new name outlives a power cut after ``sync_folder``, which many files need once.

    Raises:
      FileNotFoundError: neither of the two is there.
      ValueError: they are not within one backend.
    """
    backend, source, destination = _same_backend(source, destination)
    if source == destination:
        backend.stat(source)
        return
    backend.move(source, destination)


def move_all(moves: Mapping[str, str]) -> None:
    """Moves many files within one backend, each as ``move`` does it; on buckets many at a time.

    Args:
      moves: where each goes.

    Raises:
      FileNotFoundError: of a file neither the old place nor the new one holds it.
      ValueError: they are not within one backend.
    """
    for backend, pairs in _by_backend(moves).items():
        if backend in _BUCKETS:
            backend.move_all(pairs)
        else:
            _each(backend, backend.move, pairs.keys(), pairs.values())


def copy_all(copies: Mapping[str, str]) -> None:
    """Copies many files within one backend, on buckets many at a time; readers see all of a copy, or nothing.

    Args:
      copies: where each goes, which is another place.

    Raises:
      FileNotFoundError, PermissionError.
      ValueError: they are not within one backend.
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
    """Deletes many files, those that are there; on buckets many at a time."""
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
    """On a local disk one after the other; from afar some at a time, since each waits for answers."""
    if backend is local:
        for each in zip(*arguments, strict=True):
            do(*each)
        return
    with ThreadPoolExecutor(_THREADS) as threads:
        list(threads.map(do, *arguments))


def make_folder(path: str) -> None:
    """Makes a local folder and those above it; elsewhere there is nothing to make."""
    if is_local(path):
        local.make_folder(Path(absolute(path)))


def sync_folder(path: str) -> None:
    """Has the disk hold what was moved into a local folder before; elsewhere that is always so."""
    if is_local(path):
        local.sync_folder(Path(absolute(path)))


def delete(path: str) -> None:
    """Deletes a file, if it is there."""
    backend, path = _backend(path)
    backend.delete(path)


def delete_temporary(folder: str) -> None:
    """Deletes what writers of local files right below a folder have left that were killed; elsewhere none is left."""
    if is_local(folder):
        local.delete_temporary(absolute(folder))


def delete_tree(path: str) -> None:
    """Deletes a folder and everything below it, if it is there.

    Raises:
      ValueError: it is the root of a file system, or a whole bucket.
    """
    backend, path = _backend(path)
    backend.delete_tree(path)


def _backend(path: str) -> tuple[Any, str]:
    """The module that handles a path, and the path as it takes it."""
    kind = scheme(path)
    if kind in (None, "file"):
        return local, absolute(path)
    return {"gs": gcs, "s3": s3}.get(kind, beam), path
