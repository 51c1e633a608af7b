"""Reads only some pages of a Parquet column: pyarrow is shown a file that has pages of nulls for the others.

A page of nulls takes some tens of bytes, and is of version 2 of data pages, whose content may be uncompressed in any
column. What it stands for is not asked for, so its values do not matter; only the number of its rows does.
"""

from __future__ import annotations

import bisect
import io
from collections.abc import Collection
from typing import BinaryIO, NamedTuple

import pyarrow.parquet as pq

from beamlabel.transforms.inputs.page_index import OffsetIndexes, PageLocation, walk_pages

_DATA_PAGE_V2 = 3


class _Piece(NamedTuple):
    """A stretch of the file that is shown: made up, or read from ``offset``; it begins at ``start``."""

    start: int
    size: int
    offset: int | None
    data: bytes = b""


class SparseFile(io.RawIOBase):
    """A file in which the chunks of some columns are shown otherwise than they are.

    Args:
      raw: the file, seekable.
    """

    def __init__(self, raw: BinaryIO) -> None:
        super().__init__()
        self._raw = raw
        self._size = raw.seek(0, io.SEEK_END)
        self._at = 0
        self._pieces: list[_Piece] = []
        self._indexes: OffsetIndexes | None = None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = start + offset
        return self._at

    def read(self, size: int = -1) -> bytes:
        stop = self._size if size < 0 else min(self._at + size, self._size)
        parts = []
        while self._at < stop:
            part = self._read_piece(stop)
            if not part:
                break
            parts.append(part)
            self._at += len(part)
        return b"".join(parts)

    def _read_piece(self, stop: int) -> bytes:
        """Bytes from here on, at most to ``stop``; as many as one reading gives."""
        place = bisect.bisect_right(self._pieces, self._at, key=lambda piece: piece.start) - 1
        piece = self._pieces[place] if place >= 0 else None
        if piece is not None and self._at < piece.start + piece.size:
            within = self._at - piece.start
            stop = min(stop, piece.start + piece.size)
            if piece.offset is None:
                data = piece.data[within : within + stop - self._at]
                return data or bytes(stop - self._at)
            self._raw.seek(piece.offset + within)
        else:
            if place + 1 < len(self._pieces):
                stop = min(stop, self._pieces[place + 1].start)
            self._raw.seek(self._at)
        return self._raw.read(stop - self._at)

    def show_rows(self, file: pq.ParquetFile, group: int, column: int, rows: Collection[int]) -> bool:
        """Shows only those pages of a column chunk that hold some rows; until ``show_all``.

        Args:
          file: this one, as it was opened.
          group: the row group.
          column: the leaf column: of bytes, and in no list.
          rows: the rows that are wanted, from 0 in the row group. The others may read as null.

        Returns:
          Whether it does so; without an index of pages only if they are large.
        """
        chunk = file.metadata.row_group(group).column(column)
        leaf = file.schema.column(column)
        if leaf.max_repetition_level or chunk.physical_type != "BYTE_ARRAY":
            return False
        count = file.metadata.row_group(group).num_rows
        start = chunk.data_page_offset
        if chunk.dictionary_page_offset:
            start = min(start, chunk.dictionary_page_offset)
        stop = start + chunk.total_compressed_size
        try:
            pages = self._pages(group, column, chunk.has_offset_index, (start, stop, count))
        except (ValueError, KeyError, TypeError):
            return False  # damaged: pyarrow says what it is
        if not pages or not _are_sane(pages, start, stop, count):
            return False
        shown = _pieces(pages, start, count, leaf.max_definition_level, rows)
        # pyarrow stops after the last page, and never looks at what fills up the chunk.
        end = shown[-1].start + shown[-1].size
        if end > stop:
            return False
        shown.append(_Piece(end, stop - end, None))
        self._pieces = sorted([*self._pieces, *shown])
        return True

    def _pages(
        self, group: int, column: int, has_index: bool, chunk: tuple[int, int, int]
    ) -> list[PageLocation] | None:
        if not has_index:
            return walk_pages(self._raw, *chunk)
        self._indexes = self._indexes or OffsetIndexes(self._raw)
        return self._indexes.pages(group, column)

    def show_all(self) -> None:
        """Shows the file as it is."""
        self._pieces = []


def _are_sane(pages: list[PageLocation], start: int, stop: int, rows: int) -> bool:
    """Whether pages follow each other in the chunk and begin with row 0."""
    ends = [page.offset + page.size for page in pages]
    follow = all(end <= after.offset for end, after in zip(ends, pages[1:], strict=False))
    first_rows = [page.first_row for page in pages]
    return (
        follow
        and start <= pages[0].offset
        and ends[-1] <= stop
        and first_rows[0] == 0
        and all(one < other for one, other in zip(first_rows, [*first_rows[1:], rows], strict=True))
    )


def _pieces(
    pages: list[PageLocation], start: int, count: int, max_definition_level: int, rows: Collection[int]
) -> list[_Piece]:
    """The chunk as it is shown: the dictionary, then each page or one of nulls, without gaps."""
    first_rows = [page.first_row for page in pages]
    wanted = {bisect.bisect_right(first_rows, row) - 1 for row in rows}
    pieces = []
    at = start
    if pages[0].offset > start:
        pieces.append(_Piece(start, pages[0].offset - start, start))
        at = pages[0].offset
    for place, page in enumerate(pages):
        previous = pieces[-1] if pieces else None
        if place in wanted:
            if (
                previous is not None
                and previous.offset is not None
                and previous.offset + previous.size == page.offset
            ):
                # One reading for pages that follow each other.
                pieces[-1] = previous._replace(size=previous.size + page.size)
            else:
                pieces.append(_Piece(at, page.size, page.offset))
            at += page.size
        else:
            after = first_rows[place + 1] if place + 1 < len(pages) else count
            data = page_of_nulls(after - page.first_row, max_definition_level)
            pieces.append(_Piece(at, len(data), None, data))
            at += len(data)
    return pieces


def page_of_nulls(rows: int, max_definition_level: int) -> bytes:
    """A data page of nulls; of empty values if the column is required.

    Args:
      rows: in the page, at least 1; of a column of bytes that is in no list.
      max_definition_level: of the column.
    """
    if max_definition_level:
        # One run of the level 0: its length doubled, and the level in the fewest bytes that hold any.
        levels = _varint(rows << 1) + bytes((max_definition_level.bit_length() + 7) // 8)
        values = b""
    else:
        levels, values = b"", bytes(4 * rows)  # lengths of 0
    nulls = rows if max_definition_level else 0
    size = len(levels) + len(values)
    # DataPageHeaderV2: values, nulls, rows, PLAIN, bytes of the definition and repetition levels, uncompressed.
    inner = (
        b"".join(b"\x15" + _zigzag(value) for value in (rows, nulls, rows, 0, len(levels), 0)) + b"\x12\x00"
    )
    # PageHeader: type, sizes uncompressed and compressed, and after five fields the header above.
    outer = b"".join(b"\x15" + _zigzag(value) for value in (_DATA_PAGE_V2, size, size))
    return outer + b"\x5c" + inner + b"\x00" + levels + values


def _zigzag(value: int) -> bytes:
    return _varint(value << 1)


def _varint(value: int) -> bytes:
    data = bytearray()
    while value > 127:
        data.append(value & 127 | 128)
        value >>= 7
    data.append(value)
    return bytes(data)
