"""A hub's module → a folder of a cache that others share by tensorflow-hub; it is there at once or not at all.

tensorflow-hub does what all have to do in one way: one downloads, by a lock file, into a folder of its own, which is
renamed; the others wait, and take a lock away if nothing happens behind it. What is downloaded, and how, is ours.
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

# Not below `beamlabel.transforms`, whose words `inspect` keeps to itself until the end.
_LOGGER = get_logger("beamlabel.hub")
# tensorflow-hub looks every 5 s, and takes a lock away when it has found for the second time that for so long nothing
# came: within a minute.
_SILENCE_SECONDS = 24.0
# What tensorflow-hub says of another process's lock, and what it does not say.
_WAITING = "already being downloaded by"
_HOW_LONG = " If no bytes arrive there for a minute, its lock is removed and the download starts here."


def fetch_to_shared(handle: str, folder: Path, download: Callable[[Path], None]) -> None:
    """Makes a module's folder, unless another process does so meanwhile; imports TensorFlow.

    Args:
      handle: for the log, and for ``FOLDER.descriptor.txt``; without credentials.
      folder: as tensorflow-hub names it. If something is in it, it stays as it is.
      download: fills an empty folder.

    Raises:
      ModuleError: tensorflow-hub or TensorFlow is not installed, or the cache cannot be written. Nothing is left then,
        and nothing if ``download`` raises.
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
        if not folder.is_dir():  # else another one was faster, in the moment between its look and its rename
            raise ModuleError(f"{folder.parent} cannot be written: {error.message}") from error


def inode(folder: Path) -> int | None:
    """Which folder it is that has this name now; None if there is none."""
    try:
        return folder.lstat().st_ino
    except OSError:
        return None


def take_away(folder: Path, number: int | None) -> None:
    """Removes a folder that was found to be damaged, but not one that another process has put into its place since.

    Args:
      folder: of a cache.
      number: its ``inode`` before it was looked at.

    Raises:
      ModuleError: it has to stay, since the cache may only be read.
    """
    if number is None:
        return
    aside = folder.with_name(f"{folder.name}.{uuid.uuid4().hex}.tmp")
    try:
        folder.rename(aside)
    except FileNotFoundError:  # another one has taken it away
        return
    except OSError as error:
        raise ModuleError(f"{folder} is damaged, and cannot be replaced: {error.strerror}") from error
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
    """Has our log tell what tensorflow-hub says, such as for whom it waits: to its own it would say less."""
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
