"""Staged files on a worker host, fetched and hashed once and shared by the host's processes through ``mmap``.

A remote file is stored under its SHA-256 in the per-user cache. One process at a time fetches it, under a file lock and
a piece at a time, while the others wait. After hashing a large file a process writes a stamp of its inode, size and
times, and of the system's boot; while the stamp matches, no process hashes the file again. A file that was changed or
truncated is hashed again, found damaged, and fetched again. The system releases the lock of a killed process. The cache
is bounded: the least recently used file is evicted first, except files that a live process has open.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import threading
from pathlib import Path
from typing import BinaryIO, NamedTuple, TypeAlias

import platformdirs
from fasteners import InterProcessLock, InterProcessReaderWriterLock

from beamlabel.transforms import storage
from beamlabel.transforms.secrets.logs import get_logger
from beamlabel.transforms.storage.errors import ChecksumError

# Bytes of compiled models and indexes per host. A model has 2 to 200 MB, an index at least 16 bytes per image.
MAX_BYTES = 4 << 30
_DIRECTORY = "staged"
_PARTIAL = ".partial"
_STAMP = ".stamp"
# Bytes. Every process hashes smaller files, which takes a millisecond.
_STAMPED_BYTES = 1 << 20
_BLOCK_BYTES = 1 << 20
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")

Content: TypeAlias = "bytes | mmap.mmap"


class LocalArtifact(NamedTuple):
    """The result of ``open_artifact``.

    Attributes:
      content: bytes of the file; memory-mapped if it is local.
      path: path of the local file; None if the content is in memory only.
    """

    content: Content
    path: Path | None


_LOGGER = get_logger(__name__)
# File locks exclude other processes, but not threads of this one; and a process that closes one of two handles of a
# file loses its locks on both.
_threads = threading.Lock()
_in_use: dict[Path, InterProcessReaderWriterLock] = {}
_warned = False
# Seconds. A process that hangs while it fetches the artifact must not block the others forever.
_LOCK_SECONDS = 300.0


NOWHERE = Path(os.devnull) / "beamlabel"
"""A directory that cannot be created."""


def cache_dir() -> Path:
    """The per-user cache of modules and artifacts; ``BEAMLABEL_CACHE`` overrides it.

    ``NOWHERE`` for a user without a home directory, since ``~`` would become a directory with that name.
    """
    try:
        if named := os.environ.get("BEAMLABEL_CACHE"):
            return Path(named).expanduser()
        found = platformdirs.user_cache_path("beamlabel")
    except RuntimeError:  # no home directory; older versions of platformdirs keep the tilde
        return NOWHERE
    return found if found.is_absolute() else NOWHERE


def open_artifact(path: str, sha256: str, *, max_bytes: int = MAX_BYTES) -> LocalArtifact:
    """Opens a staged file, such as the artifact, from a local file if possible.

    A local file is opened in place. A remote file is fetched into the cache unless it is there, or into memory if the
    cache cannot be written, with one warning.

    Args:
      path: the file, local or remote.
      sha256: SHA-256 of the file that the launcher staged, in hex.
      max_bytes: size limit of the cache.

    Raises:
      ChecksumError: The bytes differ from those that the launcher staged.
      OSError: The staged file cannot be read.
    """
    directory = cache_dir() / _DIRECTORY
    if storage.is_local(path):
        file = Path(storage.absolute(path))
        return LocalArtifact(_in_place(file, directory, sha256, path), file)
    with _threads:
        lock = _lock_for(directory, sha256)
        if lock is None:
            return LocalArtifact(_in_memory(path, sha256), None)
        try:
            artifact = _from_cache(directory, path, sha256)
        finally:
            lock.release()
        _evict(directory, max_bytes)
    return artifact


def _in_place(file: Path, directory: Path, sha256: str, path: str) -> Content:
    """Maps a local file; one process at a time hashes a large one."""
    if file.stat().st_size < _STAMPED_BYTES:
        return _verified(_mapped(file, sha256, None), sha256, path)
    with _threads:
        lock = _lock_for(directory, sha256)
        try:
            place = hashlib.sha256(os.fsencode(file)).hexdigest()[:16]
            stamp = None if lock is None else directory / f"{sha256}-{place}{_STAMP}"
            return _verified(_mapped(file, sha256, stamp), sha256, path)
        finally:
            if lock is not None:
                lock.release()


def _from_cache(directory: Path, path: str, sha256: str) -> LocalArtifact:
    """The cached file, fetched if it is missing or damaged; the caller holds the artifact's lock."""
    file = directory / sha256
    try:
        content = _cached(file)
        if content is None:
            _fetch(path, file, sha256)
            content = _verified(_mapped(file, sha256, _stamp(file)), sha256, path)
    except OSError as error:
        if error.filename == path:
            raise
        _warn(directory, error)
        return LocalArtifact(_in_memory(path, sha256), None)
    _use(file)
    return LocalArtifact(content, file)


