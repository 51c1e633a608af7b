"""The shards of a compacted output: their limits, and how they are written."""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from beamlabel.pipeline.compact.rows import (
    computed_by,
    current_batches,
    current_examples,
    current_failures,
    current_versions,
)
from beamlabel.pipeline.compact.target import Target
from beamlabel.pipeline.current.select import Selection
from beamlabel.transforms.records import FileRange, FileRecord, UnitRecord, unit_id
from beamlabel.transforms.rows.schema import OutputSpec, computed_metadata
from beamlabel.transforms.rows.tfrecord import write_records
from beamlabel.transforms.units.unit_records import stage_record
from beamlabel.transforms.worker.allocators import release_unused_arrow_memory
from beamlabel.transforms.writing.staged_files import json_line, stage_file, temporary_file, write_data

# Part of the map of current rows to examine at once.
_BLOCK = 1 << 20

KINDS = ("data", "failures", "unchanged")
"""Kinds of shards, named as in a manifest."""


@dataclass(frozen=True)
class Cut:
    """A shard before it is written.

    Attributes:
      number: number of the shard.
      kind: one of ``KINDS``.
      start, stop: range of positions of its rows, failures or versions, including those that are left out.
      count: number of current ones among them.
    """

    number: int
    kind: str
    start: int
    stop: int
    count: int

    @property
    def unit_id(self) -> str:
        """Name of its files in the staging directory."""
        return unit_id(KINDS.index(self.kind), self.start)


def cut_into_shards(selection: Selection, shard_rows: int) -> Iterator[Cut]:
    """Yields shards of ``shard_rows`` current rows, at least one, then of failures, then of versions if there are any.

    Shards of rows and of failures cover all positions, including those of rows that are left out.
    """
    numbers = itertools.count()
    for kind in KINDS:
        start = 0
        for stop, count in _ends(_current(selection, kind), shard_rows):
            if count or kind != "unchanged":
                yield Cut(next(numbers), kind, start, stop, count)
            start = stop


def _current(selection: Selection, kind: str) -> np.ndarray:
    """bool[positions]: whether each row, failure or version of a kind is current."""
    of = {"data": selection.is_kept, "failures": selection.is_failed, "unchanged": selection.is_touched}
    return of[kind]


def _ends(is_current: np.ndarray, shard_rows: int) -> Iterator[tuple[int, int]]:
    """Yields the end and the size of each shard; the last one also covers trailing rows that are left out."""
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
    if cut.kind == "data":
        files = (_stage_rows(selection, target, metadata, cut, staging_dir),)
    elif cut.count:
        files = (_stage_lines(selection, cut, staging_dir, failed),)
    written = sum(file.rows for file in files)
    if written != cut.count:
        raise ValueError(f"{written} rows instead of {cut.count}: an output was changed meanwhile")
    places = len(_current(selection, cut.kind))
    # Versions do not count as outcomes.
    read = 0 if cut.kind == "unchanged" else cut.stop - cut.start
    record = UnitRecord(
        unit_id=cut.unit_id,
        ranges=(FileRange(cut.kind, cut.start, cut.stop, cut.stop == places),),
        input=read,
        predicted=cut.count if cut.kind == "data" else 0,
        failed=dict(sorted(failed.items())),
        skipped=read and read - cut.count,
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


def _stage_lines(selection: Selection, cut: Cut, staging_dir: str, failed: Counter[str]) -> FileRecord:
    """Writes failures, and counts them by reason, or versions."""
    lines, count = current_failures if cut.kind == "failures" else current_versions, 0
    with temporary_file(staging_dir) as path:
        with path.open("wb") as file:
            for line in lines(selection, cut.start, cut.stop):
                if cut.kind == "failures":
                    failed[line["reason"]] += 1
                file.write(json_line(line))
                count += 1
        return stage_file(path, staging_dir, f"{cut.kind}/{cut.unit_id}", "jsonl", cut.kind, count)
