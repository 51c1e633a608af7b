"""The places of a Parquet column's pages, from its offset index or from the header of each page.

pyarrow does not expose either.

The format: https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift (``FileMetaData``,
``OffsetIndex``, ``PageHeader``) in Thrift's compact protocol,
https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md.
"""

from __future__ import annotations

import struct
from typing import Any, BinaryIO, NamedTuple

_MAGIC = b"PAR1"
# A header takes some tens of bytes, but may include the smallest and the largest value.
HEADER_BYTES = (256, 1 << 16)
_DATA_PAGE, _DICTIONARY_PAGE, _DATA_PAGE_V2 = 0, 2, 3
# Each header is a request; pages with a smaller average size are not worth it.
_WORTH_BYTES = 1 << 16
_FIRST_PAGES = 8
# The largest index; an index of a hundred thousand pages takes less.
_MOST_INDEX_BYTES = 4 << 20
# The wire types of the compact protocol.
_TRUE, _FALSE, _BYTE, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = 1, 2, 3, 7, 8, 9, 10, 11, 12
_INTEGERS = (4, 5, 6)
# A 64-bit number takes ten bytes; Parquet's structs are six levels deep. Anything beyond is a denial of service.
_VARINT_BYTES, _MOST_DEEP = 10, 40


class PageLocation(NamedTuple):
    """A data page: the offset of its header in the file, the bytes of both, and its first row in the row group."""

    offset: int
    size: int
    first_row: int


class OffsetIndexes:
    """The offset indexes of an open file.

    Args:
      raw: the file, seekable.

    Raises:
      ValueError: its footer is damaged.
    """

    def __init__(self, raw: BinaryIO) -> None:
        self._pages: dict[tuple[int, int], list[PageLocation] | None] = {}
        size = raw.seek(0, 2)
        raw.seek(max(size - 8, 0))
        length, magic = struct.unpack("<i4s", _exactly(raw, 8))
        if magic != _MAGIC or not 0 < length <= size - 8:
            raise ValueError("the Parquet footer is missing")
        raw.seek(size - 8 - length)
        footer = CompactReader(_exactly(raw, length)).struct()
        self._size = size
        # FileMetaData.row_groups, RowGroup.columns, ColumnChunk.offset_index_offset and _length.
        try:
            self._places = [
                [(chunk.get(4), chunk.get(5)) for chunk in group.get(1, ())] for group in footer.get(4, ())
            ]
        except (AttributeError, TypeError) as error:
            raise ValueError("damaged Parquet footer") from error

    def pages(self, raw: BinaryIO, group: int, column: int) -> list[PageLocation] | None:
        """The data pages of a column chunk, in order; None if the file has no index of them.

        Args:
          raw: the file, open; each index is read once.
          group, column: identify the chunk.

        Raises:
          ValueError: the index is damaged.
        """
        if (group, column) not in self._pages:
            try:
                self._pages[group, column] = self._read(raw, *self._places[group][column])
            except (AttributeError, IndexError, KeyError, TypeError) as error:
                raise ValueError("damaged page index") from error
        return self._pages[group, column]

    def _read(self, raw: BinaryIO, offset: int | None, length: int | None) -> list[PageLocation] | None:
        if not offset or not length or length > _MOST_INDEX_BYTES:
            return None
        if offset < 0 or not 0 < length <= self._size - offset:
            raise ValueError("the page index lies outside the file")
        raw.seek(offset)
        index = CompactReader(_exactly(raw, length)).struct()
        pages = [PageLocation(page[1], page[2], page[3]) for page in index.get(1, ())]
        if not all(type(number) is int and number >= 0 for page in pages for number in page):
            raise ValueError("damaged page index")
        return pages


def page_rows(header: bytes) -> tuple[int, int] | None:
    """The content of a data page's header: the bytes of header and page, and its rows; None if it is cut off.

    Args:
      header: its first bytes, in a column that is in no list.

    Raises:
      ValueError: it is damaged, or of another page.
    """
    reader = CompactReader(header)
    try:
        fields = reader.struct()
    except ValueError as error:
        if isinstance(error.__cause__, IndexError):
            return None
        raise
    size, rows = _size_and_rows(fields)
    if rows is None:
        raise ValueError("not a data page")
    return reader.at + size, rows


def _size_and_rows(header: dict[int, Any]) -> tuple[int, int | None]:
    """A page's bytes in the file, and its rows; None for a dictionary.

    Raises:
      ValueError: it is damaged, or of an unknown kind.
    """
    # DataPageHeader.num_values; DataPageHeaderV2.num_rows.
    for kind, inner, field in ((_DATA_PAGE, 5, 1), (_DATA_PAGE_V2, 8, 3), (_DICTIONARY_PAGE, None, None)):
        if header.get(1) == kind:
            size = header.get(3)
            about = header.get(inner) if inner else {}
            rows = about.get(field) if field and isinstance(about, dict) else None
            if type(size) is not int or size < 0 or (inner and (type(rows) is not int or rows < 0)):
                raise ValueError("damaged page header")
            return size, rows
    raise ValueError(f"a page has the unknown kind {header.get(1)!r:.40}")


