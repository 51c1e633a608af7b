"""The current rows, copied: Arrow batches of Parquet, or examples as they are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from beamlabel.pipeline.current.entries import failures
from beamlabel.pipeline.current.select import Selection, Source
from beamlabel.pipeline.job.skip_labeled import version_1_identity
from beamlabel.transforms import storage
from beamlabel.transforms.inputs.parquet_source import open_parquet
from beamlabel.transforms.rows import schema
from beamlabel.transforms.rows.tfrecord import read_records

# With 1,280 features 5 MB.
_BATCH_ROWS = 1024


def current_batches(selection: Selection, columns: pa.Schema, start: int, stop: int) -> Iterator[pa.RecordBatch]:
    """The current rows whose places are from ``start`` to ``stop``, with exactly these columns.

    Rows of schema version 1 get what tells their image; their ``content_hash`` is empty, since nobody knows it.
    """
    for source in _touched(selection.data, start, stop):
        with open_parquet(source.path) as parquet:
            place = source.start
            metadata = parquet.schema_arrow.metadata or {}
            is_version_1 = metadata.get(schema.SCHEMA_VERSION.encode()) == b"1"
            lacking = schema.SINCE_VERSION_2 if is_version_1 else frozenset()
            for group in range(parquet.num_row_groups):
                rows = parquet.metadata.row_group(group).num_rows
                wanted = _wanted(selection.is_kept, place, place + rows, start, stop)
                place += rows
                if not wanted.any():
                    continue
                names = [name for name in columns.names if name in parquet.schema_arrow.names and name not in lacking]
                first = 0
                for batch in parquet.iter_batches(_BATCH_ROWS, row_groups=[group], columns=names):
                    mask = wanted[first : first + batch.num_rows]
                    first += batch.num_rows
                    if mask.any():
                        yield _conformed(batch.filter(pa.array(mask)), columns, source)


def current_examples(selection: Selection, start: int, stop: int) -> Iterator[bytes]:
    """The same of TFRecords, serialized as they lie there."""
    for source in _touched(selection.data, start, stop):
        wanted = _wanted(selection.is_kept, source.start, source.stop, start, stop)
        with storage.open_input(source.path) as file:
            for is_wanted, record in zip(wanted, read_records(file), strict=True):
                if is_wanted:
                    yield record


def current_failures(selection: Selection, start: int, stop: int) -> Iterator[dict[str, Any]]:
    """The failures whose places are from ``start`` to ``stop`` and that are the outcome of their image."""
    for source in _touched(selection.failed, start, stop):
        wanted = _wanted(selection.is_failed, source.start, source.stop, start, stop)
        for is_wanted, failure in zip(wanted, failures(source.output, source.file), strict=True):
            if is_wanted:
                yield failure


def computed_by(selection: Selection, start: int, stop: int) -> list[str]:
    """Which engines made the current rows whose places are from ``start`` to ``stop``."""
    found: set[str] = set()
    for source in _touched(selection.data, start, stop):
        by = source.file.get("computed_by")
        if by and _wanted(selection.is_kept, source.start, source.stop, start, stop).any():
            found.update(by.split(", "))
    return sorted(found)


def _touched(sources: tuple[Source, ...], start: int, stop: int) -> Iterator[Source]:
    return (source for source in sources if source.start < stop and source.stop > start)


def _wanted(is_current: np.ndarray, first: int, last: int, start: int, stop: int) -> np.ndarray:
    """bool[last - first]: which places are current, and from ``start`` to ``stop``."""
    wanted = np.array(is_current[first:last])
    wanted[: max(start - first, 0)] = False
    wanted[max(stop - first, 0) :] = False
    return wanted


def _conformed(batch: pa.RecordBatch, columns: pa.Schema, source: Source) -> pa.RecordBatch:
    arrays = [
        batch.column(column.name) if column.name in batch.schema.names else _added(batch, column, source)
        for column in columns
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=columns)


def _added(batch: pa.RecordBatch, column: pa.Field, source: Source) -> pa.Array:
    """A column that rows of schema version 1 lack."""
    manifest: Mapping[str, Any] = source.output.manifest
    if column.name == "image_id":
        ids = [version_1_identity(uri, manifest) for uri in batch.column("uri").to_pylist()]
        return pa.array(ids, column.type)
    value = {
        "content_hash": "",
        "module_handle": manifest["metadata"].get(schema.MODULE_HANDLE, ""),
        "labeled_at": source.output.time,
    }[column.name]
    return pa.array([value] * batch.num_rows, pa.int64() if column.name == "labeled_at" else column.type).cast(column.type)
