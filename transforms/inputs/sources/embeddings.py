"""A data shard of an earlier output: its rows have embeddings, so that no image is fetched."""

from __future__ import annotations

import bisect
import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from beamlabel.transforms.inputs.embedding_rows import parquet_batches, tfrecord_batches
from beamlabel.transforms.inputs.parquet_source import open_parquet
from beamlabel.transforms.inputs.sources.source import MAX_UNIT_ROWS, Planned, Source, SourceOptions
from beamlabel.transforms.records import EmbeddedRows, Failure, ImageRef, InputFile, WorkUnit, unit_id


class EmbeddingsSource(Source):
    """Rows of a Parquet or TFRecord shard, from 0; the number of rows comes from the manifest.

    A shard was a unit once. It is one again, unless it has grown since, as by a compaction.
    """

    def plan(
        self, number: int, file: InputFile, options: SourceOptions, limit: int | None
    ) -> Iterator[Planned]:
        assert file.rows is not None, "file.rows comes from the manifest"
        rows = file.rows
        group_ends = _group_ends(file) if is_parquet(file.path) and options.shard_rows is None else []
        stop = rows if limit is None else min(rows, limit)
        start = 0
        while True:
            end = min(_unit_end(group_ends, start, start + (options.shard_rows or MAX_UNIT_ROWS)), stop)
            last = end == stop
            file_rows = rows if stop == rows else None
            yield Planned(WorkUnit(unit_id(number, start), file, start, end, last, file_rows), end - start)
            if last:
                return
            start = end

    def embedded(self, unit: WorkUnit, options: SourceOptions) -> Iterator[EmbeddedRows]:
        """The rows of a unit, batch by batch.

        Raises:
          ValueError: the file has changed since it was planned.
          OSError: it cannot be read.
        """
        file = unit.input_file
        batches = parquet_batches if is_parquet(file.path) else tfrecord_batches
        row = unit.start
        for batch in batches(file.path, unit.start, unit.stop, options.columns.kept, file.rows):
            yield EmbeddedRows(unit.unit_id, np.arange(row, row + batch.num_rows), batch)
            row += batch.num_rows

    def refs(self, unit: WorkUnit, options: SourceOptions) -> Iterator[ImageRef | Failure]:
        raise TypeError(f"{unit.input_file.path}: rows with embeddings have no images to fetch")

    def count(
        self, unit: WorkUnit, options: SourceOptions, is_wanted: Callable[[str], bool], left_out: Counter[str]
    ) -> int:
        return unit.stop - unit.start

    def rows(self, unit: WorkUnit) -> int | None:
        return unit.stop - unit.start

    def estimate(self, file: InputFile, options: SourceOptions) -> int:
        return file.rows or 0


def is_parquet(path: str) -> bool:
    """Whether a shard is Parquet; else it is TFRecords."""
    return path.endswith(".parquet")


def _unit_end(group_ends: Sequence[int], start: int, end: int) -> int:
    """The end of the last row group that fits into a unit up to ``end``; ``end`` if none does."""
    place = bisect.bisect_right(group_ends, end) - 1
    return group_ends[place] if place >= 0 and group_ends[place] > start else end


def _group_ends(file: InputFile) -> list[int]:
    """The row after each row group: if a unit ended within a group, the next unit would read it again."""
    with open_parquet(file.path, few=True) as parquet:
        metadata = parquet.metadata
        if metadata.num_rows != file.rows:
            raise ValueError(f"{file.path}: has {metadata.num_rows} rows, but its manifest says {file.rows}")
        return list(
            itertools.accumulate(metadata.row_group(n).num_rows for n in range(metadata.num_row_groups))
        )
