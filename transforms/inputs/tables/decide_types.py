"""The types of kept columns of CSV and JSON lines: one for all files, decided by all values before the run."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Union

import pyarrow as pa

from beamlabel.transforms.inputs.kept_columns import KeptColumn, KeptReader, is_always_kept, sources_of
from beamlabel.transforms.inputs.parquet_source import ParquetColumns
from beamlabel.transforms.inputs.tables.csv_types import CellTypes
from beamlabel.transforms.inputs.tables.json_types import JsonTypes
from beamlabel.transforms.inputs.tables.table_rows import (
    TableReader,
    TableRow,
    batches,
    encoded_schema,
    schema_of,
)
from beamlabel.transforms.inputs.text_blocks import open_text, skip
from beamlabel.transforms.inputs.unify_kept import check_examples
from beamlabel.transforms.records import InputFile
from beamlabel.transforms.rows import tf_examples
from beamlabel.transforms.rows.types import is_text

_Types = Union[CellTypes, JsonTypes]
_Map = Callable[[Callable[[Any], Any], list[Any]], list[Any]]


def with_types(
    files: Sequence[InputFile],
    keep_columns: Sequence[str],
    others: Sequence[pa.Schema],
    *,
    rows: int | None,
    in_threads: _Map,
) -> list[InputFile]:
    """The files with the types of their kept columns; reads each file once, as a stream.

    Args:
      files: CSV, TSV and JSON lines, described.
      keep_columns: values of ``--keep_columns``.
      others: schemas of the other inputs, which have to agree: a column of strings there becomes strings here.
      rows: the number of rows to read in each file; None: all.
      in_threads: maps a function over the files.

    Raises:
      OSError: a file cannot be read.
      ValueError: a file is damaged, or no type holds a column of JSON lines.
    """
    wanted = list(dict.fromkeys(source for text in keep_columns for source in sources_of(text)))
    seen = in_threads(lambda file: _seen(file, wanted, rows), list(files))
    cells: dict[str, CellTypes] = {}
    values: dict[str, JsonTypes] = {}
    for types in seen:
        for source, one in types.items():
            if isinstance(one, CellTypes):
                cells.setdefault(source, CellTypes()).merge(one)
            else:
                values.setdefault(source, JsonTypes()).merge(one)
    kinds = {source: _json_type(source, one) for source, one in values.items()}
    fields = itertools.chain(*others, (pa.field(*pair) for pair in kinds.items()))
    texts = {field.name for field in fields if _is_text(field.type)}
    csv_kinds = {source: pa.string() if source in texts else one.type() for source, one in cells.items()}
    return [_typed(file, csv_kinds if file.format != "jsonl" else kinds) for file in files]


def _is_text(kind: pa.DataType) -> bool:
    return is_text(kind.value_type if pa.types.is_dictionary(kind) else kind)


def _json_type(source: str, types: JsonTypes) -> pa.DataType:
    try:
        return types.type()
    except ValueError as error:
        raise ValueError(
            f"--keep_columns: no type holds the values of {source!r}: {error}; use one type, or leave the column out"
        ) from error


def _typed(file: InputFile, kinds: dict[str, pa.DataType]) -> InputFile:
    assert file.table is not None
    schema = schema_of(file.table)
    fields = [field.with_type(kinds.get(field.name, field.type)) for field in schema]
    if file.format == "jsonl":  # a name may be absent in all of a file
        fields += [pa.field(name, kind) for name, kind in kinds.items() if name not in schema.names]
    table = dataclasses.replace(file.table, schema=encoded_schema(pa.schema(fields)))
    return dataclasses.replace(file, table=table)


def _seen(file: InputFile, wanted: Sequence[str], rows: int | None) -> dict[str, _Types]:
    assert file.table is not None
    names = schema_of(file.table).names
    if file.format == "jsonl":
        return _seen_json(file, wanted, rows)
    sources = [source for source in wanted if source in names]
    types = {source: CellTypes() for source in sources}
    if sources:
        for reader, batch in _batches(file, sources, rows):
            for source, texts in zip(sources, reader.texts(batch, sources), strict=True):
                types[source].add(texts)
    return dict(types)


def _seen_json(file: InputFile, wanted: Sequence[str], rows: int | None) -> dict[str, _Types]:
    types: dict[str, JsonTypes] = {}
    for _, batch in _batches(file, (), rows):
        for row in batch:
            for source in wanted:
                if source in row.value:
                    place = f"row {row.row} of {file.path}"
                    types.setdefault(source, JsonTypes()).add(row.value[source], place)
    return dict(types)


def _batches(
    file: InputFile, sources: Sequence[str], rows: int | None
) -> Iterator[tuple[TableReader, list[TableRow]]]:
    """Rows without a problem."""
    assert file.table is not None
    kept = tuple(KeptColumn(source, source, pa.string()) for source in sources)
    reader = TableReader(file.table, ParquetColumns(kept=kept), file.path)
    with open_text(file.path) as text:
        found = itertools.islice(reader.rows(skip(text.blocks, file.table.data_start)), rows)
        for batch in batches(row for row in found if row.problem is None):
            yield reader, batch


def check_table_values(
    file: InputFile, columns: ParquetColumns, output_format: str, *, rows: int | None = None
) -> None:
    """Checks the kept columns of a file whose values may not fit the output; reads no others.

    Args, Raises: see ``unify_kept.check_values``.
    """
    assert file.table is not None
    schema = schema_of(file.table)
    tfrecord = output_format == "tfrecord"
    doubtful = [
        column
        for column in columns.kept
        if not is_always_kept(column, schema) or (tfrecord and not tf_examples.is_always_exact(column.type))
    ]
    if not doubtful:
        return
    kept = KeptReader(schema, doubtful, file.path)
    for reader, batch in _batches(file, [column.source for column in doubtful], rows):
        for column, values in zip(doubtful, kept.read(reader.kept(batch), batch[0].row), strict=True):
            if tfrecord:
                check_examples(column, values, file.path)
