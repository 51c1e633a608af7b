"""The record of a file."""

from __future__ import annotations

from typing import NamedTuple


class StoredFile(NamedTuple):
    """A file or object from a listing or ``stat``; a tuple, since listings have millions.

    Attributes:
      path: an absolute path or a URI, which opens it.
      size: in bytes; None if unknown, or for a dangling symbolic link.
      version: a string that changes with the content: the generation (``gs://``), the ``ETag`` (``s3://``), the
        modification time in ns (local), the time of the last update (others); None if unknown.
    """

    path: str
    size: int | None
    version: str | None
