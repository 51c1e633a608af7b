"""The place of an image in an archive, as a reference stores it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Zipped:
    """A zip member's entry in the central directory, which the reader checks.

    Attributes:
      packed_size: bytes as stored.
      method: 0 stored, 8 deflated.
      crc32: CRC-32 of the member's bytes.
      name_crc32: CRC-32 of its name's bytes.
      room: bytes from its local header to the central directory.
    """

    packed_size: int
    method: int
    crc32: int
    name_crc32: int
    room: int


@dataclass(frozen=True)
class Member:
    """The location of an image in an archive.

    Attributes:
      archive: absolute local path or URI.
      archive_version: version of the archive at planning time, see ``InputFile``; another version is not read.
      offset: offset of the member's first byte, or, in a zip, of its local header.
      size: size in bytes.
      zipped: the entry of a zip member, or None in other archives.
    """

    archive: str
    archive_version: str | None
    offset: int
    size: int
    zipped: Zipped | None = None
