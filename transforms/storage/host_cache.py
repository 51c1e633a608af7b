"""The staged artifact on a worker host: fetched once, verified, shared by the host's processes.

A remote artifact is kept under its SHA-256 in the per-user cache. Of the processes that want it at a time one
fetches it, under a file lock, and the others wait; each verifies what it opens. The system frees the lock of a
process that is killed. The folder is bounded: the least recently used goes first, and nothing that a live
process has opened.
"""

from __future__ import annotations

import hashlib
import logging
import mmap
import os
import threading
from pathlib import Path
from typing import NamedTuple, TypeAlias

import platformdirs
from fasteners import InterProcessLock, InterProcessReaderWriterLock

from beamlabel.transforms import storage
from beamlabel.transforms.storage.errors import ChecksumError

# Of the compiled models that a host keeps; one is 2 to 200 MB.
MAX_BYTES = 4 << 30
_FOLDER = "staged"
_PARTIAL = ".partial"

Content: TypeAlias = "bytes | mmap.mmap"


class LocalArtifact(NamedTuple):
    """What ``open_artifact`` gives.

    Attributes:
      content: all of it; mapped, where it lies in a file.
      path: that file, of this machine; None where it is in memory alone.
    """

    content: Content
    path: Path | None


_LOGGER = logging.getLogger(__name__)
# The locks of a file exclude other processes, but not threads of this one; and a process that closes one of
# two handles of a file has lost its locks on both.
_threads = threading.Lock()
_in_use: dict[Path, InterProcessReaderWriterLock] = {}
_warned = False
# A process that fetches the artifact and hangs must not hold up the others for ever.
_LOCK_SECONDS = 300.0


def cache_dir() -> Path:
    """The per-user cache of modules and artifacts; ``BEAMLABEL_CACHE`` overrides it."""
    return Path(os.environ.get("BEAMLABEL_CACHE") or platformdirs.user_cache_dir("beamlabel"))


def open_artifact(path: str, sha256: str, *, max_bytes: int = MAX_BYTES) -> LocalArtifact:
    """The artifact, in a file of this machine if that can be.

    A local file is opened in place. A remote one is fetched into the cache, unless it is there; where the cache
    cannot be written, which is said once, into memory.

    Args:
      path: the file, local or remote.
      sha256: of the file, in hex, as the launcher saw it.
      max_bytes: of the cache.

    Raises:
      ChecksumError: these are other bytes than the launcher staged.
      OSError: the staged file cannot be read.
    """
    if storage.is_local(path):
        file = Path(storage.absolute(path))
        return LocalArtifact(_verified(_mapped(file), sha256, path), file)
    folder = cache_dir() / _FOLDER
    with _threads:
        lock = _lock_for(folder, sha256)
        if lock is None:
            return LocalArtifact(_verified(storage.read_bytes(path), sha256, path), None)
        try:
            artifact = _from_cache(folder, path, sha256)
        finally:
            lock.release()
        _evict(folder, max_bytes)
    return artifact


def _from_cache(folder: Path, path: str, sha256: str) -> LocalArtifact:
    """Under the artifact's lock: the cached file, fetched if it is missing or other than it should be."""
    file = folder / sha256
    content = _cached(file)
    if content is None:
        fetched = _verified(storage.read_bytes(path), sha256, path)
        try:
            partial = file.with_name(sha256 + _PARTIAL)
            partial.write_bytes(fetched)
            # Who has the damaged one open keeps its own.
            partial.replace(file)
            content = _mapped(file)
        except OSError as error:
            _warn(folder, error)
            return LocalArtifact(fetched, None)
    _use(file)
    return LocalArtifact(content, file)


def _cached(file: Path) -> Content | None:
    try:
        content = _mapped(file)
    except FileNotFoundError:
        return None
    if hashlib.sha256(content).hexdigest() == file.name:
        return content
    _LOGGER.warning("%s is damaged: it is fetched anew", file)
    return None


def _mapped(file: Path) -> Content:
    with file.open("rb") as opened:
        if os.fstat(opened.fileno()).st_size == 0:
            return b""  # cannot be mapped
        return mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)


def _verified(content: Content, sha256: str, path: str) -> Content:
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise ChecksumError(
            f"compiled model {path}: its SHA-256 is {found}, the launcher staged {sha256}; "
            "was it replaced or cut short?"
        )
    return content


def _lock_for(folder: Path, sha256: str) -> InterProcessLock | None:
    """The artifact's lock, held; None where there can be none."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = InterProcessLock(folder / f"{sha256}.lock")
        if not lock.acquire(timeout=_LOCK_SECONDS):
            _warn(folder, TimeoutError(f"another process has held {sha256}.lock for {_LOCK_SECONDS:.0f} s"))
            return None
    except (OSError, RuntimeError) as error:  # fasteners raises the second where a file system has no locks
        _warn(folder, error)
        return None
    return lock


def _use(file: Path) -> None:
    """Marks a file as used now, and as in use as long as this process lives."""
    try:
        os.utime(file)
        if file not in _in_use:
            mark = InterProcessReaderWriterLock(f"{file}.use")
            mark.acquire_read_lock()
            _in_use[file] = mark
    except (OSError, RuntimeError) as error:
        _warn(file.parent, error)


def _evict(folder: Path, max_bytes: int) -> None:
    """Deletes what was not used for the longest time until the rest fits, but nothing that is in use."""
    try:
        files = [file for file in folder.iterdir() if file.suffix in ("", _PARTIAL)]
        states = sorted((state.st_mtime_ns, state.st_size, file) for file in files if (state := _stat(file)))
        excess = sum(size for _, size, _ in states) - max_bytes
        for _, size, file in states:
            if excess <= 0:
                return
            if _delete_unused(folder / file.stem):
                excess -= size
    except (OSError, RuntimeError) as error:
        _warn(folder, error)


def _stat(file: Path) -> os.stat_result | None:
    try:
        return file.stat()
    except FileNotFoundError:  # another process evicted it
        return None


def _delete_unused(file: Path) -> bool:
    """Deletes a cached file and what a killed fetch left of it, unless a process fetches it or has it in use."""
    if file in _in_use:
        return False
    lock, mark = InterProcessLock(f"{file}.lock"), InterProcessReaderWriterLock(f"{file}.use")
    if not lock.acquire(blocking=False):
        return False
    try:
        if not mark.acquire_write_lock(blocking=False):
            return False
        file.unlink(missing_ok=True)
        file.with_name(file.name + _PARTIAL).unlink(missing_ok=True)
        mark.release_write_lock()
        return True
    finally:
        lock.release()


def _warn(folder: Path, error: Exception) -> None:
    global _warned
    if not _warned:
        _warned = True
        _LOGGER.warning(
            "no cache of compiled models in %s (%s): this process holds its own in memory; "
            "BEAMLABEL_CACHE names another folder",
            folder,
            error,
        )
