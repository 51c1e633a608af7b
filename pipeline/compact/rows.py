"""The current rows, copied: Arrow batches of Parquet, or examples as they are."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa

from beamlabel.pipeline.current.read import (
    examples,
    having,
    parquet_batches,
    wanted,
    wanted_failures,
    wanted_versions,
)
from beamlabel.pipeline.current.select import Selection, Source
from beamlabel.pipeline.earlier.rows import version_1_identity
from beamlabel.transforms import storage
from beamlabel.transforms.rows import schema
from beamlabel.transforms.worker.read_ahead import read_ahead

# Of a bucket; with 1,280 features each holds 15 MB.
_READERS = 4


def current_batches(
    selection: Selection, columns: pa.Schema, start: int, stop: int
) -> Iterator[pa.RecordBatch]:
    """The current rows whose places are from ``start`` to ``stop``, with exactly these columns.

    Rows of schema version 1 get what tells their image; their ``content_hash`` is empty, since nobody knows it.
    """

    def read(source: Source) -> Iterator[pa.RecordBatch]:
        for batch in parquet_batches(source, wanted(selection.is_kept, source, start, stop), columns.names):
            arrays = [
                batch.column(column.name)
                if column.name in batch.schema.names
                else _added(batch, column, source)
                for column in columns
            ]
            yield pa.RecordBatch.from_arrays(arrays, schema=columns)

    sources = [functools.partial(read, source) for source in having(selection.data, start, stop)]
    is_local = all(storage.is_local(source.path) for source in selection.data)
    yield from read_ahead(sources, readers=1 if is_local else _READERS)


def current_examples(selection: Selection, start: int, stop: int) -> Iterator[bytes]:
    """The same of TFRecords, serialized as they lie there."""
    for source in having(selection.data, start, stop):
        yield from examples(source, wanted(selection.is_kept, source, start, stop))


def current_failures(selection: Selection, start: int, stop: int) -> Iterator[dict[str, Any]]:
    """The failures whose places are from ``start`` to ``stop`` and that are the outcome of their image."""
    for source in having(selection.failed, start, stop):
        yield from wanted_failures(source, wanted(selection.is_failed, source, start, stop))


def current_versions(selection: Selection, start: int, stop: int) -> Iterator[dict[str, Any]]:
    """The versions whose places are from ``start`` to ``stop`` and that are those of current outcomes."""
    for source in having(selection.touched, start, stop):
        yield from wanted_versions(source, wanted(selection.is_touched, source, start, stop))


def computed_by(selection: Selection, start: int, stop: int) -> list[str]:
    """Which engines made the current rows whose places are from ``start`` to ``stop``."""
    found: set[str] = set()
    for source in having(selection.data, start, stop):
        by = source.file.get("computed_by")
        if by and wanted(selection.is_kept, source, start, stop).any():
            found.update(by.split(", "))
    return sorted(found)


def _added(batch: pa.RecordBatch, column: pa.Field, source: Source) -> pa.Array:
    """A column that rows of schema version 1 lack."""
    manifest: Mapping[str, Any] = source.output.manifest
    if column.name == "image_id":
        ids = [version_1_identity(uri, manifest) for uri in batch.column("uri").to_pylist()]
        return pa.array(ids, column.type)
    if column.name == "labeled_at":
        return pa.array([source.output.time] * batch.num_rows, pa.int64()).cast(column.type)
    values = {"content_hash": "", "module_handle": manifest["metadata"].get(schema.MODULE_HANDLE, "")}
    return pa.array([values[column.name]] * batch.num_rows, column.type)
