"""A Parquet file with a URI or an image per row, or a list of them. A unit is a range of rows, read by its worker."""

from __future__ import annotations

import bisect
import dataclasses
import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import TypeGuard

import pyarrow.parquet as pq

from beamlabel.transforms import storage
from beamlabel.transforms.inputs.kept_columns import KeptReader
from beamlabel.transforms.inputs.parquet.packed_rows import schema_of, unpack_rows
from beamlabel.transforms.inputs.parquet.sparse_pages import SparseFile
from beamlabel.transforms.inputs.parquet_rows import Empty, ParquetRow, RowReader, row_ranges, rows_of
from beamlabel.transforms.inputs.parquet_source import open_parquet, open_sparse_parquet
from beamlabel.transforms.inputs.sources.parquet_cost import reads_once
from beamlabel.transforms.inputs.sources.parquet_staged import (
    MOST_ROW_BYTES,
    StagedUnits,
    place_id,
    row_bytes,
)
from beamlabel.transforms.inputs.sources.source import MAX_UNIT_ROWS, Planned, Source, SourceOptions
from beamlabel.transforms.records import Failure, ImageRef, InputFile, Reason, Stage, WorkUnit, unit_id
from beamlabel.transforms.storage.identity import image_id
from beamlabel.transforms.storage.uris import resolve

# The cause for counting rows without a reference.
_EMPTY_LIST = "empty_list"


class ParquetSource(Source):
    """Rows of a Parquet file, from 0."""

    def plan(
        self, number: int, file: InputFile, options: SourceOptions, limit: int | None
    ) -> Iterator[Planned]:
        yield from _plan_parquet(number, file, options, limit)

    def refs(self, unit: WorkUnit, options: SourceOptions) -> Iterator[ImageRef | Failure]:
        yield from self.wanted_refs(unit, options, lambda _: True, Counter())

    def wanted_refs(
        self, unit: WorkUnit, options: SourceOptions, is_wanted: Callable[[str], bool], left_out: Counter[str]
    ) -> Iterator[ImageRef | Failure]:
        path = unit.input_file.path
        for sent, row in enumerate(_chosen(unit, options, is_wanted, left_out)):
            # Values of lists are counted: two of one row need two places in the shard.
            order = row.place.row if row.place.element is None else unit.start + sent
            yield _reference(row, path, order, unit.unit_id, options)

    def count(
        self, unit: WorkUnit, options: SourceOptions, is_wanted: Callable[[str], bool], left_out: Counter[str]
    ) -> int:
        if not options.columns.lists and options.sample >= 1 and options.selection.only is None:
            return unit.stop - unit.start
        return sum(1 for _ in _chosen(unit, options, is_wanted, left_out, keys_only=True))

    def estimate(self, file: InputFile, options: SourceOptions) -> int:
        with open_parquet(file.path) as parquet:
            return round(parquet.metadata.num_rows * _references_per_row(parquet, options))


def _plan_parquet(
    number: int, file: InputFile, options: SourceOptions, limit: int | None
) -> Iterator[Planned]:
    """Ranges of a Parquet file, each with its number of references as far as ``limit`` needs it."""
    reads_keys = limit is not None and (options.sample < 1 or options.columns.lists)
    has_images = options.columns.image is not None
    with open_sparse_parquet(file.path, few=reads_keys and has_images) as (parquet, sparse):
        rows = parquet.metadata.num_rows
        per_row = _references_per_row(parquet, options) * options.sample
        reader = RowReader(parquet, options.columns, file.path, sparse)
        may_travel = not has_images and rows > 0 and row_bytes(parquet, reader.leaves) <= MOST_ROW_BYTES
        staged = StagedUnits(number, file, parquet, reader, options, per_row)
        if reads_keys and may_travel:
            yield from staged.plan(rows, limit)
            return
        stop, references = rows, rows
        taken: list[int] | None = None
        if limit is not None and not reads_keys:
            stop = references = min(rows, limit)
        elif limit is not None:
            taken = list(itertools.islice(_sampled_rows(parquet, sparse, file.path, options), limit))
            references = len(taken)
            if references == limit:
                stop = taken[-1] + 1 if taken else 0
        ends = list(_unit_ends(parquet.metadata, options, per_row, stop))
        if may_travel and stop and not reads_once(parquet, sparse, reader.leaves, ends):
            yield from staged.plan(stop, None)
            return
    start = 0
    for end in ends:
        last = end == stop
        most = None
        if last and taken is not None and options.columns.lists:
            # The limit may end within a list.
            most = references - bisect.bisect_left(taken, start)
        footer_rows = rows if stop == rows else None
        unit = WorkUnit(
            unit_id(number, start), file, start, end, last, file_rows=footer_rows, most_references=most
        )
        yield Planned(unit, references if last else 0)
        start = end