def _fetch(path: str, file: Path, sha256: str) -> None:
    partial = file.with_name(sha256 + _PARTIAL)
    try:
        storage.get_file(path, partial)
        with partial.open("rb") as fetched:
            if (found := _sha256(fetched)) != sha256:
                raise _other_bytes(path, found, sha256)
            os.fsync(fetched.fileno())
            # A process with an open damaged file keeps that file.
            partial.replace(file)
            _write_stamp(_stamp(file), os.fstat(fetched.fileno()))
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def _cached(file: Path) -> Content | None:
    try:
        found = _mapped(file, file.name, _stamp(file))
    except FileNotFoundError:
        return None
    if isinstance(found, str):
        _LOGGER.warning("%s is damaged and is fetched again", file)
        return None
    return found


def _mapped(file: Path, sha256: str, stamp: Path | None) -> Content | str:
    """The content of a file if its SHA-256 is right, else its SHA-256.

    Hashing reads the file and not the map, since the map's pages would count as this process's memory.
    """
    with file.open("rb") as opened:
        state = os.fstat(opened.fileno())
        if stamp is None or not _is_stamped(stamp, state):
            if (found := _sha256(opened)) != sha256:
                return found
            if stamp is not None:
                _write_stamp(stamp, state)
        if state.st_size == 0:
            return b""  # cannot be mapped
        return mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)


def _sha256(file: BinaryIO) -> str:
    digest = hashlib.sha256()
    while block := file.read(_BLOCK_BYTES):
        digest.update(block)
    return digest.hexdigest()


def _stamp(file: Path) -> Path:
    return file.with_name(file.name + _STAMP)


def _is_stamped(stamp: Path, state: os.stat_result) -> bool:
    try:
        return state.st_size >= _STAMPED_BYTES and stamp.read_text() == _told(state)
    except (OSError, UnicodeDecodeError):
        return False


def _write_stamp(stamp: Path, state: os.stat_result) -> None:
    """Writes the stamp; an incomplete or missing stamp only costs another hash."""
    if state.st_size >= _STAMPED_BYTES:
        try:
            stamp.write_text(_told(state))
        except OSError as error:
            _LOGGER.debug("%s cannot be written: %s", stamp, error)


def _told(state: os.stat_result) -> str:
    """The text of a stamp, which changes if the file is written, replaced or restored, or the system restarts."""
    try:
        boot = _BOOT_ID.read_text().strip()
    except OSError:
        boot = ""
    times = f"{state.st_mtime_ns} {state.st_ctime_ns}"
    return f"{state.st_dev} {state.st_ino} {state.st_size} {times} {boot}."


def _in_memory(path: str, sha256: str) -> bytes:
    content = storage.read_bytes(path)
    if (found := hashlib.sha256(content).hexdigest()) != sha256:
        raise _other_bytes(path, found, sha256)
    return content


def _verified(content: Content | str, sha256: str, path: str) -> Content:
    if isinstance(content, str):
        raise _other_bytes(path, content, sha256)
    return content


def _other_bytes(path: str, found: str, sha256: str) -> ChecksumError:
    return ChecksumError(
        f"staged file {path}: its SHA-256 is {found}, but the launcher staged {sha256}; "
        "was it replaced or cut short?"
    )


def _lock_for(directory: Path, sha256: str) -> InterProcessLock | None:
    """Acquires the artifact's lock; None if that is impossible."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock = InterProcessLock(directory / f"{sha256}.lock")
        if not lock.acquire(timeout=_LOCK_SECONDS):
            _warn(
                directory, TimeoutError(f"another process has held {sha256}.lock for {_LOCK_SECONDS:.0f} s")
            )
            return None
    except (OSError, RuntimeError) as error:  # fasteners raises RuntimeError if a file system has no locks
        _warn(directory, error)
        return None
    return lock


def _use(file: Path) -> None:
    """Marks a file as used now, and as in use for the life of this process."""
    try:
        if file not in _in_use:
            mark = InterProcessReaderWriterLock(f"{file}.use")
            mark.acquire_read_lock()
            _in_use[file] = mark
        os.utime(f"{file}.use")  # not the file itself, since its stamp holds its times
    except (OSError, RuntimeError) as error:
        _warn(file.parent, error)


def _evict(directory: Path, max_bytes: int) -> None:
    """Deletes the least recently used files until the rest fits, except files in use."""
    try:
        files = [file for file in directory.iterdir() if file.suffix in ("", _PARTIAL)]
        states = sorted((_used_at(file), state.st_size, file) for file in files if (state := _stat(file)))
        excess = sum(size for _, size, _ in states) - max_bytes
        for _, size, file in states:
            if excess <= 0:
                return
            if _delete_unused(directory / file.stem):
                excess -= size
    except (OSError, RuntimeError) as error:
        _warn(directory, error)


def _used_at(file: Path) -> int:
    found = _stat(file.with_name(f"{file.stem}.use")) or _stat(file)
    return found.st_mtime_ns if found else 0


def _stat(file: Path) -> os.stat_result | None:
    try:
        return file.stat()
    except FileNotFoundError:  # another process evicted it
        return None


def _delete_unused(file: Path) -> bool:
    """Deletes a cached file and the remains of a killed fetch, unless a process is fetching or using the file."""
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
        _stamp(file).unlink(missing_ok=True)
        mark.release_write_lock()
        return True
    finally:
        lock.release()


def _warn(directory: Path, error: Exception) -> None:
    global _warned
    if not _warned:
        _warned = True
        _LOGGER.warning(
            "%s cannot cache compiled models (%s), so this process holds them in memory; "
            "set BEAMLABEL_CACHE to another directory",
            directory,
            error,
        )
