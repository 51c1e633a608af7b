"""A base for read-only files that keep their own position."""

from __future__ import annotations

import io


class PositionedFile(io.RawIOBase):
    """A seekable file of known size; a subclass reads from ``_at`` and moves it.

    Args:
      size: in bytes.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self._size = size
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence] + offset
        return self._at
