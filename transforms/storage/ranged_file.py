"""Files of an object store, read in ranges."""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Callable
from typing import Any, BinaryIO, Protocol, cast


class Checksum(Protocol):
    """The checksum of a whole file."""

    def update(self, data: bytes) -> None:
        """Adds the next bytes."""

    def is_right(self) -> bool:
        """Whether the added bytes match the checksum."""


class RangedFile(io.RawIOBase):
    """An object of known size as a seekable file; each read is one request for a range.

    Args:
      name: its URI, for errors.
      size: in bytes; None if unknown: then the file ends at the first empty range.
      read_range: returns the bytes from a first to a last offset, both included.
      version: a string that changes with the content, if the store has one other than a time; else None.
      checksum: of the whole file; verified at the end if the file is read from beginning to end, in any pieces.
    """

    def __init__(
        self,
        name: str,
        size: int | None,
        read_range: Callable[[int, int], bytes],
        version: str | None = None,
        checksum: Checksum | None = None,
    ) -> None:
        self.name = name
        self.version = version
        self._size = size
        self._read_range = read_range
        self._position = 0
        self._checksum = checksum
        self._checked = 0

    @property
    def has_checksum(self) -> bool:
        """Whether a read from beginning to end is verified."""
        return self._checksum is not None

    def readable(self) -> bool:
        """Always True."""
        return True

    def seekable(self) -> bool:
        """Always True."""
        return True

    def tell(self) -> int:
        """The offset of the next byte."""
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Moves to an offset, which may lie after the end.

        Raises:
          ValueError: The offset lies before the beginning.
          OSError: The offset is relative to the end, and the size is unknown.
        """
        if self._size is None and whence == os.SEEK_END:
            raise OSError(errno.ESPIPE, "its size is unknown", self.name)
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size or 0}[whence]
        if start + offset < 0:
            raise ValueError(f"{self.name}: cannot seek before the beginning")
        self._position = start + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Fills the buffer, in one request."""
        data = self._next(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def readall(self) -> bytes:
        """Reads the rest, in one request if the range arrives whole; the inherited method reads 8 KiB at a time."""
        if self._size is None:
            return super().readall()
        return b"".join(iter(lambda: self._next(self._size or 0), b""))

    def _next(self, size: int) -> bytes:
        end = self._position + size
        if self._size is not None:
            end = min(end, self._size)
        if self._position >= end:
            return b""
        data = self._read_range(self._position, end - 1)
        if self._checksum is not None:
            self._check(self._checksum, data)
        self._position += len(data)
        return data

    def _check(self, checksum: Checksum, data: bytes) -> None:
        """Adds new bytes to the checksum; a gap leaves the file unverified."""
        new = self._checked - self._position
        if not 0 <= new < len(data):
            return
        checksum.update(data[new:])
        self._checked += len(data) - new
        if self._checked == self._size and not checksum.is_right():
            raise OSError(errno.EIO, "the checksum of the bytes read differs from the object's", self.name)


def unbuffered(file: BinaryIO) -> BinaryIO:
    """The stream below an open file of a bucket, for few small reads: each requests its own bytes and no window."""
    raw = getattr(file, "raw", None)
    return cast(BinaryIO, raw) if isinstance(raw, RangedFile) else file
