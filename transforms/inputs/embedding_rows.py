"""Rows of earlier outputs with their embeddings, batch by batch, for a head to label them again."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from beamlabel.transforms import storage
from beamlabel.transforms.inputs.kept_columns import KeptColumn, KeptReader
from beamlabel.transforms.inputs.parquet_source import open_parquet
from beamlabel.transforms.rows import tf_examples
from beamlabel.transforms.rows.tfrecord import read_records

EMBEDDING = "embedding"
BATCH_ROWS = 512
"""The largest number of rows in a batch: 2.6 MB with 1,280 features."""

# The columns taken over from an earlier row, beside its kept columns and its embedding.
CARRIED: dict[str, pa.DataType] = {
    "uri": pa.string(),
    "ref_id": pa.string(),
    "image_id": pa.string(),
    "width": pa.int32(),
    "height": pa.int32(),
    "format": pa.string(),
    "source_bytes": pa.int64(),
    "source_version": pa.string(),
    "content_hash": pa.string(),
}


def parquet_batches(
    path: str, start: int, stop: int, kept: Sequence[KeptColumn], file_rows: int | None
) -> Iterator[pa.RecordBatch]:
    """The rows of a range of a Parquet shard, in batches that begin at row groups.

    Args:
      path: of the shard.
      start, stop: of the range.
      kept: the kept columns of the output; null if the shard lacks the column.
      file_rows: of the shard at planning; None: not checked.

    Raises:
      ValueError: the file has changed since planning, or a value does not fit.
      OSError: it cannot be read.
    """
    with open_parquet(path) as file:
        _check_rows(path, file.metadata.num_rows, stop, file_rows)
        reader = KeptReader(file.schema_arrow, kept, path)
        there = set(file.schema_arrow.names)
        names = [name for name in (*CARRIED, EMBEDDING) if name in there]
        names += [column.source for column in kept if column.source in there]
        groups, row = _row_groups(file.metadata, start, stop)
        for batch in file.iter_batches(BATCH_ROWS, row_groups=groups, columns=list(dict.fromkeys(names))):
            first = max(start - row, 0)
            part = (
                batch.slice(first, min(stop - row, batch.num_rows) - first)
                if row < stop
                else batch.slice(0, 0)
            )
            if part.num_rows:
                arrays = {
                    column.name: values
                    for column, values in zip(kept, reader.read(part, row + first), strict=True)
                }
                carried = {name: _cast(part.column(name), kind, name, path) for name, kind in CARRIED.items()}
                yield _batch({**carried, **arrays, EMBEDDING: part.column(EMBEDDING)})
            row += batch.num_rows


def tfrecord_batches(
    path: str, start: int, stop: int, kept: Sequence[KeptColumn], file_rows: int | None
) -> Iterator[pa.RecordBatch]:
    """Like ``parquet_batches``, for a TFRecord shard; reads all before ``start`` and casts to column types."""
    names = [*CARRIED, EMBEDDING, *(column.source for column in kept)]
    rows = 0
    with storage.open_input(path) as file:
        records = read_records(file)
        try:
            rows = sum(1 for _ in itertools.islice(records, start))
            while rows < stop and (chunk := list(itertools.islice(records, min(BATCH_ROWS, stop - rows)))):
                yield _of_examples(tf_examples.decode_batch(chunk, names), len(chunk), kept, path)
                rows += len(chunk)
            if stop == file_rows:
                rows += sum(1 for _ in records)
        except ValueError as error:
            raise ValueError(str(error) if path in str(error) else f"{path}: {error}") from error
    _check_rows(path, rows, stop, file_rows if stop == file_rows else None)


def _of_examples(batch: pa.RecordBatch, rows: int, kept: Sequence[KeptColumn], path: str) -> pa.RecordBatch:
    def column(name: str, kind: pa.DataType) -> pa.Array:
        if name not in batch.schema.names:  # no example has it
            return pa.nulls(rows, kind)
        try:
            return tf_examples.from_lists(batch.column(name), kind)
        except ValueError as error:
            raise ValueError(f"{path}: feature {name!r}: {error}") from error

    carried = {name: column(name, kind) for name, kind in CARRIED.items()}
    columns = {one.name: column(one.source, one.type) for one in kept}
    if EMBEDDING in batch.schema.names:
        embedding = batch.column(EMBEDDING)
    else:
        embedding = pa.nulls(rows, pa.large_list(pa.float32()))
    return _batch({**carried, **columns, EMBEDDING: embedding})


def _batch(columns: dict[str, pa.Array]) -> pa.RecordBatch:
    return pa.record_batch(list(columns.values()), names=list(columns))


def _cast(values: pa.Array, kind: pa.DataType, name: str, path: str) -> pa.Array:
    try:
        return values if values.type == kind else values.cast(kind)
    except (ValueError, pa.ArrowException) as error:
        raise ValueError(f"{path}: column {name!r} has the type {values.type}: {error}") from error


def _row_groups(metadata: pq.FileMetaData, start: int, stop: int) -> tuple[list[int], int]:
    """The row groups that hold a range, and the first row of the first group."""
    sizes = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
    ends = np.cumsum(sizes, dtype=np.int64)
    first, last = np.searchsorted(ends, [start, max(stop - 1, start)], side="right")
    groups = list(range(int(first), min(int(last) + 1, len(sizes)))) if stop > start else []
    return groups, int(ends[groups[0]] - sizes[groups[0]]) if groups else start


def _check_rows(path: str, rows: int, stop: int, file_rows: int | None) -> None:
    if rows < stop or file_rows not in (None, rows):
        raise ValueError(f"{path}: has {rows} rows, but had {file_rows or stop} when the run was planned")
