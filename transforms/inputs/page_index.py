"""Where the pages of a Parquet column lie: its offset index, which pyarrow reads only for itself.

The format: https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift (``FileMetaData``,
``OffsetIndex``) in Thrift's compact protocol, https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md.
"""

from __future__ import annotations

import struct
from typing import Any, BinaryIO, NamedTuple

_MAGIC = b"PAR1"
# The wire types of the compact protocol.
_TRUE, _FALSE, _BYTE, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = 1, 2, 3, 7, 8, 9, 10, 11, 12
_INTEGERS = (4, 5, 6)


class PageLocation(NamedTuple):
    """A data page: where its header begins in the file, the bytes of both, and its first row in the row group."""

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
        self._raw = raw
        size = raw.seek(0, 2)
        raw.seek(max(size - 8, 0))
        length, magic = struct.unpack("<i4s", _exactly(raw, 8))
        if magic != _MAGIC or not 0 < length <= size - 8:
            raise ValueError("no Parquet footer")
        raw.seek(size - 8 - length)
        footer = CompactReader(_exactly(raw, length)).struct()
        # FileMetaData.row_groups, RowGroup.columns, ColumnChunk.offset_index_offset and _length.
        self._places = [
            [(chunk.get(4), chunk.get(5)) for chunk in group.get(1, ())] for group in footer.get(4, ())
        ]

    def pages(self, group: int, column: int) -> list[PageLocation] | None:
        """The data pages of a column chunk, in order; None if the file does not say.

        Raises:
          ValueError: the index is damaged.
        """
        offset, length = self._places[group][column]
        if not offset or not length:
            return None
        self._raw.seek(offset)
        index = CompactReader(_exactly(self._raw, length)).struct()
        return [PageLocation(page[1], page[2], page[3]) for page in index.get(1, ())]


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
    """Thrift's compact protocol → dicts of field numbers and values."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

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
            number = number + delta if delta else self._integer()
            fields[number] = kind == _TRUE if kind in (_TRUE, _FALSE) else self._value(kind)
        return fields

    def _value(self, kind: int) -> Any:
        if kind in _INTEGERS:
            return self._integer()
        if kind == _BINARY:
            return self._bytes(self._varint())
        if kind == _STRUCT:
            return self._struct()
        if kind in (_LIST, _SET):
            head = self._byte()
            count = head >> 4 if head >> 4 != 15 else self._varint()
            return [self._value(head & 15) for _ in range(count)]
        if kind == _MAP:
            count = self._varint()
            kinds = self._byte() if count else 0
            return [(self._value(kinds >> 4), self._value(kinds & 15)) for _ in range(count)]
        if kind in (_TRUE, _FALSE, _BYTE):  # bools in lists are bytes
            return self._byte()
        if kind == _DOUBLE:
            return struct.unpack("<d", self._bytes(8))[0]
        raise ValueError(f"unknown type {kind} in Thrift data")

    def _byte(self) -> int:
        self._at += 1
        return self._data[self._at - 1]

    def _bytes(self, length: int) -> bytes:
        self._at += length
        if self._at > len(self._data):
            raise IndexError
        return self._data[self._at - length : self._at]

    def _varint(self) -> int:
        value = shift = 0
        while True:
            byte = self._byte()
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7

    def _integer(self) -> int:
        zigzag = self._varint()
        return (zigzag >> 1) ^ -(zigzag & 1)
