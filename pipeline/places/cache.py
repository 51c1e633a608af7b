"""The cache and the folder of temporary files: a launcher that cannot write them does no work at all."""

from __future__ import annotations

import tempfile
from pathlib import Path

from beamlabel.pipeline.errors import UsageError
from beamlabel.pipeline.places.local import check_writable
from beamlabel.transforms.storage.host_cache import NOWHERE, cache_dir

_PROBE_BYTES = 1 << 16


def check_kept() -> None:
    """``check_cache`` and ``check_scratch``."""
    check_cache()
    check_scratch()


def check_cache() -> None:
    """Tries whether modules and artifacts can be kept.

    A cache that cannot be written and holds something, as one that came with a container's image, is used as it is;
    what it does not hold is an error before the work that it would have to keep.

    Raises:
      UsageError: the cache cannot be written, and nothing is in it.
      OSError: its disk is full.
    """
    folder = cache_dir().absolute()
    if folder == NOWHERE:
        raise UsageError(
            "there is no home folder to keep compiled modules in: BEAMLABEL_CACHE names a folder"
        )
    try:
        check_writable("the cache", str(folder), is_folder=True)
    except UsageError as error:
        if _holds_something(folder):
            return
        raise UsageError(f"{error}; BEAMLABEL_CACHE names another folder") from error
    folder.mkdir(parents=True, exist_ok=True)
    _probe(str(folder))


def _holds_something(folder: Path) -> bool:
    try:
        return any(folder.iterdir())
    except OSError:
        return False


def check_scratch() -> None:
    """Tries whether temporary files can be written.

    Raises:
      UsageError: there is no folder for them.
      OSError: their disk is full.
    """
    try:
        folder = tempfile.gettempdir()
    except FileNotFoundError as error:
        raise UsageError(
            f"no temporary file can be written: TMPDIR names a folder for them ({error.strerror})"
        ) from error
    _probe(folder)


def _probe(folder: str) -> None:
    """Writes a little, for disks that have room for a name and for nothing in it."""
    try:
        # Without a buffer, so that closing it has nothing left to fail on.
        with tempfile.TemporaryFile(prefix="probe-", dir=folder, buffering=0) as file:
            left = _PROBE_BYTES
            while left:
                left -= file.write(bytes(left))
    except OSError as error:
        error.filename = folder
        raise
