"""Allows only one run at a time into an output.

A local output has a system lock, see ``file_lock``, and an output on ``gs://`` an object as its lock, see ``lease``.
Outputs on other file systems have no lock.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from beamlabel.pipeline import layout
from beamlabel.pipeline.errors import UsageError
from beamlabel.pipeline.output import staging
from beamlabel.pipeline.output.file_lock import FileLock
from beamlabel.pipeline.output.holder import Lock, OutputLockedError
from beamlabel.pipeline.output.lease import Lease
from beamlabel.transforms import storage
from beamlabel.transforms.storage.errors import is_user_error
from beamlabel.transforms.storage.uris import scheme

__all__ = ["Lock", "OutputLockedError", "locked"]


@contextmanager
def locked(output: str) -> Iterator[Lock]:
    """Holds and yields the lock of an output.

    Args:
      output: absolute path or URI.

    Raises:
      OutputLockedError: another run holds it, or has taken it over by the end.
      UsageError: the lock cannot be written, or a file of another program is in its place.
    """
    try:
        lock = _take(output)
    except OSError as error:
        if not is_user_error(error):
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


def _take(output: str) -> Lock:
    if storage.is_local(output):
        return FileLock(output)
    if scheme(output) == "gs":
        return Lease(storage.join(staging.inside(output), layout.LOCK))
    return _NoLock()


class _NoLock(Lock):
    def release(self) -> None:
        """Does nothing, because no lock is held."""
