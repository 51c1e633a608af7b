"""A limit on the memory of a Parquet file's pages, whose headers give their unpacked size.

A file of some kilobytes may hold gigabytes: a compressed page of zeros, or a long dictionary value that every row
names. The guard follows the bytes for pyarrow from page to page, and stops the reading of a batch that would take too
much memory. The batch is then read again in smaller ones (``bounded_batches``).

The format: https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift (``PageHeader``) and
https://github.com/apache/parquet-format/blob/master/Encodings.md.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import pyarrow as pa

from beamlabel.transforms.inputs.parquet.delta_lengths import delta_lengths
from beamlabel.transforms.inputs.parquet.page_index import CompactReader

BATCH_BYTES = 64 << 20
"""The limit for the values of a batch, without those of the page in which it ends."""
MOST_PAGE_BYTES = 256 << 20
"""The limit for a page that is much smaller in the file."""
MOST_RATIO = 20

_MOST_LIST_BYTES = 1 << 30
# Nearly all headers take less than the first; none is longer than the second (parquet-cpp's own limit).
_HEADER_BYTES = (512, 16 << 20)
_DATA_PAGE, _DICTIONARY_PAGE, _DATA_PAGE_V2 = 0, 2, 3
_DELTA_BYTE_ARRAY = 7
_BYTES = ("BYTE_ARRAY", "FIXED_LEN_BYTE_ARRAY")


class Chunk(NamedTuple):
    """A column chunk: its place, and the kind of its values.

    Attributes:
      start, stop: its bytes in the file.
      leaf: the path of its column.
      kind: its physical type.
      codec: the compression of its pages.
      has_lists: whether a row may have many values.
      has_nulls: whether a value may be missing.
      width: bytes of a value of fixed length, also of a missing one; else 0.
    """

    start: int
    stop: int
    leaf: str
    kind: str
    codec: str
    has_lists: bool
    has_nulls: bool = True
    width: int = 0


class TooManyRowsError(Exception):
    """A batch would take too much memory.

    Attributes:
      rows: the number that may fit.
    """

    def __init__(self, rows: int) -> None:
        super().__init__(f"more than {rows} rows exceed {BATCH_BYTES} bytes")
        self.rows = rows


class DamagedPageError(ValueError):
    """A page whose header or values are damaged."""


class LargePageError(ValueError):
    """A page that is too large to unpack.

    Attributes:
      leaf: the path of its column.
      size: bytes, unpacked.
      values: the number of its values.
    """

    def __init__(self, leaf: str, size: int, values: int) -> None:
        super().__init__(f"a page of the column {leaf!r} takes {size} bytes for {values} values")
        self.leaf, self.size, self.values = leaf, size, values


class _Header(NamedTuple):
    length: int
    kind: int
    size: int
    packed_size: int
    values: int
    encoding: int
    inner: dict[int, Any]

    @property
    def repeats(self) -> bool:
        """Whether its values may be longer than the page."""
        return self.kind in (_DATA_PAGE, _DATA_PAGE_V2) and self.encoding == _DELTA_BYTE_ARRAY


class _Trail:
    """The pages found so far in a chunk."""

    def __init__(self, chunk: Chunk) -> None:
        self.chunk = chunk
        self.begin()

    def begin(self) -> None:
        self.at = self.header_at = self.chunk.start
        self.held = b""  # from ``header_at`` on, while a header or a dictionary is incomplete
        self.is_lost = False
        self.longest = 0  # of the dictionary's values
        self.row = self.total = 0
        self.pages: deque[tuple[int, int]] = deque()  # row after each page, and the page's size


class PageGuard:
    """Follows the bytes read from some column chunks.

    Attributes:
      rows: of a batch.
      error: the error that it raised.
    """

    def __init__(self) -> None:
        self._trails: list[_Trail] = []
        self.rows = 1
        self.error: Exception | None = None

    def watch(self, chunks: Sequence[Chunk], rows: int) -> None:
        """Watches these chunks next, from their beginnings, in batches of so many rows."""
        self._trails, self.rows, self.error = [_Trail(chunk) for chunk in chunks], rows, None

    def see(self, offset: int, data: bytes) -> None:
        """Checks bytes before they reach pyarrow.

        Raises:
          TooManyRowsError, LargePageError, DamagedPageError: they must not be unpacked.
        """
        try:
            for trail in self._trails:
                if trail.chunk.start <= offset < trail.chunk.stop:
                    self._follow(trail, offset, data)
        except (TooManyRowsError, LargePageError, DamagedPageError) as error:
            self.error = error
            raise

    def _follow(self, trail: _Trail, offset: int, data: bytes) -> None:
        if offset == trail.chunk.start:
            trail.begin()
        # In a file with overlapping chunks, bytes ahead belong to another chunk; this chunk continues later.
        if trail.is_lost or not offset <= trail.at < offset + len(data):
            return
        data = data[trail.at - offset :]
        start, trail.at = trail.at, trail.at + len(data)
        # The held bytes end where the data begin.
        window, begin = trail.held + data, start - len(trail.held)
        trail.held = b""
        while trail.header_at < min(trail.at, trail.chunk.stop):
            place = trail.header_at - begin
            header = _header(window, place)
            if header is None:  # padding of a chunk
                trail.is_lost = True
                return
            end = place + header.length + header.packed_size
            is_read = header.kind == _DICTIONARY_PAGE or header.repeats
            is_read = is_read and header.packed_size <= BATCH_BYTES
            if not header.length or (is_read and end > len(window)):
                trail.held = window[place:]
                if header.length:
                    _check_page(trail.chunk, header)
                return
            self._note(trail, header, window[place + header.length : end] if is_read else b"")
            trail.header_at += header.length + header.packed_size

    def _note(self, trail: _Trail, header: _Header, content: bytes) -> None:
        chunk = trail.chunk
        _check_page(chunk, header)
        if header.kind == _DICTIONARY_PAGE:
            if chunk.kind in _BYTES:
                trail.longest = _longest(content, header, chunk)
            self._check_value(trail.longest, trail)
            return
        if header.kind not in (_DATA_PAGE, _DATA_PAGE_V2):
            return
        most = header.values * max(trail.longest, chunk.width)
        if header.repeats:
            most, longest = _repeated(content, header, chunk)
            self._check_value(longest, trail)
        if chunk.has_lists and most > BATCH_BYTES:
            # The places of the long values, and the number of values in a row, are unknown.
            if most > _MOST_LIST_BYTES:
                raise LargePageError(chunk.leaf, most, header.values)
            if self.rows > 1:
                raise TooManyRowsError(1)
        trail.total += header.size
        if chunk.has_lists:
            if trail.total > MOST_PAGE_BYTES and trail.total > MOST_RATIO * (chunk.stop - chunk.start):
                raise LargePageError(chunk.leaf, trail.total, header.values)
            return
        # The pages of a batch that ends in this page.
        while trail.pages and trail.pages[0][0] <= trail.row - self.rows:
            trail.pages.popleft()
        before = sum(size for _, size in trail.pages)
        if before > BATCH_BYTES and self.rows > 1:
            raise TooManyRowsError(max(self.rows // 2 ** (before // BATCH_BYTES).bit_length(), 1))
        trail.row += header.values
        trail.pages.append((trail.row, header.size))

    def _check_value(self, longest: int, trail: _Trail) -> None:
        if not trail.chunk.has_lists and self.rows > 1 and self.rows * longest > BATCH_BYTES:
            raise TooManyRowsError(max(BATCH_BYTES // longest, 1))


def _check_page(chunk: Chunk, header: _Header) -> None:
    if header.size > MOST_PAGE_BYTES and header.size > MOST_RATIO * header.packed_size:
        raise LargePageError(chunk.leaf, header.size, header.values)


def _header(data: bytes, place: int) -> _Header | None:
    """The header at a place, of length 0 if it is cut off; None if there is none.

    Raises:
      DamagedPageError: it is damaged, so that pyarrow may see another header.
    """
    if data[place : place + 1] == b"\0":
        return None
    for length in _HEADER_BYTES:
        try:
            return _parsed(data[place : place + length])
        except ValueError as error:
            is_cut = isinstance(error.__cause__, IndexError)
            if not is_cut or len(data) - place >= _HEADER_BYTES[-1]:
                raise DamagedPageError(f"damaged page header: {error}") from error
            if len(data) - place <= length:
                break
        except (KeyError, TypeError, AttributeError, RecursionError) as error:
            raise DamagedPageError("damaged page header") from error
    return _Header(0, 0, 0, 0, 0, 0, {})


def _parsed(data: bytes) -> _Header:
    reader = CompactReader(data)
    fields = reader.struct()
    kind, size, packed_size = fields[1], fields[2], fields[3]
    # DataPageHeader, DictionaryPageHeader, DataPageHeaderV2: number of values, and the encoding of data pages.
    inner: dict[int, Any] = fields.get(
        {_DATA_PAGE: 5, _DICTIONARY_PAGE: 7, _DATA_PAGE_V2: 8}.get(kind, 6), {}
    )
    values, encoding = inner.get(1, 0), inner.get(4 if kind == _DATA_PAGE_V2 else 2, 0)
    if min(size, packed_size, values) < 0:
        raise DamagedPageError("a page has a negative size")
    return _Header(reader.at, kind, size, packed_size, values, encoding, inner)


def _longest(packed: bytes, header: _Header, chunk: Chunk) -> int:
    """The bytes of a dictionary's longest value; the size of the whole page if it is unreadable."""
    if not packed:
        return header.size
    try:
        data = packed if chunk.codec == "UNCOMPRESSED" else _unpacked(packed, header.size, chunk.codec)
    except (pa.ArrowException, OSError, ValueError):
        return header.size
    if chunk.kind == "FIXED_LEN_BYTE_ARRAY":
        return len(data) // max(header.values, 1)
    at = longest = 0
    while at + 4 <= len(data):
        (length,) = struct.unpack_from("<I", data, at)
        longest = max(longest, length)
        at += 4 + length
    return min(longest, header.size)


