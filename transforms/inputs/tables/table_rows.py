"""Rows of CSV and JSON lines, each with its URI or with the reason for its absence."""

from __future__ import annotations

import base64
import csv
import dataclasses
import json
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import pyarrow as pa

from beamlabel.transforms.inputs.parquet_source import ParquetColumns
from beamlabel.transforms.inputs.tables.csv_cells import csv_cells
from beamlabel.transforms.inputs.tables.csv_records import csv_records
from beamlabel.transforms.inputs.tables.json_records import json_records
from beamlabel.transforms.inputs.text_blocks import MAX_RECORD_BYTES, CutLine
from beamlabel.transforms.inputs.uri_length import MAX_URI_BYTES, too_long, too_many_bytes
from beamlabel.transforms.records import Reason, TableFormat

BATCH_ROWS = 4096
_BATCH_BYTES = 4 << 20
# The part of an unreadable record to search; as long as a cell may be for `csv`.
_HEAD_BYTES = 128 << 10


Problem = tuple[str, Reason]
"""Why a record is not a row: one line for people, and the reason."""


class TableRow(NamedTuple):
    """A record.

    Attributes:
      row: its number in the file, from 0; blank lines and the header do not count.
      blank: the bytes of the blank lines before it.
      raw: its own bytes; a ``CutLine`` if it has too many.
      uri: None if the cell is empty, or there is a problem.
      problem: why it is not a row, and the reason.
      value: the object of JSON lines.
    """

    row: int
    blank: int
    raw: bytes
    uri: str | None
    problem: Problem | None
    value: Any = None

    @property
    def size(self) -> int:
        """The number of its bytes."""
        return self.raw.size if isinstance(self.raw, CutLine) else len(self.raw)


def encoded_schema(schema: pa.Schema) -> str:
    """A schema in the form for ``TableFormat``."""
    return base64.b64encode(schema.serialize().to_pybytes()).decode()


def schema_of(table: TableFormat) -> pa.Schema:
    """The inverse of ``encoded_schema``."""
    return pa.ipc.read_schema(pa.py_buffer(base64.b64decode(table.schema)))


def only(table: TableFormat, columns: ParquetColumns) -> TableFormat:
    """The format without unread columns: it travels with each unit."""
    schema = schema_of(table)
    read = {columns.uri, *(column.source for column in columns.kept)}
    used = [place for place, name in enumerate(schema.names) if name in read]
    fields = pa.schema([schema.field(place) for place in used])
    places = tuple(table.places[place] for place in used) if table.places else ()
    return dataclasses.replace(table, schema=encoded_schema(fields), places=places)


