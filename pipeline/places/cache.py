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
    directory = cache_dir().absolute()
    if directory == NOWHERE:
        raise UsageError(
            "there is no home directory for the cache of compiled modules; set BEAMLABEL_CACHE to a directory"
        )
    try:
        check_writable("the cache", str(directory), is_directory=True)
    except UsageError as error:
        if _holds_something(directory):
            return
        raise UsageError(f"{error}; set BEAMLABEL_CACHE to another directory") from error
    directory.mkdir(parents=True, exist_ok=True)
    _probe(str(directory))


def _holds_something(directory: Path) -> bool:
    try:
        return any(directory.iterdir())
    except OSError:
        return False


def check_scratch() -> None:
    """Checks that temporary files can be written.

    Raises:
      UsageError: no directory for temporary files can be written.
      OSError: the disk is full.
    """
    try:
        directory = tempfile.gettempdir()
    except FileNotFoundError as error:
        raise UsageError(
            f"no temporary file can be written ({error.strerror}); set TMPDIR to a directory for them"
        ) from error
    _probe(directory)


def _probe(directory: str) -> None:
    """Writes a few bytes: a full disk may have room for a file name, but not for content."""
    try:
        # Unbuffered, so that the error comes from the write and not from closing the file.
        with tempfile.TemporaryFile(prefix="probe-", dir=directory, buffering=0) as file:
            left = _PROBE_BYTES
            while left:
                left -= file.write(bytes(left))
    except OSError as error:
        error.filename = directory
        raise
