"""The place of an image in an archive, as a reference carries it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Zipped:
    """What the central directory of a zip says of a member, for whoever reads it to check.

    Attributes:
      packed_size: bytes as they are stored.
      method: 0 stored, 8 deflated.
      crc32: of the member's bytes.
      name_crc32: of its name's bytes.
      room: bytes from its local header to the central directory.
    """

    packed_size: int
    method: int
    crc32: int
    name_crc32: int
    room: int


@dataclass(frozen=True)
class Member:
    """Where an image lies in an archive.

    Attributes:
      archive: absolute local path or URI.
      archive_version: that it was planned from, see ``InputFile``; another one is not read.
      offset: of the member's first byte; in a zip of its local header.
      size: bytes.
      zipped: of a member of a zip, else None.
    """

    archive: str
    archive_version: str | None
    offset: int
    size: int
    zipped: Zipped | None = None