class TableReader:
    """Reads the records of one file.

    Args:
      table: the format of the file.
      columns: the columns to read.
      path: of the file, for messages.
    """

    def __init__(self, table: TableFormat, columns: ParquetColumns, path: str) -> None:
        self.schema = schema_of(table)
        self._delimiter = table.delimiter
        self._path = path
        self._width = table.width
        self._uri_name = columns.uri
        # A column's place is its place in the file. A file without records has no columns either.
        places: dict[str, int] = {}
        for place, name in zip(table.places or range(len(self.schema)), self.schema.names, strict=True):
            places.setdefault(name, place)
        self._uri = None if columns.uri is None else places.get(columns.uri)
        sources = dict.fromkeys(column.source for column in columns.kept)
        self._kept = {name: places[name] for name in sources if name in places}
        self._used = dict(self._kept)
        if columns.uri is not None and self._uri is not None:
            self._used[columns.uri] = self._uri

    def rows(self, blocks: Iterator[bytes], row: int = 0) -> Iterator[TableRow]:
        """The rows of a text that begins with the record number ``row``.

        Raises:
          ValueError: the text is malformed or damaged, or a line is too long.
        """
        blank = 0
        try:
            for raw, value, problem in self._records(blocks):
                if value is None and problem is None:
                    blank += len(raw)
                    continue
                yield self._row(row, blank, raw, value, problem)
                row, blank = row + 1, 0
        except ValueError as error:
            if self._path in str(error):
                raise
            raise ValueError(f"{self._path}: row {row}: {error}") from error

    def cut_row(self, row: int, raw: CutLine) -> TableRow:
        """The row of a record of which only the beginning is known."""
        detail = f"the line has {raw.size} bytes, more than the limit of {MAX_RECORD_BYTES}"
        return self._row(row, 0, raw, None, detail)

    def _records(self, blocks: Iterator[bytes]) -> Iterator[tuple[bytes, Any, str | None]]:
        """The bytes of each record, its cells or object (None for a blank line), and its problem."""
        if not self._delimiter:
            yield from json_records(blocks)
            return
        for raw, fields, problem in csv_records(blocks, self._delimiter):
            yield raw, fields or None, problem

    def _row(self, row: int, blank: int, raw: bytes, value: Any, problem: str | None) -> TableRow:
        is_csv = self._delimiter is not None
        uri = None
        if problem is None:
            problem = self._csv_problem(raw, value) if is_csv else self._json_problem(value)
        if problem is not None:
            reason = Reason.INVALID_ROW
            if len(raw) > MAX_URI_BYTES and self._begins_with_long_uri(raw):
                problem, reason = f"the URI has more than {MAX_URI_BYTES} bytes", Reason.URI_TOO_LONG
            return TableRow(row, blank, raw, None, (problem, reason))
        if is_csv:
            uri = None if self._uri is None else value[self._uri]
        elif self._uri_name is not None:
            uri = value.get(self._uri_name)
        if uri and (size := too_many_bytes(uri)) is not None:
            return TableRow(row, blank, raw, None, (too_long(size), Reason.URI_TOO_LONG))
        return TableRow(row, blank, raw, uri or None, None, None if is_csv else value)

    def _begins_with_long_uri(self, raw: bytes) -> bool:
        """Whether the beginning of an unreadable record shows a URI that is too long."""
        head = raw[:_HEAD_BYTES].decode("utf-8", "surrogateescape")
        if self._delimiter is None:
            if self._uri_name is None:
                return False
            match = re.search(re.escape(json.dumps(self._uri_name)) + r'\s*:\s*"((?:[^"\\]|\\.)*)', head)
            return match is not None and too_many_bytes(match[1]) is not None
        try:
            cells = next(csv.reader([head], delimiter=self._delimiter), [])
        except csv.Error:
            return False
        return (
            self._uri is not None and self._uri < len(cells) and too_many_bytes(cells[self._uri]) is not None
        )

    def _csv_problem(self, raw: bytes, fields: Sequence[str]) -> str | None:
        if len(fields) != self._width:
            return f"the row has {len(fields)} cells, but the file has {self._width} columns"
        if b"\0" in raw:
            return "the row holds a NUL"
        return None if raw.isascii() else self._not_utf8(fields)

    def _not_utf8(self, fields: Sequence[str]) -> str | None:
        for name, place in self._used.items():
            try:
                fields[place].encode()
            except UnicodeEncodeError:
                return f"the column {name!r} is not UTF-8"
        return None

    def _json_problem(self, value: Any) -> str | None:
        uri = value.get(self._uri_name) if self._uri_name is not None else None
        return None if uri is None or isinstance(uri, str) else f"{self._uri_name!r} is not a string"

    def kept(self, rows: Sequence[TableRow]) -> pa.RecordBatch:
        """The source columns of the kept columns, in the types of the file's schema.

        Args:
          rows: without problems.

        Raises:
          ValueError: a value does not fit its column: the file has changed.
        """
        if not self._kept:
            return pa.record_batch([pa.nulls(len(rows))], names=["\0"])  # gives the number of rows
        fields = [self.schema.field(self.schema.names.index(name)) for name in self._kept]
        try:
            return pa.record_batch(self._columns(rows, fields), schema=pa.schema(fields))
        except (pa.ArrowException, ValueError) as error:
            raise ValueError(f"{self._path}: rows from {rows[0].row} on: {error}") from error

    def _columns(self, rows: Sequence[TableRow], fields: Sequence[pa.Field]) -> list[pa.Array]:
        if not self._delimiter:
            return [pa.array([row.value.get(field.name) for row in rows], field.type) for field in fields]
        cells = self.texts(rows, list(self._kept))
        return [column.cast(field.type) for column, field in zip(cells, fields, strict=True)]

    def texts(self, rows: Sequence[TableRow], names: Sequence[str]) -> list[pa.Array]:
        """Columns of CSV as strings."""
        assert self._delimiter is not None
        places = [self._kept[name] for name in names]
        return csv_cells([row.raw for row in rows], self._width, places, self._delimiter)


def batches(rows: Iterator[TableRow]) -> Iterator[list[TableRow]]:
    """Rows in groups of a bounded size."""
    batch: list[TableRow] = []
    size = 0
    for row in rows:
        batch.append(row)
        size += len(row.raw)
        if len(batch) == BATCH_ROWS or size >= _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