def _unit_ends(metadata: pq.FileMetaData, options: SourceOptions, per_row: float, stop: int) -> Iterator[int]:
    """The ends of units that read their own ranges: at the ends of row groups if these fit."""
    group_ends = [] if options.shard_rows is not None else _group_ends(metadata)
    start = 0
    while True:
        # A range is scaled to hold a unit's number of references.
        end = start + max(round(options.unit_rows(round(start * per_row)) / per_row), 1)
        if options.columns.image is not None:
            end = _group_end(group_ends, start, end)
        else:
            end = _group_end_before(group_ends, start, end)
        end = min(end, stop)
        yield end
        if end == stop:
            return
        start = end


def _references_per_row(parquet: pq.ParquetFile, options: SourceOptions) -> float:
    """The approximate references per row; for lists, the footer counts the values, and 1 for each empty list."""
    column = options.columns.image or options.columns.uri
    rows = parquet.metadata.num_rows
    if not options.columns.lists or not rows:
        return 1.0
    leaves = [parquet.schema.column(place).path for place in range(len(parquet.schema))]
    place = next(
        (n for n, leaf in enumerate(leaves) if leaf.partition(f"{column}.")[:2] == ("", f"{column}.")), None
    )
    if place is None:
        return 1.0
    groups = range(parquet.metadata.num_row_groups)
    return sum(parquet.metadata.row_group(group).column(place).num_values for group in groups) / rows


def _group_ends(metadata: pq.FileMetaData) -> list[int]:
    """The row after each row group."""
    sizes = (metadata.row_group(group).num_rows for group in range(metadata.num_row_groups))
    return list(itertools.accumulate(sizes))


def _group_end(group_ends: Sequence[int], start: int, end: int) -> int:
    """The end of the row group around ``end``, unless the unit would be too large.

    Reading a range begins at its row group's first row, which for inline images is most of the cost.
    """
    place = bisect.bisect_left(group_ends, end)
    if place < len(group_ends) and group_ends[place] - start <= MAX_UNIT_ROWS:
        return group_ends[place]
    return end


def _group_end_before(group_ends: Sequence[int], start: int, end: int) -> int:
    """The last end of a row group before ``end``, unless it would leave less than half of the unit."""
    place = bisect.bisect_right(group_ends, end) - 1
    if place >= 0 and group_ends[place] - start >= (end - start) / 2:
        return group_ends[place]
    return end


def _sampled_rows(
    parquet: pq.ParquetFile, sparse: SparseFile, path: str, options: SourceOptions
) -> Iterator[int]:
    """The row of each reference in the sample, without the images."""
    # With the image column: its path names a row that has no URI.
    columns = dataclasses.replace(options.columns, kept=())
    reader = RowReader(parquet, columns, path, sparse)
    for rows in row_ranges(parquet.metadata, 0, parquet.metadata.num_rows):
        for key in reader.keys(rows):
            if not isinstance(key, Empty) and options.in_sample(key.uri or place_id(path, key.place)):
                yield key.place.row


