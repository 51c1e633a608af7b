"""The shards of a compacted output: where they begin and end, and how each is written."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from beamlabel.pipeline.compact.rows import computed_by, current_batches, current_examples, current_failures
from beamlabel.pipeline.compact.target import Target
from beamlabel.pipeline.current.select import Selection
from beamlabel.transforms.records import FileRange, FileRecord, UnitRecord, unit_id
from beamlabel.transforms.rows.schema import OutputSpec, computed_metadata
from beamlabel.transforms.rows.tfrecord import write_records
from beamlabel.transforms.units.unit_records import stage_record
from beamlabel.transforms.worker.allocators import release_unused_arrow_memory
from beamlabel.transforms.writing.staged_files import json_line, stage_file, temporary_file, write_data

# Of the map of what is current, looked at at a time.
_BLOCK = 1 << 20


@dataclass(frozen=True)
class Cut:
    """A shard before it is written.

    Attributes:
      number: among the shards; those of failures come last.
      is_failures: whether it holds failures in place of rows.
      start, stop: the places of its rows or failures, and of what is left out between them.
      count: how many of them are current.
    """

    number: int
    is_failures: bool
    start: int
    stop: int
    count: int

    @property
    def unit_id(self) -> str:
        """Names its files in the staging folder."""
        return unit_id(int(self.is_failures), self.start)


def cut_into_shards(selection: Selection, shard_rows: int) -> Iterator[Cut]:
    """Shards of ``shard_rows`` current rows, then of as many failures; they tile all places. One at least has rows."""
    number = 0
    for is_failures, is_current in ((False, selection.is_kept), (True, selection.is_failed)):
        start = 0
        ends = list(_ends(is_current, shard_rows))
        for stop, count in ends:
            yield Cut(number, is_failures, start, stop, count)
            start = stop
            number += 1


def _ends(is_current: np.ndarray, shard_rows: int) -> Iterator[tuple[int, int]]:
    """Where each shard ends, and how many it has; a last one without any takes what is left out after the others."""
    count = 0
    for first in range(0, len(is_current), _BLOCK):
        places = np.flatnonzero(is_current[first : first + _BLOCK]) + first
        while count + len(places) > shard_rows:
            taken = shard_rows - count
            yield int(places[taken]), shard_rows
            places, count = places[taken:], 0
        count += len(places)
    yield len(is_current), count


def stage_shard(
    selection: Selection, target: Target, metadata: Mapping[str, str], cut: Cut, staging_dir: str
) -> UnitRecord:
    """Writes a shard and its record.

    Raises:
      OSError, ValueError: a file cannot be read or written.
    """
    failed: Counter[str] = Counter()
    files: tuple[FileRecord, ...] = ()
    if not cut.is_failures:
        files = (_stage_rows(selection, target, metadata, cut, staging_dir),)
    elif cut.count:
        files = (_stage_failures(selection, cut, staging_dir, failed),)
    written = sum(file.rows for file in files)
    if written != cut.count:
        raise ValueError(f"{written} rows in place of {cut.count}: an output was changed meanwhile")
    places = len(selection.is_failed if cut.is_failures else selection.is_kept)
    record = UnitRecord(
        unit_id=cut.unit_id,
        ranges=(
            FileRange("failures" if cut.is_failures else "rows", cut.start, cut.stop, cut.stop == places),
        ),
        input=cut.stop - cut.start,
        predicted=0 if cut.is_failures else cut.count,
        failed=dict(sorted(failed.items())),
        skipped=cut.stop - cut.start - cut.count,
        files=files,
    )
    release_unused_arrow_memory()
    return stage_record(record, staging_dir)


def _stage_rows(
    selection: Selection, target: Target, metadata: Mapping[str, str], cut: Cut, staging_dir: str
) -> FileRecord:
    engines = computed_by(selection, cut.start, cut.stop)
    spec: OutputSpec = target.spec(computed_metadata(metadata, engines))
    with temporary_file(staging_dir) as path:
        with path.open("wb") as file:
            if target.columns is None:
                examples = current_examples(selection, cut.start, cut.stop)
                write_records(file, examples, compression=spec.compression)
            else:
                write_data(file, current_batches(selection, target.columns, cut.start, cut.stop), spec)
        staged = stage_file(path, staging_dir, f"shards/{cut.unit_id}", spec.file_ending, "data", cut.count)
    return dataclasses.replace(staged, computed_by=", ".join(engines) or None)


def _stage_failures(selection: Selection, cut: Cut, staging_dir: str, failed: Counter[str]) -> FileRecord:
    with temporary_file(staging_dir) as path:
        with path.open("wb") as file:
            for failure in current_failures(selection, cut.start, cut.stop):
                failed[failure["reason"]] += 1
                file.write(json_line(failure))
        return stage_file(path, staging_dir, f"failures/{cut.unit_id}", "jsonl", "failures", failed.total())
