"""Units of a Parquet file of URIs that carry their rows.

A unit is smaller than the row groups of most lists, and pages are often larger than a unit, so units would read the
same bytes several times. Instead, the planner reads the columns once.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from beamlabel.transforms.inputs.parquet.packed_rows import pack_rows
from beamlabel.transforms.inputs.parquet_rows import (
    Empty,
    Place,
    RowReader,
    Unreadable,
    references,
    row_ranges,
)
from beamlabel.transforms.inputs.sources.source import Planned, SourceOptions, ref_id
from beamlabel.transforms.records import InputFile, WorkUnit, unit_id

MOST_ROW_BYTES = 4096
"""Rows with a larger average size do not travel."""
_UNIT_BYTES = 8 << 20
# The largest size of a unit's unpacked rows, not counting the last batch.
_MOST_UNIT_BYTES = 32 << 20

_Batch = tuple[Sequence[int], pa.RecordBatch]


def place_id(path: str, place: Place) -> str:
    """``input file#row``, or ``input file#row#index`` for a value of a list."""
    return ref_id(path, place.row) + ("" if place.element is None else f"#{place.element}")


def row_bytes(file: pq.ParquetFile, leaves: Sequence[int]) -> float:
    """The average uncompressed bytes of a row in some leaf columns."""
    groups = [file.metadata.row_group(group) for group in range(file.metadata.num_row_groups)]
    size = sum(group.column(leaf).total_uncompressed_size for group in groups for leaf in leaves)
    return size / max(file.metadata.num_rows, 1)


class _Taken(NamedTuple):
    """The content of a unit.

    Attributes:
      batches: with its rows; None if these are unreadable.
      found: the number of references in them, if counted.
      last_row: of the last reference.
      stop: the row after its last one.
    """

    batches: list[_Batch] | None
    found: int
    last_row: int
    stop: int


