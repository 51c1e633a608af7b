"""Checks the cache and the directory of temporary files: a launcher that cannot write them stops before any work."""

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
    """Checks that the cache can be written.

    A read-only cache that is not empty, such as one in a container image, is used as it is. If it lacks a module, the
    run fails before the work whose result the cache would keep.

    Raises:
      UsageError: the cache cannot be written and is empty.
      OSError: the cache's disk is full.
    """
    folder = cache_dir().absolute()
    if folder == NOWHERE:
        raise UsageError(
            "there is no home directory for the cache of compiled modules; set BEAMLABEL_CACHE to a directory"
        )
    try:
        check_writable("the cache", str(folder), is_folder=True)
    except UsageError as error:
        if _holds_something(folder):
            return
        raise UsageError(f"{error}; set BEAMLABEL_CACHE to another directory") from error
    folder.mkdir(parents=True, exist_ok=True)
    _probe(str(folder))


def _holds_something(folder: Path) -> bool:
    try:
        return any(folder.iterdir())
    except OSError:
        return False


def check_scratch() -> None:
    """Checks that temporary files can be written.

    Raises:
      UsageError: no directory for temporary files can be written.
      OSError: the disk is full.
    """
    try:
        folder = tempfile.gettempdir()
    except FileNotFoundError as error:
        raise UsageError(
            f"no temporary file can be written ({error.strerror}); set TMPDIR to a directory for them"
        ) from error
    _probe(folder)


def _probe(folder: str) -> None:
    """Writes a few bytes: a full disk may have room for a file name, but not for content."""
    try:
        # Unbuffered, so that the error comes from the write and not from closing the file.
        with tempfile.TemporaryFile(prefix="probe-", dir=folder, buffering=0) as file:
            left = _PROBE_BYTES
            while left:
                left -= file.write(bytes(left))
    except OSError as error:
        error.filename = folder
        raise
