"""Describes the inputs that are CSV, TSV and JSON lines, before the run."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa

from beamlabel.transforms.inputs.parquet_source import ParquetColumns, open_parquet
from beamlabel.transforms.inputs.tables.decide_types import with_types
from beamlabel.transforms.inputs.tables.describe import describe
from beamlabel.transforms.inputs.tables.table_rows import only, schema_of
from beamlabel.transforms.records import InputFile

TABLES = ("csv", "tsv", "jsonl")
"""The formats of text tables."""


def described(
    files: Sequence[InputFile],
    uri_column: str | None,
    keep_columns: Sequence[str],
    *,
    rows: int | None,
    in_threads: Callable[[Callable[[Any], Any], list[Any]], list[Any]],
) -> list[InputFile]:
    """The files; tables get a description of their format, and the types of their kept columns.

    Kept columns take one pass over the whole file.

    Args:
      files: the inputs.
      uri_column, keep_columns: the options.
      rows: the number of rows to read in each file; None: all.
      in_threads: maps a function over a list.

    Raises:
      OSError: a file cannot be read.
      ValueError: it is damaged, or it is ambiguous how to read it.
    """
    tables = [file for file in files if file.format in TABLES]
    if not tables:
        return list(files)

    def with_format(file: InputFile) -> InputFile:
        return dataclasses.replace(file, table=describe(file.path, file.format, uri_column))

    tables = in_threads(with_format, tables)
    if keep_columns:
        others = in_threads(_schema, [file.path for file in files if file.format == "parquet"])
        tables = with_types(tables, keep_columns, others, rows=rows, in_threads=in_threads)
    found = {file.path: file for file in tables}
    return [found.get(file.path, file) for file in files]


def _schema(path: str) -> pa.Schema:
    with open_parquet(path) as parquet:
        return parquet.schema_arrow


def with_used_columns(file: InputFile, columns: ParquetColumns) -> InputFile:
    """The file as it travels with units: a table has only the columns to read."""
    return file if file.table is None else dataclasses.replace(file, table=only(file.table, columns))


def schema_of_input(file: InputFile) -> pa.Schema:
    """The columns of a file with columns."""
    return _schema(file.path) if file.table is None else schema_of(file.table)