def walk_pages(raw: BinaryIO, start: int, stop: int, rows: int) -> list[PageLocation] | None:
    """The data pages of a column chunk without lists, found from header to header.

    Args:
      raw: the file, seekable.
      start, stop: the chunk's bytes in it.
      rows: of the chunk.

    Returns:
      None if the pages are too small to be worth it.

    Raises:
      ValueError: a header is damaged, or of an unknown kind.
    """
    pages: list[PageLocation] = []
    at, row = start, 0
    while row < rows:
        header, length = _header(raw, at, stop)
        size, count = _size_and_rows(header)
        if count is not None:
            pages.append(PageLocation(at, length + size, row))
            row += count
        at += length + size
        if len(pages) >= _FIRST_PAGES and at - start < len(pages) * _WORTH_BYTES:
            return None
    return pages


def _header(raw: BinaryIO, at: int, stop: int) -> tuple[dict[int, Any], int]:
    """The header of a page, and its length in bytes."""
    for length in HEADER_BYTES:
        raw.seek(at)
        reader = CompactReader(_exactly(raw, max(min(length, stop - at), 0)))
        try:
            header = reader.struct()
        except ValueError:
            if length == HEADER_BYTES[-1] or length >= stop - at:
                raise
            continue
        return header, reader.at
    raise AssertionError


def _exactly(raw: BinaryIO, length: int) -> bytes:
    parts = []
    while length > 0:
        part = raw.read(length)
        if not part:
            raise ValueError("the file ends too early")
        parts.append(part)
        length -= len(part)
    return b"".join(parts)


class CompactReader:
    """Thrift's compact protocol → dicts of field numbers and values.

    Attributes:
      at: the number of bytes read so far.
    """

    def __init__(self, data: bytes) -> None:
        self._data, self.at, self._deep = data, 0, 0

    def struct(self) -> dict[int, Any]:
        """A struct.

        Raises:
          ValueError: it is damaged.
        """
        try:
            return self._struct()
        except (IndexError, struct.error) as error:
            raise ValueError("damaged Thrift data") from error

    def _struct(self) -> dict[int, Any]:
        fields: dict[int, Any] = {}
        number = 0
        while (head := self._byte()) != 0:
            kind, delta = head & 15, head >> 4
            number = number + delta if delta else self.integer()
            fields[number] = kind == _TRUE if kind in (_TRUE, _FALSE) else self._value(kind)
        return fields

    def _value(self, kind: int) -> Any:
        if kind in _INTEGERS:
            return self.integer()
        if kind == _BINARY:
            return self.bytes(self.varint())
        if kind in (_TRUE, _FALSE, _BYTE):  # bools in lists are bytes
            return self._byte()
        if kind == _DOUBLE:
            return struct.unpack("<d", self.bytes(8))[0]
        if self._deep == _MOST_DEEP:
            raise ValueError(f"Thrift data have more than {_MOST_DEEP} levels")
        self._deep += 1
        value = self._values(kind)
        self._deep -= 1
        return value

    def _values(self, kind: int) -> Any:
        if kind == _STRUCT:
            return self._struct()
        if kind in (_LIST, _SET):
            head = self._byte()
            count = head >> 4 if head >> 4 != 15 else self.varint()
            return [self._value(head & 15) for _ in range(count)]
        if kind == _MAP:
            count = self.varint()
            kinds = self._byte() if count else 0
            return [(self._value(kinds >> 4), self._value(kinds & 15)) for _ in range(count)]
        raise ValueError(f"Thrift data have the unknown type {kind}")

    def _byte(self) -> int:
        self.at += 1
        return self._data[self.at - 1]

    def bytes(self, length: int) -> bytes:
        """Reads bytes; raises ``IndexError`` if there are fewer, like the methods below."""
        self.at += length
        if self.at > len(self._data):
            raise IndexError
        return self._data[self.at - length : self.at]

    def varint(self) -> int:
        """An unsigned number of at most 64 bits."""
        value = 0
        for shift in range(0, 7 * _VARINT_BYTES, 7):
            byte = self._byte()
            value |= (byte & 127) << shift
            if byte < 128:
                return value
        raise ValueError(f"Thrift data have a number of more than {_VARINT_BYTES} bytes")

    def integer(self) -> int:
        """A signed number of at most 64 bits."""
        zigzag = self.varint()
        return (zigzag >> 1) ^ -(zigzag & 1)
