"""Rows of a Parquet file in the form that travels with their unit: compressed Arrow columns.

The planner has then read the file once, and no worker opens it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence

import pyarrow as pa

_SIZE = struct.Struct("<q")
_FIRST_ROW = b"beamlabel_first_row"
_BATCH_ROWS = 4096


def pack_rows(
    batches: Sequence[tuple[Sequence[int], pa.RecordBatch]],
    schema: pa.Schema,
    metadata: Mapping[bytes, bytes],
) -> bytes:
    """Packs batches into bytes.

    Args:
      batches: each with the numbers of its rows in their file.
      schema: of the batches.
      metadata: the part of the file's schema metadata that the columns need.
    """
    arrays = [
        _dense(pa.chunked_array([batch.column(n) for _, batch in batches], field.type))
        for n, field in enumerate(schema)
    ]
    fields = [pa.field(field.name, array.type) for field, array in zip(schema, arrays, strict=True)]
    numbers = pa.array([row for rows, _ in batches for row in rows], pa.int64())
    facts = dict(metadata)
    if len(numbers) and numbers[-1].as_py() - numbers[0].as_py() + 1 == len(numbers):
        facts[_FIRST_ROW] = str(numbers[0]).encode()
    else:
        arrays, fields = [numbers, *arrays], [pa.field("", pa.int64()), *fields]
    table = pa.Table.from_arrays(arrays, schema=pa.schema(fields, facts)).combine_chunks()
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=_BATCH_ROWS)
    text = sink.getvalue()
    return _SIZE.pack(text.size) + pa.compress(text, codec="zstd", asbytes=True)


def _dense(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The column without a dictionary, which may be larger than the remaining values."""
    return column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column


def schema_of(packed: bytes) -> pa.Schema:
    """The columns with their metadata."""
    with _reader(packed) as reader:
        return _columns(reader.schema)[0]


def unpack_rows(packed: bytes) -> Iterator[tuple[Sequence[int], pa.RecordBatch]]:
    """The inverse of ``pack_rows``, in small batches."""
    with _reader(packed) as reader:
        schema, first = _columns(reader.schema)
        for batch in reader:
            if first is None:
                numbers: Sequence[int] = batch.column(0).to_pylist()
                batch = pa.RecordBatch.from_arrays(batch.columns[1:], schema=schema)
            else:
                numbers = range(first, first + batch.num_rows)
                first += batch.num_rows
            if batch.num_rows:
                yield numbers, batch


def _reader(packed: bytes) -> pa.RecordBatchStreamReader:
    (size,) = _SIZE.unpack_from(packed)
    text = pa.decompress(memoryview(packed)[_SIZE.size :], size, codec="zstd")
    return pa.ipc.open_stream(text)


def _columns(schema: pa.Schema) -> tuple[pa.Schema, int | None]:
    """The columns, and the first row's number if rows are consecutive; else the first field holds their numbers."""
    metadata = dict(schema.metadata or {})
    first = metadata.pop(_FIRST_ROW, None)
    fields = list(schema) if first is not None else list(schema)[1:]
    return pa.schema(fields, metadata), None if first is None else int(first)
