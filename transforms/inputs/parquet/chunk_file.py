"""A file on a bucket whose stretches, such as columns, are read alternately, each byte once.

pyarrow reads a megabyte of one column, then one of the next. A single buffer would be refilled each time. A small file
is read whole, because only then its checksum can be verified.
"""

from __future__ import annotations

import bisect
import io
from collections import OrderedDict
from collections.abc import Iterable
from typing import Any, BinaryIO, NamedTuple

from beamlabel.transforms.inputs.parquet.positioned_file import PositionedFile
from beamlabel.transforms.storage.ranged_file import RangedFile

WINDOW_BYTES = 4 << 20
"""The largest request, and the largest held part of a stretch."""
_HELD_BYTES = 32 << 20
_SMALL_BYTES = 512 << 10
# Small and close stretches are read together, also if a sixteenth of the result lies between them.
_MOST_BETWEEN = 16


class Stretch(NamedTuple):
    """Bytes from ``start`` to ``stop``, of which ``wanted`` are requested."""

    start: int
    stop: int
    wanted: int


class _Window:
    """The held part of a stretch."""

    def __init__(self) -> None:
        self.start, self.data, self.served = 0, b"", 0


class ChunkFile(PositionedFile):
    """A file that reads ahead within stretches, and nowhere else.

    Args:
      raw: the file, seekable; each of its reads is a request.
      content: the whole file, if known.

    Attributes:
      content: the whole file, once its rows are requested, if it is small and has a checksum.
    """

    def __init__(self, raw: BinaryIO, content: bytes | None = None) -> None:
        self._raw = raw
        super().__init__(raw.seek(0, io.SEEK_END))
        self.content = content
        self._stretches: list[Stretch] = []
        self._windows: OrderedDict[Stretch, _Window] = OrderedDict()

    def expect(self, ranges: Iterable[tuple[int, int]], *, all_of_them: bool) -> None:
        """Sets the ranges that may be read next. If all of them will be, small stretches are read together.

        Raises:
          OSError: the file is small, and has another checksum than its object.
        """
        if all_of_them and self.content is None and self._is_small:
            self._raw.seek(0)
            self.content = self._raw.read()
        self._stretches = _merged(sorted(ranges), together=all_of_them)
        known = set(self._stretches)
        for stretch in [stretch for stretch in self._windows if stretch not in known]:
            del self._windows[stretch]

    @property
    def _is_small(self) -> bool:
        return isinstance(self._raw, RangedFile) and self._raw.has_checksum and 0 < self._size <= _SMALL_BYTES

    def read(self, size: int = -1) -> bytes:
        stop = self._size if size < 0 else min(self._at + size, self._size)
        parts = []
        while self._at < stop and (part := self._part(stop)):
            parts.append(part)
            self._at += len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def readinto(self, buffer: Any) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._raw.close()
        super().close()

    def _part(self, stop: int) -> bytes:
        place = bisect.bisect_right(self._stretches, self._at, key=lambda stretch: stretch.start) - 1
        if place < 0 or self._at >= self._stretches[place].stop:
            if place + 1 < len(self._stretches):
                stop = min(stop, self._stretches[place + 1].start)
            return self._request(self._at, stop)
        return self._from_window(self._stretches[place], stop)

    def _from_window(self, stretch: Stretch, stop: int) -> bytes:
        stop = min(stop, stretch.stop)
        window = self._windows.setdefault(stretch, _Window())
        self._windows.move_to_end(stretch)
        if not window.start <= self._at < window.start + len(window.data):
            wanted = max(stop - self._at, WINDOW_BYTES)
            window.start = self._at
            window.data = self._request(self._at, min(self._at + wanted, stretch.stop))
        within = self._at - window.start
        data = window.data[within : within + stop - self._at]
        window.served += len(data)
        if window.served >= stretch.wanted:
            del self._windows[stretch]
        while len(self._windows) > 1 and sum(len(one.data) for one in self._windows.values()) > _HELD_BYTES:
            self._windows.popitem(last=False)
        return data

    def _request(self, start: int, stop: int) -> bytes:
        if self.content is not None:
            return self.content[start:stop]
        self._raw.seek(start)
        parts = []
        while start < stop and (part := self._raw.read(stop - start)):
            parts.append(part)
            start += len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)


def _merged(ranges: list[tuple[int, int]], *, together: bool) -> list[Stretch]:
    merged: list[Stretch] = []
    for start, stop in ranges:
        if stop <= start:
            continue
        last = merged[-1] if merged else None
        if last is not None and start < last.stop:
            start = last.stop  # only a damaged file has overlapping chunks
            if stop <= start:
                continue
        whole = None if last is None else Stretch(last.start, stop, last.wanted + stop - start)
        if together and whole is not None and _are_close(whole):
            merged[-1] = whole
        else:
            merged.append(Stretch(start, stop, stop - start))
    return merged


def _are_close(whole: Stretch) -> bool:
    size = whole.stop - whole.start
    return size <= WINDOW_BYTES and (size - whole.wanted) * _MOST_BETWEEN <= size
