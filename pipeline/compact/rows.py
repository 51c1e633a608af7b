"""Copies the current rows: Arrow batches from Parquet, or unchanged examples from TFRecords."""

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
from beamlabel.transforms.rows import metadata_keys
from beamlabel.transforms.worker.read_ahead import read_ahead

# For a bucket; each reader holds 15 MB with 1,280 features.
_READERS = 4


def current_batches(
    selection: Selection, columns: pa.Schema, start: int, stop: int
) -> Iterator[pa.RecordBatch]:
    """Yields the current rows at positions from ``start`` to ``stop``, with exactly these columns.

    Rows of schema version 1 get the columns that identify their image; their ``content_hash`` is empty, as unknown.
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
    """Yields the same for TFRecords: serialized examples, unchanged."""
    for source in having(selection.data, start, stop):
        yield from examples(source, wanted(selection.is_kept, source, start, stop))


def current_failures(selection: Selection, start: int, stop: int) -> Iterator[dict[str, Any]]:
    """Yields the failures at positions from ``start`` to ``stop`` that are their image's outcome."""
    for source in having(selection.failed, start, stop):
        yield from wanted_failures(source, wanted(selection.is_failed, source, start, stop))


def current_versions(selection: Selection, start: int, stop: int) -> Iterator[dict[str, Any]]:
    """Yields the versions at positions from ``start`` to ``stop`` that belong to current outcomes."""
    for source in having(selection.touched, start, stop):
        yield from wanted_versions(source, wanted(selection.is_touched, source, start, stop))


def computed_by(selection: Selection, start: int, stop: int) -> list[str]:
    """The engines that computed the current rows at positions from ``start`` to ``stop``."""
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
    values = {"content_hash": "", "module_handle": manifest["metadata"].get(metadata_keys.MODULE_HANDLE, "")}
    return pa.array([values[column.name]] * batch.num_rows, column.type)
