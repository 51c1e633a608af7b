"""Downloads a hub's module into a cache that is shared with tensorflow-hub, at once or not at all.

tensorflow-hub has the protocol that all its users follow: one takes a lock file and downloads into a directory of its
own, which is then renamed; the others wait, and remove a lock behind which nothing happens. The download is ours.
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

# Not below `beamlabel.transforms`, whose records `inspect` holds back until the end.
_LOGGER = get_logger("beamlabel.hub")
# tensorflow-hub looks every 5 s, and removes a lock when it finds for the second time that nothing came for so long:
# within a minute.
_SILENCE_SECONDS = 24.0
# A part of tensorflow-hub's message about the lock of another process, and an addition to it.
_WAITING = "already being downloaded by"
_HOW_LONG = " If no bytes arrive there for a minute, its lock is removed and the download starts here."


def fetch_to_shared(handle: str, folder: Path, download: Callable[[Path], None]) -> None:
    """Creates a module's directory, unless another process does so meanwhile; imports TensorFlow.

    Args:
      handle: for the log, and for ``FOLDER.descriptor.txt``; without credentials.
      folder: as tensorflow-hub names it. If it holds something, it stays as it is.
      download: fills an empty directory.

    Raises:
      ModuleError: tensorflow-hub or TensorFlow is not installed, or the cache cannot be written. Nothing is left then,
        nor if ``download`` raises.
    """
    errors = tensorflow().errors
    hub = tensorflow_hub()
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        with _in_our_log():
            hub.resolver.atomic_download(
                handle, lambda _, partial: download(Path(partial)), str(folder), _SILENCE_SECONDS
            )
    except errors.OpError as error:
        if not folder.is_dir():  # else another process was faster, between this one's check and its rename
            raise ModuleError(f"{folder.parent} cannot be written: {error.message}") from error


def inode(folder: Path) -> int | None:
    """Identifies the directory that has this name now; None if there is none."""
    try:
        return folder.lstat().st_ino
    except OSError:
        return None


def take_away(folder: Path, number: int | None) -> None:
    """Removes a damaged directory, but not one that another process has put into its place since.

    Args:
      folder: of a cache.
      number: its ``inode`` before it was checked.

    Raises:
      ModuleError: it has to stay, since the cache is read-only.
    """
    if number is None:
        return
    aside = folder.with_name(f"{folder.name}.{uuid.uuid4().hex}.tmp")
    try:
        folder.rename(aside)
    except FileNotFoundError:  # another process has removed it
        return
    except OSError as error:
        raise ModuleError(f"{folder} is damaged and cannot be replaced: {error.strerror}") from error
    with suppress(OSError):
        if aside.lstat().st_ino != number:
            aside.rename(folder)
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
    """Sends the messages of tensorflow-hub to our log, such as whose lock it waits for: its own shows fewer."""
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
