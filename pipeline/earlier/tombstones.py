"""Writes the images of earlier outputs that the input no longer names to the files of ``_deleted/``.

The launcher stages an index of the images that existed, each with the shard and row that names it (``indexes.py``).
Each unit records the positions of the images that it refers to (``transforms/inputs/seen_images.py``). The commit
finds the others and reads their names in the earlier shards. No reference is shuffled for it.
"""

from __future__ import annotations

import itertools
import json
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from beamlabel.pipeline.earlier.rows import read_examples
from beamlabel.transforms import storage
from beamlabel.transforms.inputs.key_index import KeyIndex
from beamlabel.transforms.inputs.parquet_source import open_parquet
from beamlabel.transforms.inputs.seen_images import unseen_images
from beamlabel.transforms.inputs.selection import StagedIndex
from beamlabel.transforms.records import FileRecord
from beamlabel.transforms.rows.deleted import DELETED_SCHEMA
from beamlabel.transforms.storage.host_cache import open_artifact
from beamlabel.transforms.writing.staged_files import stage_file, temporary_file

_PLACE = struct.Struct("<II")
_FILE_ROWS = 100_000
_BATCH_ROWS = 16_384
# Columns that name an image.
_NAMES = ("uri", "ref_id", "image_id")


@dataclass(frozen=True)
class TombstoneOptions:
    """Options of the tombstones of deleted images.

    Attributes:
      live: the images that existed, each with its file and row.
      shards: a JSON list of these files: data shards and failures.
      deleted_at: start of the run, in microseconds since 1970.
      run_id: ID of the run.
      max_rate: highest rate of deleted to existing images; above it the input is taken to be incomplete.
    """

    live: StagedIndex
    shards: StagedIndex
    deleted_at: int
    run_id: str
    max_rate: float


@dataclass(frozen=True)
class StagedTombstones:
    """The deleted images of a run.

    Attributes:
      live: number of images that existed.
      gone: number of these that the input no longer names.
      files: files that list them; none if there are too many.
    """

    live: int
    gone: int
    files: tuple[FileRecord, ...]


@dataclass(frozen=True)
class _Gone:
    """A deleted image and the row that names it."""

    shard: int
    row: int
    image_id: str


def stage_tombstones(
    unit_ids: Sequence[str], staging_dir: str, options: TombstoneOptions
) -> StagedTombstones:
    """Writes the files of ``_deleted/``; none if no image is gone, or more images are than ``max_rate`` allows.

    A bucket that is empty for a night, such as after a lost mount or permission, must not empty the table.

    Args:
      unit_ids: all units of the run; each has recorded the images that it refers to.
      staging_dir: staging directory of the run.
      options: options of the tombstones.

    Raises:
      OSError: an earlier shard cannot be read, or the staging directory cannot be written.
      ValueError: an earlier shard was replaced during the run.
    """
    live = KeyIndex(open_artifact(options.live.path, options.live.sha256).content, options.live.value_bytes)
    shards: list[str] = json.loads(
        bytes(open_artifact(options.shards.path, options.shards.sha256).content[:])
    )
    unseen = unseen_images(staging_dir, unit_ids, len(live))
    if unseen.count > options.max_rate * len(live):
        return StagedTombstones(len(live), unseen.count, ())
    gone = (_gone(live, place) for place in unseen.places())
    files: list[FileRecord] = []
    # One file's rows at a time, in order of the ids, so that each file reads only the shards of its rows.
    for number in itertools.count():
        chunk = sorted(itertools.islice(gone, _FILE_ROWS), key=lambda one: (one.shard, one.row))
        if not chunk:
            break
        with temporary_file(staging_dir) as path:
            with pq.ParquetWriter(str(path), DELETED_SCHEMA, compression="zstd") as writer:
                for shard, rows in itertools.groupby(chunk, key=lambda one: one.shard):
                    writer.write_table(_tombstones(shards[shard], list(rows), options))
            stem = f"deleted/{number:05d}"
            files.append(stage_file(path, staging_dir, stem, "parquet", "deleted", len(chunk)))
    return StagedTombstones(len(live), unseen.count, tuple(files))


def _gone(live: KeyIndex, place: int) -> _Gone:
    shard, row = _PLACE.unpack(live.value(place))
    return _Gone(shard, row, live[place].hex())


def _tombstones(shard: str, gone: list[_Gone], options: TombstoneOptions) -> pa.Table:
    read = {".parquet": _parquet_names, ".jsonl": _failure_names}.get(PurePath(shard).suffix, _tfrecord_names)
    names = list(read(shard, [one.row for one in gone]))
    # Rows of schema version 1 do not identify their image.
    told = [row["image_id"] or one.image_id for one, row in zip(gone, names, strict=False)]
    if told != [one.image_id for one in gone] or any(row["uri"] is None for row in names):
        raise ValueError(f"{shard}: it was replaced during this run")
    return pa.table(
        {
            "image_id": [one.image_id for one in gone],
            "uri": [row["uri"] for row in names],
            "ref_id": [row["ref_id"] for row in names],
            "deleted_at": pa.array([options.deleted_at] * len(gone), pa.timestamp("us", "UTC")),
            "run_id": [options.run_id] * len(gone),
        },
        schema=DELETED_SCHEMA,
    )


def _parquet_names(shard: str, rows: Sequence[int]) -> Iterator[dict[str, Any]]:
    """Yields ``_NAMES`` of rows whose numbers ascend; None for a missing name."""
    with open_parquet(shard) as file:
        there = [name for name in _NAMES if name in file.schema_arrow.names]
        first = 0
        for batch in file.iter_batches(_BATCH_ROWS, columns=there):
            low, high = np.searchsorted(rows, (first, first + batch.num_rows))
            wanted = batch.take(pa.array(np.asarray(rows[low:high], np.int64) - first))
            yield from ({**dict.fromkeys(_NAMES), **row} for row in wanted.to_pylist())
            first += batch.num_rows


def _failure_names(path: str, rows: Sequence[int]) -> Iterator[dict[str, Any]]:
    """Yields the same as ``_parquet_names`` for the lines of failures."""
    wanted = set(rows)
    with storage.open_input(path) as file:
        for number, line in enumerate(file):
            if number in wanted:
                failure = json.loads(line)
                names = {name: failure.get(name) for name in _NAMES}
                # A failure without a location is named by its place in the input.
                yield {**names, "uri": names["uri"] or names["ref_id"]}


def _tfrecord_names(shard: str, rows: Sequence[int]) -> Iterator[dict[str, Any]]:
    """Yields the same as ``_parquet_names`` for TFRecords."""
    wanted = set(rows)
    found = itertools.chain.from_iterable(read_examples(shard, _NAMES))
    return (row for number, row in enumerate(found) if number in wanted)
