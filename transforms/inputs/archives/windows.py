"""Bytes of an archive by offset, from a file in few requests, or from a forward-only stream."""

from __future__ import annotations

from typing import BinaryIO, Protocol

# The bytes read ahead of a header. Short: a header, small members after it, and their headers. Long: as much as one
# request to a storage can reasonably bring if that includes the next header.
_SHORT, _LONG = 16 << 10, 4 << 20
# The header after a member of this size is worth a request of its own.
_FAR = 1 << 20
_SKIP = 1 << 20


class Window(Protocol):
    """Bytes by offset."""

    end: int | None
    """The number of bytes; None for a stream that has not ended."""

    def read(self, offset: int, size: int) -> bytes:
        """Bytes at an offset, fewer at the end. A stream does not go back to before the last offset."""


class FileWindow:
    """A seekable file.

    Args:
      file: open for reading; if it has a ``raw`` file, that is read, without its read-ahead.
      size: of the file, in bytes.
      sparing: whether to read few bytes rather than to make few requests, because skipped members will not be read
        later, or the file is local.
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
            raise OSError(f"{wanted - start} bytes were requested at {start}, but fewer arrived")
        return self._data[: stop - offset]


def _read(file: BinaryIO, size: int) -> bytes:
    """Reads all requested bytes; raw files may return fewer at a time."""
    parts = []
    while size > 0 and (part := file.read(size)):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


class StreamWindow:
    """A stream, held from the last requested offset on.

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
            raise ValueError(f"the stream cannot go back from {self._start} to {offset}")
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
