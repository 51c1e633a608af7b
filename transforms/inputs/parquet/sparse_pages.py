"""Reads only some pages of a Parquet column: pyarrow sees a file with pages of nulls in place of the others.

A page of nulls takes some tens of bytes. It is a data page of version 2, whose content may be uncompressed in any
column. Only its number of rows matters, because its values are never used. With a wrong index, pyarrow would return
wrong rows, so each page that is read is compared with the index.
"""

from __future__ import annotations

import bisect
import io
from collections.abc import Collection, Iterable
from typing import Any, BinaryIO, NamedTuple

import pyarrow.parquet as pq

from beamlabel.transforms.inputs.parquet.chunk_file import ChunkFile
from beamlabel.transforms.inputs.parquet.page_guard import PageGuard
from beamlabel.transforms.inputs.parquet.page_index import (
    HEADER_BYTES,
    OffsetIndexes,
    PageLocation,
    page_rows,
    walk_pages,
)
from beamlabel.transforms.inputs.parquet.positioned_file import PositionedFile

_DATA_PAGE_V2 = 3


class _Page(NamedTuple):
    """A shown page: the offset of its header, the bytes of both, and its number of rows in the index."""

    offset: int
    size: int
    rows: int


class _Piece(NamedTuple):
    """A stretch of the shown file, beginning at ``start``: generated, or read from ``offset``.

    Attributes:
      pages: the pages in it, which have to match the index.
    """

    start: int
    size: int
    offset: int | None
    data: bytes = b""
    pages: tuple[_Page, ...] = ()


class SparseFile(PositionedFile):
    """A file that shows the chunks of some columns in another form.

    Args:
      raw: the file, seekable; a ``ChunkFile`` gets the ranges of the next reads.
      indexes: of its pages, if known.

    Attributes:
      guard: checks the bytes read.
      error: why reading ``raw`` failed; not a fault in the content of the file.
    """

    def __init__(self, raw: BinaryIO, indexes: OffsetIndexes | None = None) -> None:
        self._raw = raw
        super().__init__(raw.seek(0, io.SEEK_END))
        self._pieces: list[_Piece] = []
        # For each chunk in another form: the ranges that are read.
        self._shown: dict[tuple[int, int], list[tuple[int, int]]] = {}
        self.indexes = indexes
        self.guard = PageGuard()
        self.error: OSError | None = None
        self.begun: list[tuple[int, bytes]] | None = []

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return self._size

    def read(self, size: int = -1) -> bytes:
        stop = self._size if size < 0 else min(self._at + size, self._size)
        parts = []
        while self._at < stop:
            try:
                part = self._read_piece(stop)
            except OSError as error:
                self.error = error
                raise
            if not part:
                break
            parts.append(part)
            self._at += len(part)
        data = b"".join(parts)
        if self.begun is not None:
            self.begun.append((self._at - len(data), data))
        self.guard.see(self._at - len(data), data)
        return data

    def footer(self) -> bytes:
        """The footer, from the bytes that pyarrow read on opening the file; empty if they do not cover it."""
        read, self.begun = sorted(self.begun or ()), None
        tail, end = b"", 0
        for start, data in read:
            tail = tail + data[end - start :] if start <= end else data
            end = max(end, start + len(data))
        if len(tail) < 8:
            return b""
        length = int.from_bytes(tail[-8:-4], "little")
        return tail[-8 - length : -8] if length + 8 <= len(tail) else b""

    def _read_piece(self, stop: int) -> bytes:
        """Bytes from the current position to ``stop`` at most; as many as one read returns."""
        place = bisect.bisect_right(self._pieces, self._at, key=lambda piece: piece.start) - 1
        piece = self._pieces[place] if place >= 0 else None
        if piece is not None and self._at < piece.start + piece.size:
            within = self._at - piece.start
            stop = min(stop, piece.start + piece.size)
            if piece.offset is None:
                data = piece.data[within : within + stop - self._at]
                return data or bytes(stop - self._at)
            self._raw.seek(piece.offset + within)
            data = self._raw.read(stop - self._at)
            self._check_pages(piece, piece.offset + within, data)
            return data
        if place + 1 < len(self._pieces):
            stop = min(stop, self._pieces[place + 1].start)
        self._raw.seek(self._at)
        return self._raw.read(stop - self._at)

    def _check_pages(self, piece: _Piece, offset: int, data: bytes) -> None:
        """Compares the pages that begin in ``data`` with the index.

        Raises:
          ValueError: they differ, so that wrong rows would be returned.
        """
        place = bisect.bisect_left(piece.pages, offset, key=lambda page: page.offset)
        for page in piece.pages[place:]:
            if page.offset >= offset + len(data):
                return
            begin = page.offset - offset
            found = page_rows(data[begin : begin + HEADER_BYTES[0]])
            if found is None:
                found = page_rows(self._header(page))
            size, count = found or (0, 0)
            if (size, count) != (page.size, page.rows):
                raise ValueError(
                    f"damaged Parquet: its page index says {page.rows} rows in {page.size} bytes at byte "
                    f"{page.offset}, but there are {count} rows in {size} bytes; write the file again"
                )

    def _header(self, page: _Page) -> bytes:
        at = self._raw.tell()
        self._raw.seek(page.offset)
        header = b""
        wanted = min(HEADER_BYTES[-1], page.size)
        while len(header) < wanted and (part := self._raw.read(wanted - len(header))):
            header += part
        self._raw.seek(at)
        return header

    def show_rows(self, file: pq.ParquetFile, group: int, column: int, rows: Collection[int]) -> bool:
        """Shows only the pages of a column chunk that hold some rows, until ``show_all``.

        Args:
          file: this one, opened.
          group: the row group.
          column: the leaf column; in no list.
          rows: the wanted rows, from 0 in the row group. The others may read as null.

        Returns:
          Whether pages are left out; without a page index, only for columns of bytes with large pages.
        """
        chunk = file.metadata.row_group(group).column(column)
        leaf = file.schema.column(column)
        width = _width(leaf)
        if leaf.max_repetition_level or (width is None and not leaf.max_definition_level):
            return False
        count = file.metadata.row_group(group).num_rows
        start, stop = chunk_range(chunk)
        try:
            if chunk.has_offset_index:
                pages = self.indexed_pages(group, column)
            elif chunk.physical_type != "BYTE_ARRAY":
                return False
            else:
                pages = walk_pages(self._raw, start, stop, count)
        except (ValueError, KeyError, TypeError, IndexError):
            return False  # damaged: pyarrow reports it
        if not pages or not are_sane(pages, start, stop, count):
            return False
        shown = _pieces(pages, (start, count), (leaf.max_definition_level, width or 0), rows)
        # pyarrow stops after the last page and never reads the padding of the chunk.
        end = shown[-1].start + shown[-1].size
        if end > stop:
            return False
        shown.append(_Piece(end, stop - end, None))
        self._pieces = sorted([*self._pieces, *shown], key=lambda piece: piece.start)
        read = [(piece.offset, piece.offset + piece.size) for piece in shown if piece.offset is not None]
        self._shown[start, stop] = read
        return True

    def indexed_pages(self, group: int, column: int) -> list[PageLocation] | None:
        """The data pages of a column chunk by its offset index; None if there is none.

        Raises:
          ValueError, KeyError, TypeError, IndexError: it is damaged.
        """
        self.indexes = self.indexes or OffsetIndexes(self._raw)
        return self.indexes.pages(self._raw, group, column)

    def expect(self, chunks: Iterable[tuple[int, int]], *, all_of_them: bool) -> None:
        """Sets the column chunks that may be read next; if all of them will be, small ones are read together.

        Raises:
          OSError: see ``ChunkFile.expect``; also set as ``error``.
        """
        if isinstance(self._raw, ChunkFile):
            ranges = [one for chunk in chunks for one in self._shown.get(chunk, [chunk])]
            try:
                self._raw.expect(ranges, all_of_them=all_of_them)
            except OSError as error:
                self.error = error
                raise

    def show_all(self) -> None:
        """Shows the file unchanged."""
        self._pieces, self._shown = [], {}


