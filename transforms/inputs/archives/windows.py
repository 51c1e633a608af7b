"""Bytes of an archive by offset: of a file in few requests, and of a stream that only goes forward."""

from __future__ import annotations

from typing import BinaryIO, Protocol

# What is read ahead of a header. Short: a header, small members behind it, and their headers. Long: as much as one
# request to a storage may well bring, if it brings the next header too.
_SHORT, _LONG = 16 << 10, 4 << 20
# Members of this size are worth a request of their own to the header behind them.
_FAR = 1 << 20
_SKIP = 1 << 20


class Window(Protocol):
    """Bytes by offset."""

    end: int | None
    """How many there are; of a stream None until it has ended."""

    def read(self, offset: int, size: int) -> bytes:
        """So many bytes, fewer at the end. A stream does not go back to before the last offset."""


class FileWindow:
    """A file that can be sought in.

    Args:
      file: open for reading; what it reads ahead by itself is not used if its ``raw`` can be had.
      size: of the file, in bytes.
      sparing: whether as few bytes as possible are read, rather than as few requests made: the members that are
        passed over will not be read later, or the file is local.
    """

    def __init__(self, file: BinaryIO, size: int, *, sparing: bool) -> None:
        self._file = getattr(file, "raw", file)
        self.end: int | None = size
        self._size = size
        self._sparing = sparing
        self._start, self._data = 0, b""

    def read(self, offset: int, size: int) -> bytes:
        """See ``Window``."""
        stop = min(offset + size, self._size)
        if offset >= stop:
            return b""
        before, known = self._start, self._start + len(self._data)
        if before <= offset and stop <= known:
            return self._data[offset - before : stop - before]
        is_far = not before <= offset <= known + _FAR
        wanted = max(stop, min(offset + (_SHORT if self._sparing or is_far else _LONG), self._size))
        kept = self._data[offset - before :] if before <= offset < known else b""
        start = offset + len(kept)
        self._file.seek(start)
        self._start, self._data = offset, kept + _read(self._file, wanted - start)
        if len(self._data) < stop - offset:
            raise OSError(f"{wanted - start} bytes at {start} were asked for, fewer came")
        return self._data[: stop - offset]


def _read(file: BinaryIO, size: int) -> bytes:
    """Raw files may give less than they are asked for."""
    parts = []
    while size > 0 and (part := file.read(size)):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


class StreamWindow:
    """A stream, held from the last offset that was asked for.

    Args:
      stream: open for reading.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.end: int | None = None
        self._start, self._data = 0, b""

    def read(self, offset: int, size: int) -> bytes:
        """See ``Window``."""
        if offset < self._start:
            raise ValueError(f"a stream does not go back from {self._start} to {offset}")
        passed = min(offset - self._start, len(self._data))
        self._start, self._data = self._start + passed, self._data[passed:]
        while self._start < offset and self.end is None:
            self._start += len(self._more(min(offset - self._start, _SKIP)))
        if self.end is None and len(self._data) < size:
            self._data += self._more(size - len(self._data))
        return self._data[:size] if self._start == offset else b""

    def _more(self, size: int) -> bytes:
        data = _read(self._stream, size)
        if len(data) < size:
            self.end = self._start + len(self._data) + len(data)
        return data
