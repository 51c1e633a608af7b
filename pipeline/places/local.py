"""Whether a local path can be written, told without writing: by its nearest folder that is there."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from beamlabel.pipeline.errors import UsageError
from beamlabel.transforms import storage

_PSEUDO = ("/proc", "/sys", "/dev")
# The one folder of files below them.
_SHARED_MEMORY = "/dev/shm"


def absolute_path(option: str, path: str) -> str:
    """The path as ``storage`` takes it; it is UTF-8, as all that is written of it has to be.

    Args:
      option: that names it.
      path: a local path, or a URI.

    Raises:
      UsageError: not a path or URI, not UTF-8, or relative to a folder that is gone.
    """
    if not path:
        raise UsageError(f"{option}: an empty value")
    try:
        whole = storage.absolute(path)
    except ValueError as error:
        raise UsageError(f"{option} {path!r}: {error}") from error
    except FileNotFoundError as error:
        raise UsageError(f"{option} {path!r}: the current folder is gone") from error
    try:
        whole.encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"{option} {path!r}: {whole!r} is not UTF-8; choose another name") from error
    return whole


def check_writable(option: str, path: str, *, is_folder: bool) -> None:
    """Refuses an absolute local path at which no such file or folder can be made.

    Args:
      option: that names it.
      path: absolute.
      is_folder: whether a folder is to be there, and not a file.

    Raises:
      UsageError: something else is there, or above it; or the file system or its rights forbid it.
    """
    real = os.path.realpath(path)
    if any(_is_at_or_below(real, root) for root in _PSEUDO) and not real.startswith(_SHARED_MEMORY + "/"):
        raise UsageError(f"{option} {path!r}: {real} is the system's, and no place for files")
    try:
        there = _nearest(real)
        if there == Path(real):
            if is_folder and not there.is_dir():
                raise UsageError(f"{option} {path!r} is a file, not a folder")
            if not is_folder and there.is_dir():
                raise UsageError(f"{option} {path!r} is a folder, not a file")
            if not is_folder and not there.is_file():
                raise UsageError(f"{option} {path!r} is a pipe or a device, not a file")
        elif os.path.islink(path) and not (is_folder and there == Path(real).parent):  # noqa: PTH114 (a last slash)
            # A folder is made where the link leads, but not the folders above it: a disk may not be mounted.
            raise UsageError(f"{option} {path!r} is a link to {real}, which is not there")
        elif not there.is_dir():
            raise UsageError(f"{option} {path!r}: {there} is a file, not a folder")
        # A file is replaced by another, which its folder has to allow.
        folder = there if there.is_dir() else there.parent
        refused = _why_not(folder)
    except OSError as error:
        raise UsageError(f"{option} {path!r}: {error.strerror or error}") from error
    if refused:
        raise UsageError(f"{option} {path!r} cannot be written: {folder}: {refused}")


def _nearest(path: str) -> Path:
    """The path, or the nearest of those above it that is there."""
    found = Path(path)
    while True:
        try:
            found.lstat()
        except (FileNotFoundError, NotADirectoryError):
            found = found.parent
        else:
            return found


def _why_not(folder: Path) -> str:
    """Why nothing can be written in a folder; empty if something can."""
    by_effective = os.access in os.supports_effective_ids
    if os.access(folder, os.W_OK | os.X_OK, effective_ids=by_effective):
        return ""
    is_read_only = bool(os.statvfs(folder).f_flag & os.ST_RDONLY)
    return os.strerror(errno.EROFS if is_read_only else errno.EACCES)


def _is_at_or_below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder + "/")