def _repeated(content: bytes, header: _Header, chunk: Chunk) -> tuple[int, int]:
    """The bytes of the values of a page of ``DELTA_BYTE_ARRAY``, and of the longest one.

    Raises:
      DamagedPageError: they are unreadable.
    """
    if not content:  # it was not read: each value may repeat nearly all of the page
        return header.size * header.values, header.size
    try:
        found = delta_lengths(_values(content, header, chunk), header.values)
    except (pa.ArrowException, OSError, ValueError, TypeError) as error:
        raise DamagedPageError(f"damaged page of DELTA_BYTE_ARRAY: {error}") from error
    return found.total, found.longest


def _values(content: bytes, header: _Header, chunk: Chunk) -> bytes:
    """The unpacked content of a data page after its levels."""
    if header.kind == _DATA_PAGE_V2:
        # DataPageHeaderV2: bytes of the definition and of the repetition levels, which are never packed.
        levels = header.inner.get(5, 0) + header.inner.get(6, 0)
        packed = content[levels:]
        is_packed = header.inner.get(7, True) and chunk.codec != "UNCOMPRESSED" and packed
        return _unpacked(packed, header.size - levels, chunk.codec) if is_packed else packed
    data = content if chunk.codec == "UNCOMPRESSED" else _unpacked(content, header.size, chunk.codec)
    at = 0
    for has_levels in (chunk.has_lists, chunk.has_nulls):
        if has_levels:  # the length of the levels, then the levels
            at += 4 + int.from_bytes(data[at : at + 4], "little")
    return data[at:]


