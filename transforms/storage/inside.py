"""What lies in a folder: names that a file of ours tells are checked at every use, and folders are known by what they
really are, whatever they are called.
"""

from __future__ import annotations

import os
import re

from beamlabel.transforms.storage.uris import scheme

# All names that we give to files. So there is no `..`, no absolute path, scheme, drive, backslash, percent sign, blank
# or control character, and no name that begins with a dot.
_PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.=+-]*(?:/[A-Za-z0-9_][A-Za-z0-9_.=+-]*)*")
_CHARACTERS = 1024
# Folders that are remembered.
_KNOWN = 100_000
_SLASHES = re.compile(r"/{2,}")


class OutsideError(ValueError):
    """A file of ours names another that is none of its folder."""


def is_plain(name: object) -> bool:
    """Whether a text is the plain name of a file below a folder."""
    return isinstance(name, str) and len(name) <= _CHARACTERS and _PLAIN.fullmatch(name) is not None


def below(folder: str, name: object) -> str:
    """Where a file lies that a manifest, a commit, a record or the like names: always below the folder.

    This is checked at every use of such a name, since nobody knows who wrote the file that tells it. On a local disk
    no link on the way may lead out of the folder; a link that is put there later is not seen.

    Args:
      folder: absolute path or URI.
      name: as it was read.

    Raises:
      OutsideError: it is no plain name, or a link leads elsewhere.
    """
    if not isinstance(name, str) or not is_plain(name):
        raise OutsideError(
            f"{folder}: {name!r} is no name of a file of this folder; nothing was done with it"
        )
    path = f"{folder.rstrip('/')}/{name}"
    if scheme(folder) is None:
        place = folder.rstrip("/")
        for part in name.split("/"):
            place = f"{place}/{part}"
            if os.path.islink(place) and not _is_below(os.path.realpath(place), os.path.realpath(folder)):  # noqa: PTH114 (faster)
                raise OutsideError(f"{place} is a link that leads out of {folder}; nothing was done with it")
    return path


def real(path: str) -> str:
    """A local path without symbolic links, ``..`` and doubled slashes; a URI with its scheme in lower case.

    Args:
      path: absolute path or URI; a slash at its end is lost.
    """
    kind = scheme(path)
    if kind is None:
        return os.path.realpath(path)
    return kind + path[len(kind) :].rstrip("/")


class RealFolder:
    """A folder, whatever it is called: by links, ``/proc/self/cwd``, bind mounts, or capitals where they mean nothing.

    Local folders are told by device and inode, so that it need not exist yet, but is seen only as it is now.

    Args:
      folder: absolute path or URI.
    """

    def __init__(self, folder: str) -> None:
        self._is_local = scheme(folder) is None
        self.path = real(folder) if self._is_local else _one_spelling(folder)
        self._identity = _identity(self.path) if self._is_local else None
        self._known: dict[str, bool] = {}

    def holds(self, path: str) -> bool:
        """Whether a path is the folder, or lies in it; what is not there yet is looked for above.

        Args:
          path: absolute path or URI, of a file or a folder.
        """
        if (scheme(path) is None) is not self._is_local:
            return False
        return self._is_in(os.path.realpath(path)) if self._is_local else self._has(_one_spelling(path))

    def is_same(self, folder: str) -> bool:
        """Whether it is that folder."""
        if (scheme(folder) is None) is not self._is_local:
            return False
        if not self._is_local:
            return _one_spelling(folder) == self.path
        place = os.path.realpath(folder)
        return place == self.path or (self._identity is not None and _identity(place) == self._identity)

    def _has(self, path: str) -> bool:
        return _is_below(path, self.path)

    def _is_in(self, place: str) -> bool:
        """Of a path without links; what is known of the folders above is not asked again."""
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


def _is_below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _identity(path: str) -> tuple[int, int] | None:
    try:
        status = os.stat(path)  # noqa: PTH116 (asked of many)
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino


def _one_spelling(uri: str) -> str:
    """A URI for comparison only: object stores tell ``a//b`` from ``a/b``, but what mounts a bucket does not."""
    kind = scheme(uri) or ""
    return f"{kind}://{_SLASHES.sub('/', uri[len(kind) + 3 :]).strip('/')}"
