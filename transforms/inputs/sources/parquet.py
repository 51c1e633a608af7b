"""A Parquet file: a URI or an image a row. A unit names a range of rows, which its worker reads itself."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Iterator, Sequence

import pyarrow.parquet as pq

from beamlabel.transforms.inputs.parquet_source import ParquetColumns, open_parquet, read_rows
from beamlabel.transforms.inputs.sources.source import MAX_UNIT_ROWS, Planned, Source, SourceOptions, ref_id
from beamlabel.transforms.records import Failure, ImageRef, InputFile, Reason, Stage, WorkUnit, unit_id
from beamlabel.transforms.storage.identity import image_id
from beamlabel.transforms.storage.uris import resolve


class ParquetSource(Source):
    """Rows of a Parquet file, from 0."""

    def plan(
        self, number: int, file: InputFile, options: SourceOptions, limit: int | None
    ) -> Iterator[Planned]:
        yield from _plan_parquet(number, file, options, limit)

    def refs(self, unit: WorkUnit, options: SourceOptions) -> Iterator[ImageRef | Failure]:
        yield from _parquet_refs(unit, options)

    def rows(self, unit: WorkUnit) -> int | None:
        return unit.stop - unit.start

    def estimate(self, file: InputFile, options: SourceOptions) -> int:
        with open_parquet(file.path) as parquet:
            return int(parquet.metadata.num_rows)


def _plan_parquet(
    number: int, file: InputFile, options: SourceOptions, limit: int | None
) -> Iterator[Planned]:
    """Ranges of a Parquet file, each with its number of references as far as ``limit`` needs it."""
    with open_parquet(file.path) as parquet:
        rows = parquet.metadata.num_rows
        whole_groups = options.columns.image is not None and options.shard_rows is None
        group_ends = _group_ends(parquet.metadata) if whole_groups else []
        stop, references = rows, rows
        if limit is not None and options.sample >= 1:
            stop = references = min(rows, limit)
        elif limit is not None:
            taken = list(itertools.islice(_sampled_rows(parquet, file.path, options), limit))
            references = len(taken)
            if references == limit:
                stop = taken[-1] + 1 if taken else 0
    start = 0
    while True:
        # With a sample, a range is as much longer as it takes to hold a unit's worth of references.
        span = round(options.unit_rows(round(start * options.sample)) / options.sample)
        end = min(_group_end(group_ends, start, start + span), stop)
        last = end == stop
        footer_rows = rows if stop == rows else None
        unit = WorkUnit(unit_id(number, start), file, start, end, last, file_rows=footer_rows)
        yield Planned(unit, references if last else 0)
        if last:
            return
        start = end


def _group_ends(metadata: pq.FileMetaData) -> list[int]:
    """The row after each row group."""
    sizes = (metadata.row_group(group).num_rows for group in range(metadata.num_row_groups))
    return list(itertools.accumulate(sizes))


def _group_end(group_ends: Sequence[int], start: int, end: int) -> int:
    """The end of the row group that ``end`` lies in, unless the unit would be too large.

    Reading a range begins at its row group's first row, which for inline images is most of the cost.
    """
    place = bisect.bisect_left(group_ends, end)
    if place < len(group_ends) and group_ends[place] - start <= MAX_UNIT_ROWS:
        return group_ends[place]
    return end


def _sampled_rows(parquet: pq.ParquetFile, path: str, options: SourceOptions) -> Iterator[int]:
    # The image column too: the path in it names a row that has no URI.
    columns = ParquetColumns(uri=options.columns.uri, image=options.columns.image)
    for row in read_rows(parquet, columns, start=0, stop=parquet.metadata.num_rows, path=path):
        if options.in_sample(row.uri or ref_id(path, row.row)):
            yield row.row


def _parquet_refs(unit: WorkUnit, options: SourceOptions) -> Iterator[ImageRef | Failure]:
    path = unit.input_file.path
    seen = unit.start
    with open_parquet(path) as file:
        rows = file.metadata.num_rows
        if rows < unit.stop or unit.file_rows not in (None, rows):
            raise ValueError(
                f"{path}: {rows} rows, but {unit.file_rows or unit.stop} when the run was planned"
            )
        for row in read_rows(file, options.columns, start=unit.start, stop=unit.stop, path=path):
            seen = row.row + 1
            identity = ref_id(path, row.row)
            uri = row.uri or identity
            if not options.in_sample(uri):
                continue
            if row.uri is None and row.data is None:
                detail = (
                    "the row has neither a URI nor an image" if options.columns.image else "the URI is null"
                )
                yield Failure(None, identity, Stage.OPEN, Reason.NULL_URI, detail, row.row, unit.unit_id)
            else:
                location = resolve(uri, options.base_dir) if row.data is None else identity
                # Hashing an inline image is left to the threads that load it.
                known = image_id(location) if row.data is None else None
                yield ImageRef(
                    uri, identity, location, row.row, unit.unit_id, row.data, row.kept, image_id=known
                )
    if seen != unit.stop:
        raise ValueError(
            f"{path}: rows {unit.start} to {unit.stop} were planned, but reading ended at {seen}"
        )