def _unpacked(packed: bytes, size: int, codec: str) -> bytes:
    name = {"LZ4": "lz4_raw"}.get(codec, codec.lower())
    return bytes(pa.decompress(packed, size, codec=name))


def bounded_batches(
    read: Callable[[int], Iterator[pa.RecordBatch]], guard: PageGuard, chunks: Sequence[Chunk], rows: int
) -> Iterator[pa.RecordBatch]:
    """The batches of a row group, smaller if they would take too much memory.

    Args:
      read: reads the row group from its beginning, in batches of so many rows.
      guard: checks the bytes.
      chunks: the column chunks of the row group to read.
      rows: the largest number in a batch.

    Raises:
      LargePageError: a page would take too much memory.
      DamagedPageError: the memory of a page cannot be determined.
    """
    done, width = 0, max((chunk.width for chunk in chunks), default=0)
    if width:
        rows = max(min(rows, BATCH_BYTES // width), 1)
    while True:
        guard.watch(chunks, rows)
        batches, row = read(rows), 0
        try:
            while (batch := next(batches, None)) is not None:
                skipped = min(max(done - row, 0), batch.num_rows)
                row += batch.num_rows
                if skipped < batch.num_rows:
                    done = row
                    yield batch.slice(skipped)
            return
        except Exception:
            # pyarrow may have turned it into another error.
            if isinstance(guard.error, (LargePageError, DamagedPageError)):
                raise guard.error from None
            if not isinstance(guard.error, TooManyRowsError):
                raise
            rows = min(guard.error.rows, max(rows // 2, 1))
