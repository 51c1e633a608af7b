"""Reads the current rows of a file, a batch at a time."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from beamlabel.pipeline.current.entries import failures, has_identity, touched
from beamlabel.pipeline.current.select import Source
from beamlabel.pipeline.output.own_json import rows_of
from beamlabel.transforms import storage
from beamlabel.transforms.inputs.parquet_source import open_parquet
from beamlabel.transforms.rows import schema
from beamlabel.transforms.rows.tfrecord import read_records

# 5 MB with 1,280 features.
_BATCH_ROWS = 1024


def having(sources: Sequence[Source], start: int, stop: int) -> Iterator[Source]:
    """The files that contain a position from ``start`` to ``stop``."""
    return (source for source in sources if source.start < stop and source.stop > start)


def wanted(is_current: np.ndarray, source: Source, start: int = 0, stop: int | None = None) -> np.ndarray:
    """bool[rows of the file]: whether each is current and at a position from ``start`` to ``stop``."""
    found = np.array(is_current[source.start : source.stop])
    found[: max(start - source.start, 0)] = False
    if stop is not None:
        found[max(stop - source.start, 0) :] = False
    return found


def parquet_batches(
    source: Source, is_wanted: np.ndarray, names: Sequence[str], batch_rows: int = _BATCH_ROWS
) -> Iterator[pa.RecordBatch]:
    """Yields the wanted rows of a Parquet file with those of the columns that it has; skips other row groups.

    A file of schema version 1 may have kept columns with the names of version 2; these are left out.
    """
    with open_parquet(source.path) as parquet:
        lacking = frozenset() if has_identity(parquet.schema_arrow) else schema.SINCE_VERSION_2
        there = [name for name in names if name in parquet.schema_arrow.names and name not in lacking]
        place = 0
        for group in range(parquet.num_row_groups):
            rows = parquet.metadata.row_group(group).num_rows
            if is_wanted[place : place + rows].any():
                first = place
                for batch in parquet.iter_batches(batch_rows, row_groups=[group], columns=there):
                    mask = is_wanted[first : first + batch.num_rows]
                    first += batch.num_rows
                    if mask.any():
                        yield batch.filter(pa.array(mask))
            place += rows


def examples(source: Source, is_wanted: np.ndarray) -> Iterator[bytes]:
    """Yields the wanted rows of a TFRecord file, serialized and unchanged."""
    with storage.open_input(source.path) as file:
        for is_one, record in zip(is_wanted, read_records(file), strict=True):
            if is_one:
                yield record


def wanted_failures(source: Source, is_wanted: np.ndarray) -> Iterator[dict[str, Any]]:
    """The wanted failures of a file."""
    return itertools.compress(rows_of(source.path, failures(source.output, source.file)), is_wanted)


def wanted_versions(source: Source, is_wanted: np.ndarray) -> Iterator[dict[str, Any]]:
    """The wanted lines of a file of images with a new version but the same content."""
    return itertools.compress(rows_of(source.path, touched(source.output, source.file)), is_wanted)
