"""Writes the current rows of many outputs as one output: staged, committed and published like that of a run.

Each shard is a work unit with a record, so that a killed compaction can resume. The content of the shards depends only
on the outputs and the options.
"""

from __future__ import annotations

import json
import platform
import secrets
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from beamlabel import __version__
from beamlabel.pipeline import layout
from beamlabel.pipeline.compact.provenance import joint_input, tried
from beamlabel.pipeline.compact.shards import Cut, cut_into_shards, stage_shard
from beamlabel.pipeline.compact.target import Target, target_of
from beamlabel.pipeline.current.outputs import Output, find_outputs, is_among
from beamlabel.pipeline.current.select import Selection, select
from beamlabel.pipeline.errors import UsageError
from beamlabel.pipeline.job.preflight import check_output
from beamlabel.pipeline.job.resume import reuse_finished_units
from beamlabel.pipeline.output import staging
from beamlabel.pipeline.output.lock import locked
from beamlabel.pipeline.output.manifest import read_manifest
from beamlabel.pipeline.output.publish import finish_pending, publish
from beamlabel.pipeline.places.cache import check_scratch
from beamlabel.pipeline.places.outputs import check_directory
from beamlabel.transforms import storage
from beamlabel.transforms.output_spec import canonical_sha256
from beamlabel.transforms.records import UnitRecord
from beamlabel.transforms.rows import metadata_keys, schema
from beamlabel.transforms.rows.tf_examples import check_installed
from beamlabel.transforms.secrets.logs import get_logger
from beamlabel.transforms.secrets.text import public_values
from beamlabel.transforms.storage.errors import is_user_error
from beamlabel.transforms.units.unit_records import read_record

_LOGGER = get_logger("beamlabel")


@dataclass(frozen=True)
class _Plan:
    """The plan of a compaction, made before anything is written."""

    output: str
    plan_id: str
    target: Target
    selection: Selection
    cuts: tuple[Cut, ...]
    outputs: tuple[Output, ...]


def compact(
    patterns: Sequence[str],
    output: str,
    *,
    shard_rows: int,
    if_exists: str = "error",
    drop_others: bool = False,
) -> dict[str, Any]:
    """Writes the current rows and failures of all outputs that match the patterns into one output.

    Args:
      patterns: outputs, directories of outputs, or globs.
      output: directory of the new output.
      shard_rows: number of rows per shard.
      if_exists: ``error``, ``overwrite`` or ``resume``, as for a run.
      drop_others: leave out rows that differ from the newest output in module, preprocessing or columns, or do not
        identify their image.

    Returns:
      The manifest.

    Raises:
      UsageError: there is nothing to compact, the output cannot be written or is among the inputs, or there are rows
        that need ``drop_others``.
      OutputLockedError: another run has locked the output.
      OSError, ValueError: a file cannot be read.
    """
    started_at = time.time()
    output = check_directory("--output", output)
    check_scratch()
    with locked(output) as lock, tempfile.TemporaryDirectory(prefix="compact-") as scratch:
        try:
            for manifest in finish_pending(output):
                _LOGGER.info("Published the commit of earlier run %s", manifest["run_id"])
            check_output(output, if_exists)
        except (OSError, ValueError) as error:
            if not is_user_error(error):
                raise
            raise UsageError(f"--output {output!r}: {error}") from error
        outputs = find_outputs(patterns, "OUTPUT")
        if is_among(output, patterns, outputs):
            raise UsageError(
                f"--output {output!r} is among the inputs, so the next compaction would read it; use another directory"
            )
        plan = _plan(outputs, output, Path(scratch), shard_rows=shard_rows, drop_others=drop_others)
        there = read_manifest(output)
        if if_exists == "resume" and there is not None and there["plan_id"] == plan.plan_id:
            _LOGGER.info("Nothing to resume: run %s has completed this plan", there["run_id"])
            return there
        staging_dir = _stage(plan, if_exists, _job(plan, patterns, started_at))
        records = []
        for number, cut in enumerate(plan.cuts):
            lock.check()
            records.append(_record(plan, staging_dir, number, cut))
        _commit(staging_dir, records)
        lock.check()
        return publish(output, staging_dir)


