"""Downloads a hub's module into a cache that is shared with tensorflow-hub, atomically.

All users of tensorflow-hub follow its protocol: one process creates a lock file and downloads into a temporary
directory, which is then renamed; the others wait, and remove a lock without progress. beamlabel does the download.
"""

from __future__ import annotations

import logging
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from beamlabel.transforms.inference.artifact import ModuleError
from beamlabel.transforms.inference.lazy_tensorflow import tensorflow, tensorflow_hub
from beamlabel.transforms.secrets.logs import get_logger

# Not below `beamlabel.transforms`: `inspect` holds back the records of that logger until the end.
_LOGGER = get_logger("beamlabel.hub")
# tensorflow-hub checks a lock every 5 s, and removes it after two periods of this many seconds without progress, so
# within a minute.
_SILENCE_SECONDS = 24.0
# Part of tensorflow-hub's message about the lock of another process, which gets an addition.
_WAITING = "already being downloaded by"
_HOW_LONG = " If no bytes arrive there for a minute, its lock is removed and the download starts here."


def fetch_to_shared(handle: str, directory: Path, download: Callable[[Path], None]) -> None:
    """Creates a module's directory, unless another process creates it meanwhile; imports TensorFlow.

    Args:
      handle: handle for the log and for ``DIR.descriptor.txt``, without credentials.
      directory: directory, as tensorflow-hub names it. It is not changed if it is not empty.
      download: fills an empty directory.

    Raises:
      ModuleError: tensorflow-hub or TensorFlow is not installed, or the cache cannot be written. No files are left
        then, nor if ``download`` raises.
    """
    errors = tensorflow().errors
    hub = tensorflow_hub()
    directory.parent.mkdir(parents=True, exist_ok=True)
    try:
        with _in_our_log():
            hub.resolver.atomic_download(
                handle, lambda _, partial: download(Path(partial)), str(directory), _SILENCE_SECONDS
            )
    except errors.OpError as error:
        if not directory.is_dir():  # else another process was faster
            raise ModuleError(f"{directory.parent} cannot be written: {error.message}") from error


def inode(directory: Path) -> int | None:
    """Identifies the directory that has this name now; None if there is none."""
    try:
        return directory.lstat().st_ino
    except OSError:
        return None


def take_away(directory: Path, number: int | None) -> None:
    """Removes a damaged directory, but not a later one that another process has put in its place.

    Args:
      directory: directory of a cache.
      number: its ``inode`` before the check.

    Raises:
      ModuleError: the directory cannot be removed, since the cache is read-only.
    """
    if number is None:
        return
    aside = directory.with_name(f"{directory.name}.{uuid.uuid4().hex}.tmp")
    try:
        directory.rename(aside)
    except FileNotFoundError:  # another process has removed it
        return
    except OSError as error:
        raise ModuleError(f"{directory} is damaged and cannot be replaced: {error.strerror}") from error
    with suppress(OSError):
        if aside.lstat().st_ino != number:
            aside.rename(directory)
        elif aside.is_symlink() or not aside.is_dir():
            aside.unlink()
        else:
            shutil.rmtree(aside, ignore_errors=True)


class _Ours(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if _WAITING in message:
            message += _HOW_LONG
        _LOGGER.log(record.levelno, "%s", message)


@contextmanager
def _in_our_log() -> Iterator[None]:
    """Sends tensorflow-hub's messages, such as the owner of a lock, to our log: its own log shows fewer."""
    theirs, ours = logging.getLogger("absl"), _Ours()
    before = theirs.level
    theirs.addHandler(ours)
    theirs.setLevel(logging.INFO)
    theirs.propagate = False
    try:
        yield
    finally:
        theirs.setLevel(before)
        theirs.propagate = True
        theirs.removeHandler(ours)
