"""One run at a time into one output.

A local output is locked by the system (``flock``), which frees the lock of a process that is gone. On ``gs://``
the lock is an object, created on the condition that there is none, written anew every 30 seconds by whoever holds
it, and taken over, on the condition that nobody else did, when that has not happened for 5 minutes or when its
holder was a process of this machine and is gone. On other file systems nothing guards.
"""

from __future__ import annotations

import dataclasses
import errno
import fcntl
import hashlib
import json
import logging
import os
import signal
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path

from beamlabel.pipeline import layout
from beamlabel.pipeline.errors import UsageError
from beamlabel.pipeline.process.process_id import ProcessId
from beamlabel.transforms import storage
from beamlabel.transforms.storage import gcs
from beamlabel.transforms.storage.errors import is_mistake
from beamlabel.transforms.storage.uris import scheme

RENEW_SECONDS = 30.0
STALE_SECONDS = 300.0
# For so long after it was renewed a lock is ours, whatever the clock of somebody who looks at it.
_SURE_SECONDS = 240.0
_RELEASE_SECONDS = 2.0

_LOGGER = logging.getLogger("beamlabel")


class OutputLockedError(Exception):
    """Another run is at work on the output, or was a moment ago. The message says which."""


@contextmanager
def locked(output: str) -> Iterator[Lock]:
    """Holds the lock of an output, which it yields.

    Args:
      output: absolute path or URI.

    Raises:
      OutputLockedError: another run holds it, or, in the end, has taken it over meanwhile.
      UsageError: the lock cannot be written.
    """
    try:
        lock = _take(output)
    except OSError as error:
        if not is_mistake(error):
            raise
        raise UsageError(f"--output {output!r}: {error}") from error
    try:
        yield lock
    except BaseException as error:
        if lock.is_lost:
            raise OutputLockedError(
                f"another run has taken over {output}, whose lock was not renewed in time"
            ) from error
        raise
    finally:
        lock.release()


class Lock(ABC):
    """The lock of an output.

    Attributes:
      is_lost: whether another run may hold it by now.
    """

    is_lost = False

    def check(self) -> None:
        """Before what only its holder may do; raises ``OutputLockedError``."""
        if self.is_lost:
            raise OutputLockedError("the lock of the output was lost")

    @abstractmethod
    def release(self) -> None:
        """Gives it up."""


def _take(output: str) -> Lock:
    if storage.is_local(output):
        return _FileLock(output)
    return _Lease(storage.join(output, layout.LOCK)) if scheme(output) == "gs" else _NoLock()


class _NoLock(Lock):
    def release(self) -> None:
        """Nothing is held."""


class _FileLock(Lock):
    """A lock on a local file, by the system."""

    def __init__(self, output: str) -> None:
        self._path = _lock_file(output)
        self._made = [folder for folder in self._path.parents if not folder.exists()]
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file = _open_locked(self._path, output)
        os.truncate(self._file, 0)
        os.write(self._file, _describe(ProcessId.own()))

    def release(self) -> None:
        self._path.unlink(missing_ok=True)
        os.close(self._file)
        for folder in self._made:
            with suppress(OSError):
                folder.rmdir()  # where nothing came of the run


def _lock_file(output: str) -> Path:
    """Beside the output, which may not exist before it is published; in it, where that cannot be written."""
    beside = Path(output)
    if os.access(beside.parent, os.W_OK) or not beside.is_dir():
        digest = hashlib.sha256(beside.name.encode("utf-8", "surrogateescape")).hexdigest()
        return beside.parent / f"{layout.LOCK}-{digest[:12]}"
    return beside / layout.LOCK


def _open_locked(path: Path, output: str) -> int:
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Whoever held it before deletes the file: then this is the lock of nothing.
            if os.fstat(file).st_nlink:
                return file
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES):
                os.close(file)
                raise
            holder = _holder(os.pread(file, 10_000, 0))
            os.close(file)
            raise OutputLockedError(_message(output, holder)) from None
        except BaseException:
            os.close(file)
            raise
        os.close(file)


class _Lease(Lock):
    """A lock on ``gs://``, renewed by a thread."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._generation = _take_object(path)
        self._renewed_at = time.monotonic()
        self._released = threading.Event()
        self.is_lost = False
        self._thread = threading.Thread(target=self._keep, name="lock", daemon=True)
        self._thread.start()

    def release(self) -> None:
        self._released.set()
        # A renewal that hangs is left alone: the lock goes stale by itself.
        self._thread.join(_RELEASE_SECONDS)
        if self.is_lost or self._thread.is_alive():
            return
        try:
            gcs.delete_generation(self._path, self._generation)
        except OSError as error:
            _LOGGER.warning(
                "the lock %s could not be deleted, and goes stale by itself: %s", self._path, error
            )

    def check(self) -> None:
        """As of any lock; and it is as good as lost where it was not renewed for too long."""
        self.is_lost = self.is_lost or time.monotonic() - self._renewed_at > _SURE_SECONDS
        super().check()

    def _keep(self) -> None:
        while not self._released.wait(RENEW_SECONDS):
            if not self._renew():
                self.is_lost = True
                os.kill(os.getpid(), signal.SIGTERM)  # as an orchestrator would end the run
                return

    def _renew(self) -> bool:
        try:
            generation = gcs.exchange(self._path, _describe(ProcessId.own()), self._generation)
        except OSError as error:
            _LOGGER.warning("the lock %s could not be renewed: %s", self._path, error)
            return time.monotonic() - self._renewed_at < _SURE_SECONDS
        if generation is None:
            return False
        self._generation, self._renewed_at = generation, time.monotonic()
        return True


def _take_object(path: str) -> int:
    """Generation of the lock, which is ours now."""
    mine = _describe(ProcessId.own())
    generation = gcs.exchange(path, mine, 0)
    if generation is not None:
        return generation
    try:
        found = gcs.read_object(path)
    except FileNotFoundError:
        return _take_object(path)  # released meanwhile
    holder = _holder(found.data)
    age = time.time() - found.updated_at
    if age > STALE_SECONDS or (holder is not None and holder.is_dead()):
        generation = gcs.exchange(path, mine, found.generation)
        if generation is not None:
            _LOGGER.warning("took over the lock of a run that is gone: %s", _name(holder))
            return generation
    raise OutputLockedError(f"{_message(path.rpartition('/')[0], holder)}, renewed {max(age, 0):.0f} s ago")


def _describe(process: ProcessId) -> bytes:
    return json.dumps(dataclasses.asdict(process)).encode()


def _holder(data: bytes) -> ProcessId | None:
    try:
        return ProcessId(**json.loads(data))
    except (ValueError, TypeError):
        return None


def _message(output: str, holder: ProcessId | None) -> str:
    return f"another run is at work on {output}: {_name(holder)}"


def _name(holder: ProcessId | None) -> str:
    if holder is None:
        return "one that does not say who it is"
    started = datetime.fromtimestamp(holder.started_at, timezone.utc).isoformat(timespec="seconds")
    return f"host {holder.host}, pid {holder.pid}, started {started}"
