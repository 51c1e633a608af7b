"""The graph's last step: checks the unit records and gathers them into one ``commit.json``; the first one wins."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any

import apache_beam as beam

from beamlabel.pipeline import layout
from beamlabel.pipeline.earlier.tombstones import TombstoneOptions, stage_tombstones
from beamlabel.transforms import storage
from beamlabel.transforms.records import InputFile, UnitRecord
from beamlabel.transforms.storage.billing import set_billing_project


class ConservationError(Exception):
    """The records do not account for every input row, so the run fails."""


def check_records(records: Sequence[UnitRecord], files: Sequence[InputFile], *, limited: bool) -> None:
    """Checks that the records cover every input file from row 0 to its end, without a gap or an overlap.

    Args:
      records: all records, sorted by unit.
      files: the files that were matched at launch.
      limited: whether ``--limit`` may have cut files short.

    Raises:
      ConservationError: a file was not read, not read to its end, or read twice.
    """
    tiled = set()
    ranges = [one for record in records for one in record.ranges]
    for path, group in groupby(ranges, key=lambda one: one.input_path):
        parts = list(group)
        expected = 0
        for part in parts:
            if part.start != expected:
                raise ConservationError(f"{path}: rows {expected} to {part.start} are in no unit or in two")
            expected = part.stop
        if [part.last for part in parts] != [False] * (len(parts) - 1) + [True]:
            raise ConservationError(f"{path}: the units end at row {expected}, before the end of the file")
        footer_rows = parts[-1].file_rows
        if footer_rows is not None and footer_rows != expected and not limited:
            raise ConservationError(f"{path}: {expected} rows were read, but its footer says {footer_rows}")
        if path in tiled:
            raise ConservationError(f"{path}: read twice")
        tiled.add(path)
    if unread := [file.path for file in files if file.path not in tiled]:
        raise ConservationError(f"matched but not read: {', '.join(unread[:5])} ({len(unread)} files)")
    if unknown := tiled - {file.path for file in files}:
        raise ConservationError(f"read but not matched: {', '.join(sorted(unknown)[:5])}")


def commit(
    records: Iterable[UnitRecord],
    *,
    staging_dir: str,
    files: Sequence[InputFile],
    limited: bool,
    tombstones: TombstoneOptions | None = None,
) -> str:
    """Writes ``commit.json`` unless it exists, after the tombstones if they are requested.

    A run that was out of time has not read all of its input, and writes no tombstones.

    Returns:
      The path of ``commit.json``.

    Raises:
      ConservationError: see ``check_records``.
      OSError, ValueError: see ``stage_tombstones``.
    """
    ordered = sorted(records, key=lambda record: record.unit_id)
    check_records(ordered, files, limited=limited)
    content: dict[str, Any] = {
        "format": layout.COMMIT_FORMAT,
        "plan_id": staging_dir.rpartition("/")[2],
        "committed_at": time.time(),
        "records": [record.to_json() for record in ordered],
    }
    if tombstones is not None and not any(record.out_of_time for record in ordered):
        staged = stage_tombstones([record.unit_id for record in ordered], staging_dir, tombstones)
        content["deleted"] = [dataclasses.asdict(file) for file in staged.files]
        content["tombstones"] = {"live": staged.live, "gone": staged.gone}
    path = storage.join(staging_dir, layout.COMMIT)
    storage.create_if_absent(path, json.dumps(content).encode())
    return path


class Commit(beam.PTransform):
    """Commits ``UnitRecord``s; the result is the path of the one ``commit.json``.

    Args:
      staging_dir: staging directory of the plan.
      files: the files that were matched at launch.
      limited: whether ``--limit`` may have cut files short.
      billing_project: the project that pays for requests to ``gs://``; None: the bucket's own.
      tombstones: how missing images are recorded; None if they are not.
    """

    def __init__(
        self,
        *,
        staging_dir: str,
        files: Sequence[InputFile],
        limited: bool,
        billing_project: str | None = None,
        tombstones: TombstoneOptions | None = None,
    ) -> None:
        super().__init__()
        self._arguments: dict[str, Any] = {"staging_dir": staging_dir, "files": tuple(files)}
        self._arguments |= {"limited": limited, "tombstones": tombstones}
        self._billing_project = billing_project

    def expand(self, records: beam.PCollection[UnitRecord]) -> beam.PCollection[str]:
        # CombineGlobally would add six transforms and 0.1 s to the start of a local run.
        gathered = records | "ToOneGroup" >> beam.Map(_in_one_group) | "Gather" >> beam.GroupByKey()
        return gathered | "Commit" >> beam.Map(
            _commit_group, billing_project=self._billing_project, **self._arguments
        ).with_output_types(str)


def _in_one_group(record: UnitRecord) -> tuple[str, UnitRecord]:
    return "", record


def _commit_group(
    group: tuple[str, Iterable[UnitRecord]], billing_project: str | None, **arguments: Any
) -> str:
    set_billing_project(billing_project)
    return commit(group[1], **arguments)
