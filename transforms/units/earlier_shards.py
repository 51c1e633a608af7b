"""The data files of earlier outputs, read by a worker: rows by number, from files that have not changed.

Only row groups with a wanted row are read, batch by batch; TFRecords are read up to the last wanted row. A file is
used only if the launcher saw the same size and version.
"""

from __future__ import annotations

import functools
import json
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from beamlabel.transforms import storage
from beamlabel.transforms.inputs.parquet_source import open_parquet
from beamlabel.transforms.rows import tf_examples
from beamlabel.transforms.rows.feature_places import EarlierShard, feature_columns
from beamlabel.transforms.rows.tfrecord import read_records
from beamlabel.transforms.storage.host_cache import open_artifact

# 1.3 MB with 1,280 features.
_BATCH_ROWS = 256
_OPEN_FILES = 8
# If a smaller part of a file is wanted, nothing is read ahead, unless the file is small.
_FEW_PART = 0.25
_SMALL_BYTES = 4 << 20


class RowsRead(NamedTuple):
    """Some rows of a shard: their numbers, ascending, int64[N], and N rows of ``feature_columns``."""

    numbers: np.ndarray
    batch: pa.RecordBatch


class _OpenShard(NamedTuple):
    """An open Parquet file, and the number of the row after the last of each of its row groups."""

    file: pq.ParquetFile
    ends: np.ndarray
    close: ExitStack


class EarlierShards:
    """The files of an index of embedded rows; for one thread.

    Args:
      path, sha256: of the list that the launcher staged, see ``listed``.
    """

    def __init__(self, path: str, sha256: str) -> None:
        self._list = path, sha256
        self._open: OrderedDict[int, _OpenShard] = OrderedDict()

    def path(self, shard: int) -> str:
        """The path of a file."""
        return _listed(*self._list)[1][shard].path

    def dimension(self) -> int:
        """The length of each embedding."""
        return _listed(*self._list)[0]

    def rows(self, shard: int, numbers: np.ndarray) -> Iterator[RowsRead]:
        """Rows of a file, in batches.

        Args:
          shard: the file's number.
          numbers: of the rows, int64[N], ascending, without duplicates.

        Raises:
          OSError: the file is gone, or cannot be read.
          ValueError: the file has changed, or lacks these rows or columns.
          ImportError: see ``tf_examples.check_installed``.
        """
        dimension, shards = _listed(*self._list)
        one = shards[shard]
        if one.path.endswith(".parquet"):
            yield from self._parquet_rows(shard, one, numbers, feature_columns(dimension))
        else:
            _check_unchanged(one)
            yield from _tfrecord_rows(one, numbers, feature_columns(dimension))

    def close(self) -> None:
        """Closes the open files."""
        while self._open:
            self._open.popitem()[1].close.close()

    def _parquet_rows(
        self, number: int, shard: EarlierShard, wanted: np.ndarray, columns: pa.Schema
    ) -> Iterator[RowsRead]:
        file, ends, _ = self._opened(number, shard, len(wanted))
        starts = np.concatenate([[0], ends[:-1]])
        if not len(ends) or wanted[-1] >= ends[-1]:
            raise ValueError(f"it has no row {wanted[-1]}")
        homes = np.searchsorted(ends, wanted, side="right")
        groups = np.unique(homes)
        # The start of each group among the rows that are read.
        begins = np.cumsum((ends - starts)[groups]) - (ends - starts)[groups]
        places = wanted - starts[homes] + begins[np.searchsorted(groups, homes)]
        first = 0
        for batch in file.iter_batches(_BATCH_ROWS, row_groups=groups.tolist(), columns=columns.names):
            low, high = np.searchsorted(places, (first, first + batch.num_rows))
            if low < high:
                found = batch.take(pa.array(places[low:high] - first))
                yield RowsRead(wanted[low:high], _as(found, columns))
            first += batch.num_rows

    def _opened(self, number: int, shard: EarlierShard, wanted: int) -> _OpenShard:
        if number in self._open:
            self._open.move_to_end(number)
            return self._open[number]
        _check_unchanged(shard)
        while len(self._open) >= _OPEN_FILES:
            self._open.popitem(last=False)[1].close.close()
        with ExitStack() as stack:
            # The number of rows is not known yet; a row of 1,280 features takes about 4 KiB.
            few = (shard.size or 0) > _SMALL_BYTES and wanted << 12 < _FEW_PART * (shard.size or 0)
            file = stack.enter_context(open_parquet(shard.path, few=few))
            metadata = file.metadata
            counts = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
            opened = _OpenShard(file, np.cumsum(np.array(counts, np.int64)), stack.pop_all())
        self._open[number] = opened
        return opened


@functools.lru_cache(maxsize=2)
def _listed(path: str, sha256: str) -> tuple[int, list[EarlierShard]]:
    """The list that the launcher staged: the length of an embedding, and the files."""
    listed = json.loads(bytes(open_artifact(path, sha256).content[:]))
    return listed["dimension"], [EarlierShard(*shard) for shard in listed["shards"]]


def listed(dimension: int, shards: Sequence[EarlierShard]) -> str:
    """The list of the files, for staging.

    Args:
      dimension: the length of each embedding.
      shards: by their numbers in the index.
    """
    return json.dumps({"dimension": dimension, "shards": shards})


def _check_unchanged(shard: EarlierShard) -> None:
    there = storage.stat(shard.path)
    if (there.size, there.version) != (shard.size, shard.version):
        raise ValueError("it was replaced after this run began")


def _as(batch: pa.RecordBatch, columns: pa.Schema) -> pa.RecordBatch:
    """The columns in their order; checks their types."""
    found = []
    for field in columns:
        column = batch.column(field.name)
        if not column.type.equals(field.type):
            raise ValueError(f"its column {field.name!r} has the type {column.type}, not {field.type}")
        found.append(column)
    return pa.record_batch(found, names=columns.names)


def _tfrecord_rows(shard: EarlierShard, wanted: np.ndarray, columns: pa.Schema) -> Iterator[RowsRead]:
    held: list[bytes] = []
    done = 0
    with storage.open_input(shard.path) as file:
        for number, record in enumerate(read_records(file)):
            if number == wanted[done + len(held)]:
                held.append(record)
                is_last = done + len(held) == len(wanted)
                if len(held) == _BATCH_ROWS or is_last:
                    yield RowsRead(wanted[done : done + len(held)], _decoded(held, columns))
                    done, held = done + len(held), []
                if is_last:
                    return
    raise ValueError(f"it has no row {wanted[-1]}")


def _decoded(examples: list[bytes], columns: pa.Schema) -> pa.RecordBatch:
    batch = tf_examples.decode_batch(examples, columns.names)
    found = [
        tf_examples.from_lists(batch.column(field.name), field.type)
        if field.name in batch.schema.names
        else pa.nulls(len(examples), field.type)
        for field in columns
    ]
    return pa.record_batch(found, names=columns.names)