def _plan(
    outputs: Sequence[Output], output: str, directory: Path, *, shard_rows: int, drop_others: bool
) -> _Plan:
    target = target_of(outputs)
    if target.is_tfrecord:
        try:
            check_installed()
        except ImportError as error:
            raise UsageError(f"{target.output.directory} has TFRecords: {error}") from error
    selection = select(outputs, target.fits, directory)
    others, nameless = selection.rows["other_module"], selection.rows["unidentified"]
    if others and not drop_others:
        raise UsageError(
            f"{others} images have neither a row of the module, preprocessing and columns of the newest output "
            f"({target.output.directory}) nor a failure of it; label them again, or use --drop_others to leave them out"
        )
    if nameless and not drop_others:
        raise UsageError(
            f"{nameless} rows of schema version 1 do not identify their images (inline images, or relative names); "
            "label them again, or use --drop_others to leave them out"
        )
    known = {
        "outputs": [[one.manifest["run_id"], _hashes(one)] for one in outputs],
        "shard_rows": shard_rows,
        "newest": target.output.manifest["run_id"],
        "version": schema.CURRENT_SCHEMA_VERSION,
    }
    plan_id = canonical_sha256(known)[:16]
    return _Plan(
        output, plan_id, target, selection, tuple(cut_into_shards(selection, shard_rows)), tuple(outputs)
    )


def _hashes(output: Output) -> list[str]:
    return [file["sha256"] for kind in layout.DIRECTORIES for file in output.files(kind)]


def _job(plan: _Plan, patterns: Sequence[str], started_at: float) -> dict[str, Any]:
    """The job file for ``publish``."""
    newest = plan.target.output.manifest
    counts = {"rows": plan.selection.rows, "failures": plan.selection.failures}
    read = [sum(by_fate.values()) for by_fate in counts.values()]
    skipped: dict[str, int] = {}
    for by_fate in counts.values():
        for fate, count in by_fate.items():
            if count and fate != "kept":
                skipped[fate] = skipped.get(fate, 0) + count
    run_id = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(started_at)) + "-" + secrets.token_hex(3)
    manifest = {
        "schema_version": schema.CURRENT_SCHEMA_VERSION,
        "run_id": run_id,
        "plan_id": plan.plan_id,
        "module": newest["module"],
        "preprocessing": newest["preprocessing"],
        "metadata": {
            **plan.target.metadata,
            metadata_keys.PLAN_ID: plan.plan_id,
            metadata_keys.VERSION: __version__,
        },
        "labeled_at": max(one.time for one in plan.outputs),
        "options": {**newest["options"], **joint_input(plan.outputs), "max_error_rate": 1.0, "report": False},
        "kept_columns": newest.get("kept_columns", {}),
        "input_files": [],
        "versions": {"beamlabel": __version__, "python": platform.python_version()},
        "compacted": {
            "inputs": [storage.absolute(pattern) for pattern in patterns],
            "outputs": [{"output": one.directory, "run_id": one.manifest["run_id"]} for one in plan.outputs],
            "tried_with": tried(plan.selection),
            "rows_read": read[0],
            "failures_read": read[1],
            **counts,
        },
    }
    return {
        "format": layout.JOB_FORMAT,
        "detached": None,
        "run_id": run_id,
        "started_at": started_at,
        "max_error_rate": 1.0,
        "schema_pbtxt": _schema_pbtxt(plan.target),
        "skipped_by_reason": skipped,
        "manifest": manifest,
    }


def _schema_pbtxt(target: Target) -> str | None:
    if not target.is_tfrecord:
        return None
    return storage.read_bytes(target.output.path(layout.SCHEMA_PBTXT)).decode()


def _stage(plan: _Plan, if_exists: str, job: Mapping[str, Any]) -> str:
    staging_dir = storage.join(staging.root(plan.output), plan.plan_id)
    if if_exists != "resume":
        staging.delete_all(plan.output)
    storage.write_bytes(
        storage.join(staging_dir, layout.JOB), json.dumps(public_values(job), indent=1).encode()
    )
    if if_exists == "resume":
        for directory in list(staging.holding(plan.output, layout.JOB)):
            if directory != staging_dir:
                staging.delete_run(directory)  # has other outputs or options
        done = reuse_finished_units(plan.output, staging_dir, plan.plan_id)
        if done:
            _LOGGER.info("Resuming after %d completed shards", done)
    return staging_dir


def _record(plan: _Plan, staging_dir: str, number: int, cut: Cut) -> UnitRecord:
    there = read_record(staging_dir, cut.unit_id)
    if there is not None:
        return there
    begin = time.monotonic()
    metadata = public_values(
        {**plan.target.metadata, metadata_keys.PLAN_ID: plan.plan_id, metadata_keys.VERSION: __version__}
    )
    record = stage_shard(plan.selection, plan.target, metadata, cut, staging_dir)
    _LOGGER.info(
        "Shard %d of %d: %d rows, %d failures, in %.1f s",
        number + 1, len(plan.cuts), record.predicted, sum(record.failed.values()), time.monotonic() - begin,
    )  # fmt: skip
    return record


def _commit(staging_dir: str, records: Sequence[UnitRecord]) -> None:
    content = {
        "format": layout.COMMIT_FORMAT,
        "plan_id": staging_dir.rpartition("/")[2],
        "committed_at": time.time(),
        "records": [record.to_json() for record in records],
    }
    storage.create_if_absent(storage.join(staging_dir, layout.COMMIT), json.dumps(content).encode())
