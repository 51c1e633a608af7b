"""Checks that paths lie inside a directory.

Names read from our own files are checked at every use, and directories are compared by identity, not by name.
"""

from __future__ import annotations

import os
import re

from beamlabel.transforms.storage.uris import scheme

# Matches every name that we give to files. It excludes `..`, absolute paths, schemes, drives, backslashes, percent
# signs, blanks, control characters, and names that begin with a dot.
_PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.=+-]*(?:/[A-Za-z0-9_][A-Za-z0-9_.=+-]*)*")
_CHARACTERS = 1024
# Directories in the cache.
_KNOWN = 100_000
_SLASHES = re.compile(r"/{2,}")


class OutsideError(ValueError):
    """One of our files names a file outside its directory."""


def is_plain(name: object) -> bool:
    """Whether ``name`` is the plain relative name of a file below a directory."""
    return isinstance(name, str) and len(name) <= _CHARACTERS and _PLAIN.fullmatch(name) is not None


def below(directory: str, name: object) -> str:
    """The path of a file that a manifest, commit or record names, always below the directory.

    Every use of such a name is checked, since the file that holds it is not trusted. On a local disk no link on the way
    may lead out of the directory; a link created later is not noticed.

    Args:
      directory: absolute path or URI.
      name: as it was read.

    Raises:
      OutsideError: The name is not plain, or a link leads out of the directory.
    """
    if not isinstance(name, str) or not is_plain(name):
        raise OutsideError(
            f"{directory}: {name!r} is not a valid file name below this directory; the file was not used"
        )
    path = f"{directory.rstrip('/')}/{name}"
    if scheme(directory) is None:
        place = directory.rstrip("/")
        for part in name.split("/"):
            place = f"{place}/{part}"
            if os.path.islink(place) and not _is_below(os.path.realpath(place), os.path.realpath(directory)):  # noqa: PTH114 (faster)
                raise OutsideError(f"{place} is a link that leads out of {directory}; the file was not used")
    return path


def real(path: str) -> str:
    """A local path without symbolic links, ``..`` and doubled slashes; a URI with its scheme in lower case.

    Args:
      path: absolute path or URI; the result has no slash at its end.
    """
    kind = scheme(path)
    if kind is None:
        return os.path.realpath(path)
    return kind + path[len(kind) :].rstrip("/")


class RealDirectory:
    """A directory under any name: through links, ``/proc/self/cwd``, bind mounts, or case-insensitive spellings.

    Local directories are compared by device and inode. The directory need not exist yet; its state now counts.

    Args:
      directory: absolute path or URI.
    """

    def __init__(self, directory: str) -> None:
        self._is_local = scheme(directory) is None
        self.path = real(directory) if self._is_local else _one_spelling(directory)
        self._identity = _identity(self.path) if self._is_local else None
        self._known: dict[str, bool] = {}

    def holds(self, path: str) -> bool:
        """Whether a path is the directory or lies in it; for a missing path, its existing parents count.

        Args:
          path: absolute path or URI, of a file or a directory.
        """
        if (scheme(path) is None) is not self._is_local:
            return False
        return self._is_in(os.path.realpath(path)) if self._is_local else self._has(_one_spelling(path))

    def is_same(self, directory: str) -> bool:
        """Whether ``directory`` is the same directory."""
        if (scheme(directory) is None) is not self._is_local:
            return False
        if not self._is_local:
            return _one_spelling(directory) == self.path
        place = os.path.realpath(directory)
        return place == self.path or (self._identity is not None and _identity(place) == self._identity)

    def _has(self, path: str) -> bool:
        return _is_below(path, self.path)

    def _is_in(self, place: str) -> bool:
        """``_has`` for a path without links, also by identity; results for its parents are cached."""
        if self._has(place):
            return True
        if self._identity is None:
            return False
        found = self._known.get(place)
        if found is None:
            parent = place.rpartition("/")[0]
            found = _identity(place) == self._identity or (bool(parent) and self._is_in(parent))
            if len(self._known) < _KNOWN:
                self._known[place] = found
        return found


def _is_below(path: str, directory: str) -> bool:
    return path == directory or path.startswith(directory.rstrip("/") + "/")


def _identity(path: str) -> tuple[int, int] | None:
    try:
        status = os.stat(path)  # noqa: PTH116 (asked of many)
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino


def _one_spelling(uri: str) -> str:
    """A URI for comparison only: object stores distinguish ``a//b`` from ``a/b``, but a mounted bucket does not."""
    kind = scheme(uri) or ""
    return f"{kind}://{_SLASHES.sub('/', uri[len(kind) + 3 :]).strip('/')}"
