"""Kept columns of many files: one type for each, and a check for values that do not fit it, before the run."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from beamlabel.transforms.inputs.kept_columns import KeptColumn, KeptReader, is_always_kept
from beamlabel.transforms.inputs.parquet_source import ParquetColumns, open_parquet
from beamlabel.transforms.rows import tf_examples
from beamlabel.transforms.rows.types import is_list, stored_type, unified_type

_BATCH_ROWS = 16_384


def unified_columns(files: Sequence[tuple[str, ParquetColumns]]) -> ParquetColumns:
    """The columns to read from all files, each kept column with a type that holds its values in all of them.

    Args:
      files: path and columns of each file, at least one; all of the same ``--keep_columns``.

    Raises:
      ValueError: the files have different columns of images or URIs; or no type holds a column, named with two files
        and their types of it.
    """
    first_path, first = files[0]
    places = [dict.fromkeys([(column.type, first_path)]) for column in first.kept]
    kept = list(first.kept)
    for path, columns in files[1:]:
        if _named(columns) != _named(first):
            raise ValueError(
                f"{path} and {first_path} have different columns to read: {_named(columns)} and {_named(first)}"
            )
        for place, column in enumerate(columns.kept):
            try:
                kind = unified_type(kept[place].type, column.type)
            except ValueError as error:
                seen = "; ".join(f"{kind} in {where}" for kind, where in places[place])
                raise ValueError(
                    f"--keep_columns: the column {column.source!r} has the type {column.type} in {path}, but {seen}: "
                    f"{error}; give it one type in all files, or leave it out"
                ) from error
            if column.type not in (kind for kind, _ in places[place]):
                places[place][column.type, path] = None
            kept[place] = dataclasses.replace(column, type=kind)
    kept = [dataclasses.replace(column, type=stored_type(column.type)) for column in kept]
    lists = any(columns.lists for _, columns in files)
    return dataclasses.replace(first, kept=tuple(kept), lists=lists)


def _named(columns: ParquetColumns) -> tuple[object, ...]:
    kept = ((column.source, column.name, column.as_ids) for column in columns.kept)
    return (columns.uri, columns.image, *kept)


def check_values(path: str, columns: ParquetColumns, output_format: str, *, rows: int | None = None) -> None:
    """Checks the kept columns of a file whose values may not fit the output; reads no others.

    Args:
      path: of the file.
      columns: from ``unified_columns``.
      output_format: ``parquet`` or ``tfrecord``.
      rows: the number of rows to read; None: all.

    Raises:
      ValueError: names the file, the column, its type and the value.
    """
    with open_parquet(path) as file:
        stop = file.metadata.num_rows if rows is None else min(rows, file.metadata.num_rows)
        schema = file.schema_arrow
        tfrecord = output_format == "tfrecord"
        doubtful = [
            column
            for column in columns.kept
            if not is_always_kept(column, schema)
            or (tfrecord and not tf_examples.is_always_exact(column.type))
        ]
        reader = KeptReader(schema, doubtful, path)
        for row, batch in _batches(file, doubtful, stop, path):
            for column, values in zip(doubtful, reader.read(batch, row), strict=True):
                if tfrecord:
                    check_examples(column, values, path)
        _check_int96(file, [column for column in columns.kept if _has_int96(file, column)], stop, path)


def _batches(
    file: pq.ParquetFile, columns: Sequence[KeptColumn], stop: int, path: str
) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Batches with the columns' sources, and the first row of each."""
    there = set(file.schema_arrow.names)  # the others come from directories' names
    names = list(dict.fromkeys(column.source for column in columns if column.source in there))
    row = 0
    batches = file.iter_batches(_BATCH_ROWS, columns=names) if names else iter(())
    while row < stop:
        try:
            batch = next(batches, None)
        except (pa.ArrowException, OSError, ValueError) as error:
            kinds = ", ".join(f"{name!r} ({file.schema_arrow.field(name).type})" for name in names)
            raise ValueError(f"{path}: cannot read the columns {kinds}: {error}") from error
        if batch is None:
            return
        yield row, batch.slice(0, stop - row)
        row += batch.num_rows


def check_examples(column: KeptColumn, values: pa.Array, path: str) -> None:
    """Refuses values that a TensorFlow example cannot hold.

    Raises:
      ValueError: names the file and the value.
    """
    try:
        tf_examples.to_example_columns(pa.record_batch([values], names=[column.source]))
    except ValueError as error:
        raise ValueError(
            f"{path}: {error}; write Parquet, or leave the column out of --keep_columns"
        ) from error


def _has_int96(file: pq.ParquetFile, column: KeptColumn) -> bool:
    leaves = (file.schema.column(place) for place in range(len(file.schema)))
    return any(
        leaf.physical_type == "INT96"
        and (leaf.path == column.source or leaf.path.startswith(column.source + "."))
        for leaf in leaves
    )


def _check_int96(file: pq.ParquetFile, columns: Sequence[KeptColumn], stop: int, path: str) -> None:
    """Refuses INT96 timestamps with fractions of microseconds, which pyarrow drops.

    Read as nanoseconds, they may wrap around, but modulo 2⁶⁴ they are the microseconds times a thousand.
    """
    if not columns:
        return
    with open_parquet(path, int96_unit="ns") as whole:
        pairs = zip(_batches(file, columns, stop, path), _batches(whole, columns, stop, path), strict=True)
        for (_, batch), (_, exact) in pairs:
            for column in columns:
                leaves = zip(
                    _timestamps(batch[column.source]), _timestamps(exact[column.source]), strict=True
                )
                for microseconds, nanoseconds in leaves:
                    if microseconds.type == nanoseconds.type:
                        continue
                    numbers = (_numbers(values) for values in (microseconds, nanoseconds))
                    short, long = numbers
                    if (short * np.int64(1000) != long).any():
                        raise ValueError(
                            f"{path}: column {column.source!r} has the type {nanoseconds.type} (INT96) and values "
                            f"with fractions of microseconds, which {microseconds.type} cannot hold; round them, or "
                            "leave the column out of --keep_columns"
                        )


def _numbers(timestamps: pa.Array) -> np.ndarray:
    return timestamps.drop_null().view(pa.int64()).to_numpy()


def _timestamps(values: pa.Array) -> Iterator[pa.Array]:
    """The arrays of timestamps in a column, including those inside lists, maps and structs."""
    kind = values.type
    if pa.types.is_timestamp(kind):
        yield values
    elif pa.types.is_struct(kind):
        for child in values.flatten():
            yield from _timestamps(child)
    elif pa.types.is_map(kind):
        yield from _timestamps(values.cast(pa.list_(pa.struct([kind.key_field, kind.item_field]))))
    elif is_list(kind):
        yield from _timestamps(values.flatten())