def chunk_range(chunk: pq.ColumnChunkMetaData) -> tuple[int, int]:
    """The byte range of a column chunk in its file."""
    start = chunk.data_page_offset
    if chunk.dictionary_page_offset:
        start = min(start, chunk.dictionary_page_offset)
    return start, start + chunk.total_compressed_size


def is_leaf_of(leaf: str, columns: Iterable[str]) -> bool:
    """Whether a leaf, by its path, is one of the columns or fields, or lies in one."""
    return any(leaf == name or leaf.startswith(f"{name}.") for name in columns)


def _width(leaf: Any) -> int | None:
    """The bytes of a plain value that is 0 or empty; None if it does not take whole bytes."""
    widths = {"BYTE_ARRAY": 4, "INT32": 4, "FLOAT": 4, "INT64": 8, "DOUBLE": 8, "INT96": 12}
    if leaf.physical_type == "FIXED_LEN_BYTE_ARRAY":
        return int(leaf.length)
    return widths.get(leaf.physical_type)


def are_sane(pages: list[PageLocation], start: int, stop: int, rows: int) -> bool:
    """Whether the pages follow each other in the chunk and begin with row 0."""
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
    pages: list[PageLocation], chunk: tuple[int, int], column: tuple[int, int], rows: Collection[int]
) -> list[_Piece]:
    """The chunk as shown: the dictionary, then the wanted pages, with a page of nulls for those between them.

    Args:
      pages: of the chunk.
      chunk: its first byte, and its rows.
      column: its largest definition level, and the bytes of a value.
      rows: the wanted rows.
    """
    start, count = chunk
    first_rows = [page.first_row for page in pages]
    after = [*first_rows[1:], count]
    wanted = {bisect.bisect_right(first_rows, row) - 1 for row in rows}
    pieces = []
    at = start
    if pages[0].offset > start:
        pieces.append(_Piece(start, pages[0].offset - start, start))
        at = pages[0].offset
    hidden = 0
    for place, page in enumerate(pages):
        if place not in wanted:
            hidden += after[place] - page.first_row
            if place + 1 < len(pages) and place + 1 not in wanted:
                continue
            data = page_of_nulls(hidden, *column)
            pieces.append(_Piece(at, len(data), None, data))
            at, hidden = at + len(data), 0
            continue
        shown = _Page(page.offset, page.size, after[place] - page.first_row)
        previous = pieces[-1] if pieces else None
        if (
            previous is not None
            and previous.offset is not None
            and previous.offset + previous.size == page.offset
        ):
            # One read for consecutive pages.
            pieces[-1] = previous._replace(size=previous.size + page.size, pages=(*previous.pages, shown))
        else:
            pieces.append(_Piece(at, page.size, page.offset, pages=(shown,)))
        at += page.size
    return pieces


def page_of_nulls(rows: int, max_definition_level: int, width: int = 4) -> bytes:
    """A data page of nulls; of zeros or empty values if the column is required.

    Args:
      rows: in the page, at least 1; the column is in no list.
      max_definition_level: of the column.
      width: bytes of a required column's value; 4 for values of bytes, for their length, 0.
    """
    if max_definition_level:
        # One run of level 0: its doubled length, and the level in the fewest bytes that can hold any level.
        levels = _varint(rows << 1) + bytes((max_definition_level.bit_length() + 7) // 8)
        values = b""
    else:
        levels, values = b"", bytes(width * rows)
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
