"""Reads ``job.json`` and ``commit.json`` of a committed run, and checks them before a file is touched.

Anyone who can write into the output directory can write these files, and they decide which files are moved. So they are
trusted only if the names, counts and content of all their files are those that workers of the run staged. This does not
protect against a writer of the directory who forges both records and files.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, NamedTuple

from beamlabel.pipeline import layout
from beamlabel.pipeline.output.own_json import COMMIT, JOB, DamagedError, read_json
from beamlabel.pipeline.output.staged_content import changed
from beamlabel.transforms import storage
from beamlabel.transforms.records import FileRecord, UnitRecord
from beamlabel.transforms.storage.inside import OutsideError, below

RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")
_UNIT = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,99}")
_ENDING = re.compile(r"-[0-9a-f]{16}(?:\.[a-z0-9]+)+")
# Subdirectories of a staging directory, by kind of file.
_STAGED = {"data": "shards", "failures": "failures", "unchanged": "unchanged", "summary": "summaries"}


class Committed(NamedTuple):
    """A committed run.

    Attributes:
      job: the facts of the run.
      commit: the content of ``commit.json``, from the graph.
      records: of all units.
      deleted: the files of tombstones.
    """

    job: dict[str, Any]
    commit: dict[str, Any]
    records: list[UnitRecord]
    deleted: list[FileRecord]


def read_committed(staging_dir: str) -> Committed:
    """Reads a committed run.

    Raises:
      FileNotFoundError: the run was not committed.
      OutsideError: the commit names files of others, or the two JSON files are damaged or belong to different runs.
    """
    job = _marked(staging_dir, layout.JOB, JOB, layout.JOB_FORMAT)
    commit = _marked(staging_dir, layout.COMMIT, COMMIT, layout.COMMIT_FORMAT)
    plan_id = staging_dir.rpartition("/")[2]
    try:
        records = [UnitRecord.from_json(record) for record in commit["records"]]
        deleted = [FileRecord(**file) for file in commit.get("deleted", ())]
    except (ValueError, TypeError) as error:
        raise _refused(staging_dir, f"it is damaged ({type(error).__name__}: {error})") from error
    run_ids = {job["run_id"], job["manifest"]["run_id"]}
    if not job["manifest"]["plan_id"] == plan_id == commit.get("plan_id", plan_id):
        raise _refused(staging_dir, "it belongs to another plan")
    if len(run_ids) != 1 or not RUN_ID.fullmatch(min(run_ids)):
        raise _refused(staging_dir, f"{min(run_ids)!r} is not the id of its run")
    _check_files(staging_dir, records, deleted)
    return Committed(job, commit, records, deleted)


def _marked(staging_dir: str, name: str, shape: Any, mark: str) -> dict[str, Any]:
    try:
        content: dict[str, Any] = read_json(storage.join(staging_dir, name), shape)
    except DamagedError as error:
        raise _refused(staging_dir, str(error)) from error
    if content["format"] != mark:
        raise _refused(staging_dir, f"{name} does not have beamlabel's mark")
    return content


def _check_files(staging_dir: str, records: Iterable[UnitRecord], deleted: Iterable[FileRecord]) -> None:
    units: set[str] = set()
    names: set[str] = set()
    files: list[tuple[str, FileRecord]] = [("deleted/", file) for file in deleted]
    for record in records:
        if not isinstance(record.unit_id, str) or not _UNIT.fullmatch(record.unit_id):
            raise _refused(staging_dir, f"{record.unit_id!r} is not the name of a unit")
        if record.unit_id in units:
            raise _refused(staging_dir, f"the unit {record.unit_id} occurs twice")
        units.add(record.unit_id)
        _check_counts(staging_dir, record)
        files += [(f"{_STAGED.get(file.kind)}/{record.unit_id}", file) for file in record.files]
    for stem, file in files:
        below(staging_dir, file.name)
        rest = file.name[len(stem) :]
        is_tombstones = stem == "deleted/" and file.kind == "deleted"
        ours = re.fullmatch(rf"\d{{5,}}{_ENDING.pattern}", rest) if is_tombstones else _ENDING.fullmatch(rest)
        is_named = file.name.startswith(stem) and f"-{file.sha256[:16]}." in file.name
        if not is_named or not ours or file.name in names:
            raise _refused(
                staging_dir, f"{file.name!r} is not a file of the kind {file.kind!r} staged by a worker"
            )
        names.add(file.name)
    # Summaries are only for the report, and a run is published without it too.
    results = [file for _, file in files if file.kind != "summary"]
    if wrong := changed(staging_dir, results):
        raise _refused(
            staging_dir, f"{wrong[0]} ({len(wrong)} of {len(results)}) differs from its entry in the commit"
        )


def _check_counts(staging_dir: str, record: UnitRecord) -> None:
    """Checks that a unit's files have the number of rows in its record."""
    told = {"data": record.predicted, "failures": sum(record.failed.values())}
    for kind, rows in told.items():
        if sum(file.rows for file in record.files if file.kind == kind) != rows:
            raise _refused(staging_dir, f"the files of the unit {record.unit_id} do not have its {rows} rows")


def _refused(staging_dir: str, why: str) -> OutsideError:
    return OutsideError(
        f"{storage.join(staging_dir, layout.COMMIT)} cannot be published: {why}. Nothing was changed. Find out who "
        f"wrote it, then delete {staging_dir}"
    )
