"""Checks whether a local path can be written, by its nearest existing directory and without writing."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from beamlabel.pipeline.errors import UsageError
from beamlabel.transforms import storage

_PSEUDO = ("/proc", "/sys", "/dev")
# The only directory below them that holds files.
_SHARED_MEMORY = "/dev/shm"


def absolute_path(option: str, path: str) -> str:
    """The path as ``storage`` takes it; it has to be UTF-8, since outputs record it.

    Args:
      option: its name, for errors.
      path: a local path, or a URI.

    Raises:
      UsageError: not a path or URI, not UTF-8, or relative to a directory that no longer exists.
    """
    if not path:
        raise UsageError(f"{option}: an empty value")
    try:
        whole = storage.absolute(path)
    except ValueError as error:
        raise UsageError(f"{option} {path!r}: {error}") from error
    except FileNotFoundError as error:
        raise UsageError(f"{option} {path!r}: the current directory no longer exists") from error
    try:
        whole.encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"{option} {path!r}: {whole!r} is not UTF-8; choose another name") from error
    return whole


def check_writable(option: str, path: str, *, is_directory: bool) -> None:
    """Refuses an absolute local path if no such file or directory can be created there.

    Args:
      option: its name, for errors.
      path: absolute.
      is_directory: whether it is to be a directory, and not a file.

    Raises:
      UsageError: the path, or one above it, is of another kind; or the file system or its permissions forbid writing.
    """
    real = os.path.realpath(path)
    if any(_is_at_or_below(real, root) for root in _PSEUDO) and not real.startswith(_SHARED_MEMORY + "/"):
        raise UsageError(f"{option} {path!r}: {real} belongs to the system and holds no files")
    try:
        there = _nearest(real)
        if there == Path(real):
            if is_directory and not there.is_dir():
                raise UsageError(f"{option} {path!r} is a file, not a directory")
            if not is_directory and there.is_dir():
                raise UsageError(f"{option} {path!r} is a directory, not a file")
            if not is_directory and not there.is_file():
                raise UsageError(f"{option} {path!r} is a pipe or a device, not a file")
        elif os.path.islink(path) and not (is_directory and there == Path(real).parent):  # noqa: PTH114 (a last slash)
            # The directories above a link's target are not created: its disk may not be mounted.
            raise UsageError(f"{option} {path!r} is a link to {real}, which does not exist")
        elif not there.is_dir():
            raise UsageError(f"{option} {path!r}: {there} is a file, not a directory")
        # Replacing a file needs write permission for its directory.
        directory = there if there.is_dir() else there.parent
        refused = _why_not(directory)
    except OSError as error:
        raise UsageError(f"{option} {path!r}: {error.strerror or error}") from error
    if refused:
        raise UsageError(f"{option} {path!r} cannot be written: {directory}: {refused}")


def _nearest(path: str) -> Path:
    """The path, or the nearest one above it that exists."""
    found = Path(path)
    while True:
        try:
            found.lstat()
        except (FileNotFoundError, NotADirectoryError):
            found = found.parent
        else:
            return found


def _why_not(directory: Path) -> str:
    """The reason that a directory cannot be written; empty if it can."""
    by_effective = os.access in os.supports_effective_ids
    if os.access(directory, os.W_OK | os.X_OK, effective_ids=by_effective):
        return ""
    is_read_only = bool(os.statvfs(directory).f_flag & os.ST_RDONLY)
    return os.strerror(errno.EROFS if is_read_only else errno.EACCES)


def _is_at_or_below(path: str, directory: str) -> bool:
    return path == directory or path.startswith(directory + "/")
