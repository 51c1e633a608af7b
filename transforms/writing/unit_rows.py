"""Collects the rows of one work unit in any order and returns them in input order.

A row with an embedding of 1280 numbers has 5 KB, and a unit has up to 10,000 rows. To bound memory, it holds some
hundred rows; those of a larger unit are in a temporary file beside its final path.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa

from beamlabel.transforms import storage
from beamlabel.transforms.prediction_blocks import in_blocks, joined
from beamlabel.transforms.records import LabeledRows, Prediction, PredictionBlock
from beamlabel.transforms.rows.record_batch import block_batch, labeled_batch
from beamlabel.transforms.rows.schema import OutputSpec, arrow_schema

CHUNK_ROWS = 128
"""Rows converted at a time: 0.7 MB with 1280 features."""

_HELD_ROWS = 2 * CHUNK_ROWS
# Rows written to the temporary file and read back at a time: several blocks are held while a shard is written.
_BLOCK_ROWS = CHUNK_ROWS


class UnitRows:
    """Predictions as Arrow; a context manager that deletes the temporary file, if there is one.

    Not thread-safe.

    Args:
      spec: of a row.
      staging_dir: staging directory of the unit, and of the temporary file if it is local.
    """

    def __init__(self, spec: OutputSpec, staging_dir: str) -> None:
        self._spec, self._staging_dir = spec, staging_dir
        self._lengths: list[int] = []
        self._numbers: list[np.ndarray] = []
        self._held: list[pa.RecordBatch] = []
        self._file: Any = None
        self._path: Path | None = None
        self._cleanup = ExitStack()
        self.computed_by: set[str] = set()
        self.color_converted = 0
        self.relabeled = 0

    def __len__(self) -> int:
        return sum(self._lengths)

    def __enter__(self) -> UnitRows:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._cleanup.close()

    def add(self, predictions: Sequence[Prediction | PredictionBlock]) -> None:
        """Takes predictions one by one or in blocks, in any order.

        Raises:
          ValueError, pyarrow.ArrowException: See ``block_batch``.
          OSError: The temporary file cannot be written.
        """
        waiting: list[PredictionBlock] = []
        for block in in_blocks(predictions, CHUNK_ROWS):
            waiting.append(block)
            if sum(map(len, waiting)) >= CHUNK_ROWS:
                self._add_blocks(waiting)
                waiting = []
        if waiting:
            self._add_blocks(waiting)

    def _add_blocks(self, blocks: Sequence[PredictionBlock]) -> None:
        self.computed_by.update(block.computed_by for block in blocks if block.computed_by)
        block = joined(blocks)
        places = np.array([ref.row for ref in block.refs], np.int64)
        self._add(block_batch(block, self._spec), places)
        self.color_converted += sum(info.color_converted for info in block.infos)

    def add_labeled(self, rows: LabeledRows) -> None:
        """Takes rows that were labeled from their features, in any order.

        Raises:
          ValueError: See ``labeled_batch``.
          OSError: The temporary file cannot be written.
        """
        self._add(labeled_batch(rows.batch, self._spec), rows.places)
        self.relabeled += len(rows.places)
        if rows.computed_by:
            self.computed_by.add(rows.computed_by)

    def _add(self, batch: pa.RecordBatch, places: np.ndarray) -> None:
        blocks = [batch.slice(first, _BLOCK_ROWS) for first in range(0, len(batch), _BLOCK_ROWS)]
        self._held += blocks
        self._lengths += map(len, blocks)
        self._numbers.append(places)
        if self._file is not None or len(self) > _HELD_ROWS:
            self._set_aside()

    def in_order(self) -> Iterator[pa.RecordBatch]:
        """All rows in input order, in batches; no rows can be added afterwards."""
        if not self._lengths:
            return
        source = None
        if self._file is not None:
            self._file.close()
            source = pa.ipc.open_file(self._cleanup.enter_context(pa.OSFile(str(self._path))))
        numbers = np.concatenate(self._numbers)
        if (np.diff(numbers) > 0).all():
            yield from (self._load(source, place) for place in range(len(self._lengths)))
            return
        order = np.argsort(numbers, kind="stable")
        ends = np.cumsum(self._lengths)
        starts = ends - self._lengths
        loaded: dict[int, pa.RecordBatch] = {}
        for first in range(0, len(order), _BLOCK_ROWS):
            places = order[first : first + _BLOCK_ROWS]
            homes = np.searchsorted(ends, places, side="right")
            # Images arrive nearly in order, so these are two or three blocks, mostly the previous ones.
            needed = [int(home) for home in np.unique(homes)]
            loaded = {home: loaded.get(home) or self._load(source, home) for home in needed}
            offsets = np.zeros(len(ends), np.int64)
            offsets[needed] = np.cumsum([0, *(self._lengths[home] for home in needed)])[:-1]
            batch = pa.concat_batches(list(loaded.values()))
            yield batch.take(pa.array(places - starts[homes] + offsets[homes]))

    def _load(self, source: Any, place: int) -> pa.RecordBatch:
        return self._held[place] if source is None else source.get_batch(place)

    def _set_aside(self) -> None:
        if self._file is None:
            parent = storage.absolute(self._staging_dir) if storage.is_local(self._staging_dir) else None
            if parent is not None:
                storage.make_directory(parent)
            directory = tempfile.TemporaryDirectory(prefix="tmp-", dir=parent)
            self._path = Path(self._cleanup.enter_context(directory)) / "rows"
            self._file = pa.ipc.new_file(str(self._path), arrow_schema(self._spec))
            self._cleanup.callback(self._file.close)
        for batch in self._held:
            self._file.write_batch(batch)
        self._held.clear()
