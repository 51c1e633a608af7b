"""The record of a file."""

from __future__ import annotations

from typing import NamedTuple


class StoredFile(NamedTuple):
    """A file or object, as a listing or ``stat`` saw it; listings have millions.

    Attributes:
      path: an absolute path or a URI, which opens it.
      size: bytes, or None if the storage does not say (a dangling symbolic link, too).
      version: another string for other content: the generation (``gs://``), the modification time in ns
        (local), the time of the last update (others); None if the storage does not say.
    """

    path: str
    size: int | None
    version: str | None
