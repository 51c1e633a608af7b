"""Units of a Parquet file of URIs that carry their rows.

A unit is smaller than the row groups of most lists, and pages often are larger than a unit: each unit would read again
what others read. So whoever plans them reads the columns once.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from beamlabel.transforms.inputs.parquet.packed_rows import pack_rows
from beamlabel.transforms.inputs.parquet_rows import Empty, Place, RowReader, references, row_ranges
from beamlabel.transforms.inputs.sources.source import Planned, SourceOptions, ref_id
from beamlabel.transforms.records import InputFile, WorkUnit, unit_id

MOST_ROW_BYTES = 4096
"""Rows that are larger on average do not travel."""
_UNIT_BYTES = 8 << 20

_Batch = tuple[Sequence[int], pa.RecordBatch]


def place_id(path: str, place: Place) -> str:
    """``input file#row``, or for a value of a list ``input file#row#index``."""
    return ref_id(path, place.row) + ("" if place.element is None else f"#{place.element}")


def row_bytes(file: pq.ParquetFile, leaves: Sequence[int]) -> float:
    """The bytes of a row in some leaf columns, on average, not compressed."""
    groups = [file.metadata.row_group(group) for group in range(file.metadata.num_row_groups)]
    size = sum(group.column(leaf).total_uncompressed_size for group in groups for leaf in leaves)
    return size / max(file.metadata.num_rows, 1)


class StagedUnits:
    """The units of one file.

    Args:
      number: the file's place among the inputs.
      file: the file.
      parquet, reader: the same, open.
      options: how inputs become references.
      per_row: references of a row, about, that the sample keeps.
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
        # Which version of the file, since another one has other rows.
        facts = repr((file.path, file.size, file.version)).encode()
        self._sha256 = hashlib.sha256(facts).hexdigest()
        self._rest: tuple[int, pa.RecordBatch] | None = None
        self._batches = (one for rows in self._ranges for one in reader.batches(rows))

    def plan(self, stop: int, limit: int | None) -> Iterator[Planned]:
        """The units up to a row, or up to so many references of the sample.

        Raises:
          ValueError, OSError: the file cannot be read.
        """
        start = sent = 0
        while True:
            end = min(start + self._span(start), stop)
            remaining = None if limit is None else limit - sent
            batches, found, last_row = self._unit_rows(start, end, remaining)
            is_full = limit is not None and sent + found == limit
            if is_full:
                end = last_row + 1
            last = is_full or end == stop
            most = found if is_full and self._options.columns.lists else None
            references = 0 if not last else stop if limit is None else sent + found
            ends_file = stop == self._rows and (limit is None or end == stop)
            unit = self._unit(start, end, batches, last=last, most=most)
            yield Planned(dataclasses.replace(unit, file_rows=self._rows if ends_file else None), references)
            if last:
                return
            start, sent = end, sent + found

    def _span(self, start: int) -> int:
        """How many rows hold a unit's worth of references, and can be held."""
        span = max(round(self._options.unit_rows(round(start * self._per_row)) / self._per_row), 1)
        if self._options.shard_rows is not None or not self._row_bytes:
            return span
        share = self._options.sample
        return max(min(span, round(_UNIT_BYTES / (self._row_bytes * share))), 1)

    def _unit(self, start: int, end: int, batches: list[_Batch], *, last: bool, most: int | None) -> WorkUnit:
        assert self._schema is not None or not batches
        packed = pack_rows(batches, self._schema or pa.schema([]), self._metadata)
        return WorkUnit(
            unit_id(self._number, start, self._sha256),
            self._file,
            start,
            end,
            last,
            packed_refs=packed,
            most_references=most,
        )

    def _unit_rows(self, start: int, end: int, remaining: int | None) -> tuple[list[_Batch], int, int]:
        """The rows of a unit that may hold references, how many these are, and the row of the last of them.

        References are counted only if ``remaining``, that there may be, is given.
        """
        batches: list[_Batch] = []
        found, last_row = 0, start - 1
        for row, batch in self._take(start, end) if remaining != 0 else ():
            self._schema = batch.schema
            if remaining is None and self._options.sample >= 1:
                batches.append((range(row, row + batch.num_rows), batch))
                continue
            chosen: list[int] = []
            for place, one in references(batch, range(row, row + batch.num_rows), self._options.columns):
                if isinstance(one, Empty):
                    chosen.append(place)
                elif self._options.in_sample(one.uri or place_id(self._file.path, one.place)):
                    chosen.append(place)
                    found, last_row = found + 1, row + place
                    if found == remaining:
                        break
            chosen = list(dict.fromkeys(chosen))
            if chosen:
                batches.append(([row + place for place in chosen], batch.take(pa.array(chosen, pa.int64()))))
            if found == remaining:
                break
        return batches, found, last_row

    def _take(self, start: int, end: int) -> Iterator[tuple[int, pa.RecordBatch]]:
        """The rows of a range that begins where the last one ended."""
        while start < end:
            row, batch = self._rest or next(self._batches)
            self._rest = None
            count = min(end - row, batch.num_rows)
            if count < batch.num_rows:
                self._rest = row + count, batch.slice(count)
            start = row + count
            yield row, batch.slice(0, count)
