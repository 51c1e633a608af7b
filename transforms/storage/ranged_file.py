"""A file of an object store, read in ranges."""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Callable
from typing import Any, Protocol


class Checksum(Protocol):
    """Of a whole file."""

    def update(self, data: bytes) -> None:
        """The next bytes."""

    def is_right(self) -> bool:
        """Whether they are what they should be."""


class RangedFile(io.RawIOBase):
    """An object of known size as a seekable file; each read is one request for a range.

    Args:
      name: its URI, for errors.
      size: in bytes; None if the store does not tell it: then the file ends at the first empty range.
      read_range: the bytes from a first to a last one, which counts, too.
      version: another string for other content, if the store tells one that is no mere time; None if not.
      checksum: of all of it; checked at the end if it is read from the beginning to the end, in any pieces.
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
        """Whether it is checked if it is read from the beginning to the end."""
        return self._checksum is not None

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def tell(self) -> int:
        """The place of the next byte."""
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Goes to a place, which may lie behind the end.

        Raises:
          ValueError: it would lie before the beginning.
          OSError: the store does not tell where the end is.
        """
        if self._size is None and whence == os.SEEK_END:
            raise OSError(errno.ESPIPE, "the storage does not tell its size", self.name)
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size or 0}[whence]
        if start + offset < 0:
            raise ValueError(f"{self.name}: cannot seek to before its beginning")
        self._position = start + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Reads as much as the buffer holds, in one request."""
        data = self._next(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def readall(self) -> bytes:
        """The rest, in one request if a range comes whole: the inherited method asks for 8 KiB at a time."""
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
        """Adds what has not been seen yet; what is passed over leaves the file unchecked."""
        new = self._checked - self._position
        if not 0 <= new < len(data):
            return
        checksum.update(data[new:])
        self._checked += len(data) - new
        if self._checked == self._size and not checksum.is_right():
            raise OSError(errno.EIO, "what was read has another checksum than the object", self.name)