def _chosen(
    unit: WorkUnit,
    options: SourceOptions,
    is_wanted: Callable[[str], bool],
    left_out: Counter[str],
    *,
    keys_only: bool = False,
) -> Iterator[ParquetRow]:
    """The references of a unit that count. If others do not, images are read only for those that do.

    With ``keys_only``, they have the form of ``RowReader.keys``.
    """
    path = unit.input_file.path
    counts = _Counts(unit, options, is_wanted, left_out)
    if unit.packed_refs is not None or unit.refs_path is not None:
        yield from filter(counts, _carried(unit, options))
        return
    few = (
        keys_only
        or options.sample < 1
        or options.selection.only is not None
        or unit.most_references is not None
    )
    with open_sparse_parquet(path, few=few) as (file, sparse):
        rows = file.metadata.num_rows
        if rows < unit.stop or unit.file_rows not in (None, rows):
            raise ValueError(
                f"{path}: has {rows} rows, but had {unit.file_rows or unit.stop} when the run was planned"
            )
        reader = RowReader(file, options.columns, path, sparse)
        for part in row_ranges(file.metadata, unit.start, unit.stop):
            if keys_only:
                yield from filter(counts, reader.keys(part))
            elif few and reader.has_small_keys:
                wanted = {key.place for key in filter(counts, reader.keys(part))}
                yield from (row for row in reader.rows(part, wanted) if isinstance(row, ParquetRow))
            else:
                yield from filter(counts, reader.rows(part))


def _carried(unit: WorkUnit, options: SourceOptions) -> Iterator[ParquetRow | Empty]:
    """The rows that a unit carries or has staged."""
    packed = unit.packed_refs if unit.refs_path is None else storage.read_bytes(unit.refs_path)
    assert packed is not None
    kept = KeptReader(schema_of(packed), options.columns.kept, unit.input_file.path)
    for numbers, batch in unpack_rows(packed):
        yield from rows_of(batch, numbers, options.columns, kept)


class _Counts:
    """Decides for each row of a unit, in order, whether it is a reference that counts.

    Args: see ``Source.wanted_refs``.
    """

    def __init__(
        self,
        unit: WorkUnit,
        options: SourceOptions,
        is_wanted: Callable[[str], bool],
        left_out: Counter[str],
    ) -> None:
        self._path, self._options = unit.input_file.path, options
        self._is_wanted, self._left_out = is_wanted, left_out
        self._remaining = unit.most_references

    def __call__(self, row: ParquetRow | Empty) -> TypeGuard[ParquetRow]:
        if isinstance(row, Empty):
            self._left_out[_EMPTY_LIST] += 1
            return False
        identity = place_id(self._path, row.place)
        if self._remaining == 0 or not self._options.in_sample(row.uri or identity):
            return False
        if self._remaining is not None:
            # The limit counts everything in the sample, wanted or not.
            self._remaining -= 1
        return self._is_wanted(identity)


def _reference(
    row: ParquetRow, path: str, order: int, unit: str, options: SourceOptions
) -> ImageRef | Failure:
    identity = place_id(path, row.place)
    if row.problem is not None:
        return Failure(row.uri, identity, Stage.OPEN, *row.problem, order, unit)
    if row.data is None and row.not_text is not None:
        detail = "the URI is not UTF-8"
        return Failure(row.not_text, identity, Stage.OPEN, Reason.INVALID_URI, detail, order, unit)
    if row.data is None and row.uri is None:
        detail = "the row has neither a URI nor an image" if options.columns.image else "the URI is null"
        return Failure(None, identity, Stage.OPEN, Reason.NULL_URI, detail, order, unit)
    uri = row.uri or identity
    location = resolve(uri, options.base_dir) if row.data is None else identity
    # The loader's threads hash inline images.
    known = image_id(location) if row.data is None else None
    return ImageRef(uri, identity, location, order, unit, row.data, row.kept, image_id=known)