class StagedUnits:
    """The units of one file.

    Args:
      number: the file's place among the inputs.
      file: the file.
      parquet, reader: the open file.
      options: how inputs become references.
      per_row: the approximate number of references per row in the sample.
    """

    def __init__(
        self,
        number: int,
        file: InputFile,
        parquet: pq.ParquetFile,
        reader: RowReader,
        options: SourceOptions,
        per_row: float,
    ) -> None:
        self._number, self._file, self._options = number, file, options
        self._reader, self._per_row = reader, per_row
        self._rows = parquet.metadata.num_rows
        self._ranges = row_ranges(parquet.metadata, 0, self._rows)
        self._schema: pa.Schema | None = None
        self._metadata = dict(parquet.schema_arrow.metadata or {}) if options.columns.kept else {}
        self._metadata.pop(b"ARROW:schema", None)
        self._row_bytes = row_bytes(parquet, reader.leaves)
        # The version of the file, since another version has other rows.
        facts = repr((file.path, file.size, file.version)).encode()
        self._sha256 = hashlib.sha256(facts).hexdigest()
        self._rest: tuple[int, pa.RecordBatch | Unreadable] | None = None
        self._batches = (one for rows in self._ranges for one in reader.batches(rows))

    def plan(self, stop: int, limit: int | None) -> Iterator[Planned]:
        """The units up to a row, or up to a number of references in the sample.

        Raises:
          ValueError, OSError: the file cannot be read.
        """
        start = sent = 0
        while True:
            end = min(start + self._span(start), stop)
            remaining = None if limit is None else limit - sent
            taken = self._unit_rows(start, end, remaining)
            found, end = taken.found, taken.stop
            is_full = limit is not None and sent + found == limit
            if is_full:
                end = taken.last_row + 1
            last = is_full or end == stop
            most = found if is_full and self._options.columns.lists else None
            references = 0 if not last else stop if limit is None else sent + found
            ends_file = stop == self._rows and (limit is None or end == stop)
            unit = self._unit(start, end, taken.batches, last=last, most=most)
            yield Planned(dataclasses.replace(unit, file_rows=self._rows if ends_file else None), references)
            if last:
                return
            start, sent = end, sent + found

    def _span(self, start: int) -> int:
        """The number of rows for a unit's number of references, limited by memory."""
        span = max(round(self._options.unit_rows(round(start * self._per_row)) / self._per_row), 1)
        if self._options.shard_rows is not None or not self._row_bytes:
            return span
        share = self._options.sample
        return max(min(span, round(_UNIT_BYTES / (self._row_bytes * share))), 1)

    def _unit(
        self, start: int, end: int, batches: list[_Batch] | None, *, last: bool, most: int | None
    ) -> WorkUnit:
        assert self._schema is not None or not batches
        # Reading unreadable rows on the worker reports the reason.
        packed = batches is not None and pack_rows(batches, self._schema or pa.schema([]), self._metadata)
        return WorkUnit(
            unit_id(self._number, start, self._sha256),
            self._file,
            start,
            end,
            last,
            packed_refs=packed or None,
            most_references=most,
        )

    def _unit_rows(self, start: int, end: int, remaining: int | None) -> _Taken:
        """The rows of the next unit, which ends at ``end``, or earlier if they are large.

        References are counted only if ``remaining``, their largest number, is given.
        """
        batches: list[_Batch] = []
        found, last_row, reached, held = 0, start - 1, start, 0
        for row, batch in self._take(start, end) if remaining != 0 else ():
            if isinstance(batch, Unreadable):
                if reached > start:  # the unreadable rows become a unit of their own
                    self._rest = row, batch
                    return _Taken(batches, found, last_row, reached)
                return self._unreadable(row, min(batch.stop, end), remaining)
            self._schema = batch.schema
            reached = row + batch.num_rows
            held += batch.nbytes
            if remaining is None and self._options.sample >= 1:
                batches.append((range(row, row + batch.num_rows), batch))
            else:
                chosen = []
                for place, sampled in self._sampled(row, batch):
                    chosen.append(place)
                    if sampled:
                        found, last_row = found + 1, row + place
                        if found == remaining:
                            break
                chosen = list(dict.fromkeys(chosen))
                if chosen:
                    taken = batch.take(pa.array(chosen, pa.int64()))
                    batches.append(([row + place for place in chosen], taken))
                if found == remaining:
                    break
            if held >= _MOST_UNIT_BYTES:
                return _Taken(batches, found, last_row, reached)
        return _Taken(batches, found, last_row, end)

    def _sampled(self, row: int, batch: pa.RecordBatch) -> Iterator[tuple[int, bool]]:
        """The places of a batch that may hold references, and whether the reference is in the sample."""
        for place, one in references(batch, range(row, row + batch.num_rows), self._options.columns):
            if isinstance(one, Empty):
                yield place, False
            elif self._options.in_sample(one.uri or place_id(self._file.path, one.place)):
                yield place, True

    def _unreadable(self, start: int, stop: int, remaining: int | None) -> _Taken:
        found, last_row = 0, start - 1
        for row in range(start, stop):
            if found == remaining:
                break
            if self._options.in_sample(place_id(self._file.path, Place(row))):
                found, last_row = found + 1, row
        return _Taken(None, 0 if remaining is None else found, last_row, stop)

    def _take(self, start: int, end: int) -> Iterator[tuple[int, pa.RecordBatch | Unreadable]]:
        """The rows of a range that begins at the end of the last range."""
        while start < end:
            row, batch = self._rest or next(self._batches)
            self._rest = None
            if isinstance(batch, Unreadable):
                if batch.stop > end:
                    self._rest = end, batch
                start = min(batch.stop, end)
                yield row, batch
                continue
            count = min(end - row, batch.num_rows)
            if count < batch.num_rows:
                self._rest = row + count, batch.slice(count)
            start = row + count
            yield row, batch.slice(0, count)
