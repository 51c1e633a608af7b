"""The images of earlier outputs that the input does not name any more, written to the files of ``_deleted/``.

The launcher stages an index of the images that were there, with the shard and the row that tells of each
(``indexes.py``); each unit leaves the places of those that it refers to (``transforms/inputs/seen_images.py``); the
commit finds the others, and reads their names in the earlier shards. No reference is shuffled for it.
"""

from __future__ import annotations

import itertools
import json
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from beamlabel.pipeline.earlier.rows import read_examples
from beamlabel.transforms.inputs.key_index import KeyIndex
from beamlabel.transforms.inputs.parquet_source import open_parquet
from beamlabel.transforms.inputs.seen_images import unseen_places
from beamlabel.transforms.inputs.selection import StagedIndex
from beamlabel.transforms.records import FileRecord
from beamlabel.transforms.rows.deleted import DELETED_SCHEMA
from beamlabel.transforms.storage.host_cache import open_artifact
from beamlabel.transforms.writing.staged_files import stage_file, temporary_file

_PLACE = struct.Struct("<II")
_FILE_ROWS = 100_000
_BATCH_ROWS = 16_384
# Of the names, which are read from one shard after the other.
_NAMES = ("uri", "ref_id", "image_id")


@dataclass(frozen=True)
class TombstoneOptions:
    """How images that are gone are told.

    Attributes:
      live: the images that were there, each with the shard and the row that tells of it.
      shards: a JSON list of these shards.
      deleted_at: the start of the run, in microseconds since 1970.
      run_id: of the run.
    """

    live: StagedIndex
    shards: StagedIndex
    deleted_at: int
    run_id: str


@dataclass(frozen=True)
class _Gone:
    """An image that is gone, and the row that tells its name."""

    shard: int
    row: int
    image_id: str


def stage_tombstones(
    unit_ids: Sequence[str], staging_dir: str, options: TombstoneOptions
) -> list[FileRecord]:
    """Writes the files of ``_deleted/``; none if no image is gone.

    Args:
      unit_ids: all units of the run, each of which has told which images it refers to.
      staging_dir: of the run.
      options: how images that are gone are told.

    Raises:
      OSError: an earlier shard cannot be read, or the staging folder cannot be written.
      ValueError: an earlier shard was replaced meanwhile.
    """
    live = KeyIndex(open_artifact(options.live.path, options.live.sha256).content, options.live.value_bytes)
    shards: list[str] = json.loads(
        bytes(open_artifact(options.shards.path, options.shards.sha256).content[:])
    )
    places = unseen_places(staging_dir, unit_ids, len(live))
    gone = (_gone(live, place) for place in places)
    files: list[FileRecord] = []
    # A file's worth at a time, in the order of the ids: each reads the shards that its rows are in.
    for number in itertools.count():
        chunk = sorted(itertools.islice(gone, _FILE_ROWS), key=lambda one: (one.shard, one.row))
        if not chunk:
            return files
        with temporary_file(staging_dir) as path:
            with pq.ParquetWriter(str(path), DELETED_SCHEMA, compression="zstd") as writer:
                for shard, rows in itertools.groupby(chunk, key=lambda one: one.shard):
                    writer.write_table(_tombstones(shards[shard], list(rows), options))
            stem = f"deleted/{number:05d}"
            files.append(stage_file(path, staging_dir, stem, "parquet", "deleted", len(chunk)))
    return files


def _gone(live: KeyIndex, place: int) -> _Gone:
    shard, row = _PLACE.unpack(live.value(place))
    return _Gone(shard, row, live[place].hex())


def _tombstones(shard: str, gone: list[_Gone], options: TombstoneOptions) -> pa.Table:
    read = _parquet_names if shard.endswith(".parquet") else _tfrecord_names
    names = list(read(shard, [one.row for one in gone]))
    # Rows of schema version 1 do not tell which image they are of.
    told = [row["image_id"] or one.image_id for one, row in zip(gone, names, strict=False)]
    if told != [one.image_id for one in gone] or any(row["uri"] is None for row in names):
        raise ValueError(f"{shard}: it was replaced while this run was at work")
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
    """``_NAMES`` of rows, whose numbers ascend; None for one that is not there."""
    with open_parquet(shard) as file:
        there = [name for name in _NAMES if name in file.schema_arrow.names]
        first = 0
        for batch in file.iter_batches(_BATCH_ROWS, columns=there):
            low, high = np.searchsorted(rows, (first, first + batch.num_rows))
            wanted = batch.take(pa.array(np.asarray(rows[low:high], np.int64) - first))
            yield from ({**dict.fromkeys(_NAMES), **row} for row in wanted.to_pylist())
            first += batch.num_rows


def _tfrecord_names(shard: str, rows: Sequence[int]) -> Iterator[dict[str, Any]]:
    """As ``_parquet_names``."""
    wanted = set(rows)
    found = itertools.chain.from_iterable(read_examples(shard, _NAMES))
    return (row for number, row in enumerate(found) if number in wanted)
