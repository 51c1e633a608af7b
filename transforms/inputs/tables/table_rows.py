"""Rows of CSV and JSON lines: each with its URI, or with the reason why it has none."""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import pyarrow as pa

from beamlabel.transforms.inputs.parquet_source import ParquetColumns
from beamlabel.transforms.inputs.tables.csv_cells import csv_cells
from beamlabel.transforms.inputs.tables.csv_records import csv_records
from beamlabel.transforms.inputs.tables.json_records import json_records
from beamlabel.transforms.records import TableFormat

BATCH_ROWS = 4096
_BATCH_BYTES = 4 << 20


class TableRow(NamedTuple):
    """A record.

    Attributes:
      row: its number in the file, from 0; blank lines and the header are none.
      blank: bytes of the blank lines before it.
      raw: its own bytes.
      uri: None if the cell is empty, or there is a problem.
      problem: why it is no row.
      value: of JSON lines, the object.
    """

    row: int
    blank: bytes
    raw: bytes
    uri: str | None
    problem: str | None
    value: Any = None


def encoded_schema(schema: pa.Schema) -> str:
    """A schema as ``TableFormat`` holds it."""
    return base64.b64encode(schema.serialize().to_pybytes()).decode()


def schema_of(table: TableFormat) -> pa.Schema:
    """The inverse of ``encoded_schema``."""
    return pa.ipc.read_schema(pa.py_buffer(base64.b64decode(table.schema)))


def only(table: TableFormat, columns: ParquetColumns) -> TableFormat:
    """The format without the columns that are not read: it travels with each unit."""
    schema = schema_of(table)
    read = {columns.uri, *(column.source for column in columns.kept)}
    used = [place for place, name in enumerate(schema.names) if name in read]
    fields = pa.schema([schema.field(place) for place in used])
    places = tuple(table.places[place] for place in used) if table.places else ()
    return dataclasses.replace(table, schema=encoded_schema(fields), places=places)


class TableReader:
    """Reads the records of one file.

    Args:
      table: how it is read.
      columns: what is read of it.
      path: of the file, for messages.
    """

    def __init__(self, table: TableFormat, columns: ParquetColumns, path: str) -> None:
        self.schema = schema_of(table)
        self._delimiter = table.delimiter
        self._path = path
        self._width = table.width
        self._uri_name = columns.uri
        # A column's place is that in the file. A file without a record has no columns either.
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
          ValueError: it is no such text, or damaged; or a line is too long.
        """
        blank = bytearray()
        try:
            for raw, uri, problem, value in self._csv(blocks) if self._delimiter else self._json(blocks):
                if problem is _BLANK:
                    blank += raw
                    continue
                yield TableRow(row, bytes(blank), raw, uri, problem, value)
                row += 1
                blank.clear()
        except ValueError as error:
            if self._path in str(error):
                raise
            raise ValueError(f"{self._path}: row {row}: {error}") from error

    def _csv(self, blocks: Iterator[bytes]) -> Iterator[tuple[bytes, str | None, str | None, Any]]:
        assert self._delimiter is not None
        width = self._width
        for raw, fields, problem in csv_records(blocks, self._delimiter):
            if not fields and problem is None:
                yield raw, None, _BLANK, None
                continue
            if problem is None and len(fields) != width:
                problem = f"{len(fields)} cells in a row; the file has {width} columns"
            if problem is None and b"\0" in raw:
                problem = "it holds a NUL"
            if problem is None and not raw.isascii():
                problem = self._not_utf8(fields)
            uri = None if problem or self._uri is None else fields[self._uri] or None
            yield raw, uri, problem, None

    def _not_utf8(self, fields: Sequence[str]) -> str | None:
        for name, place in self._used.items():
            try:
                fields[place].encode()
            except UnicodeEncodeError:
                return f"not UTF-8 in the column {name!r}"
        return None

    def _json(self, blocks: Iterator[bytes]) -> Iterator[tuple[bytes, str | None, str | None, Any]]:
        for raw, value, problem in json_records(blocks):
            if value is None:
                yield raw, None, problem or _BLANK, None
                continue
            uri = value.get(self._uri_name) if self._uri_name is not None else None
            if uri is not None and not isinstance(uri, str):
                yield raw, None, f"{self._uri_name!r} is no string", None
            else:
                yield raw, uri or None, None, value

    def kept(self, rows: Sequence[TableRow]) -> pa.RecordBatch:
        """The source columns of what is kept, in the types of the file's schema.

        Args:
          rows: those without a problem.

        Raises:
          ValueError: a value does not fit its column: the file is not as it was.
        """
        if not self._kept:
            return pa.record_batch([pa.nulls(len(rows))], names=["\0"])  # it is for its number of rows
        fields = [self.schema.field(self.schema.names.index(name)) for name in self._kept]
        try:
            return pa.record_batch(self._columns(rows, fields), schema=pa.schema(fields))
        except (pa.ArrowException, ValueError) as error:
            raise ValueError(f"{self._path}: rows from {rows[0].row}: {error}") from error

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


# What a blank line's "problem" is.
_BLANK = "blank"


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
