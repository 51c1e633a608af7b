"""A published result, found by its ``_MANIFEST.json``."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

from beamlabel.pipeline import layout
from beamlabel.pipeline.errors import UsageError
from beamlabel.pipeline.output import own_json, staging
from beamlabel.pipeline.output.own_json import DamagedError
from beamlabel.pipeline.output.place import output_place
from beamlabel.transforms import storage
from beamlabel.transforms.records import FileRecord, SkipReason, UnitRecord
from beamlabel.transforms.shapes import ANYTHING
from beamlabel.transforms.storage.inside import is_plain
from beamlabel.transforms.worker import metrics as names

# Of every manifest, since the first version.
_KEYS = {"run_id", "plan_id", "files", "rows", "metadata"}
_FOLDERS = "|".join(map(re.escape, layout.FOLDERS.values()))
_PUBLISHED = re.compile(rf"(?:{_FOLDERS})part-([A-Za-z0-9_-]+)-\d{{5,}}(?:\.[a-z0-9]+)+")


def absolute_output(output: str) -> str:
    """The output folder, see ``output_place``.

    Raises:
      UsageError: not a path or URI.
    """
    try:
        return output_place(output) or "/"
    except ValueError as error:
        raise UsageError(f"OUTPUT {output!r}: {error}") from error


def require_manifest(output: str) -> dict[str, Any]:
    """What ``_MANIFEST.json`` in an absolute ``output`` says.

    Raises:
      UsageError: there is no result of beamlabel, or it cannot be reached.
      DamagedError: the manifest is damaged, or none of beamlabel's.
    """
    try:
        manifest = read_manifest(output)
    except DamagedError:
        raise
    except (OSError, ValueError) as error:
        raise UsageError(f"OUTPUT {output!r}: {error}") from error
    if manifest is None:
        raise UsageError(f"OUTPUT {output!r}: {layout.MANIFEST} is not there{_hint(output)}")
    return manifest


def _hint(output: str) -> str:
    try:
        runs = list(staging.runs(output))
        if any(layout.COMMIT in run.files for run in runs):
            return f"; a run was committed and not published: beamlabel publish {output}"
        if any(layout.JOB in run.files for run in runs):
            return "; a run was begun and not finished"
    except OSError:
        pass
    return ", so no result of beamlabel"


def read_manifest(output: str) -> dict[str, Any] | None:
    """``_MANIFEST.json``; None where there is none.

    Raises:
      DamagedError: it is damaged, or none of beamlabel's.
      OSError: it cannot be read.
    """
    path = storage.join(output, layout.MANIFEST)
    try:
        data = storage.read_bytes(path)
    except (FileNotFoundError, IsADirectoryError):
        return None
    manifest = parse_manifest(path, data)
    if manifest is None:
        raise DamagedError(f"{path} is none of beamlabel's")
    return manifest


def parse_manifest(path: str, data: bytes) -> dict[str, Any] | None:
    """The content of a ``_MANIFEST.json``, of whatever version; None if it is not beamlabel's.

    Names of files in it are texts, and no more: see ``is_result``, and ``below``, which is asked at every use.

    Raises:
      DamagedError: it is no JSON, or something in it is of another type.
    """
    content = own_json.parsed(path, data, ANYTHING)
    if not isinstance(content, dict) or len(_KEYS & content.keys()) < 2:
        return None
    return dict(own_json.checked(path, content, own_json.MANIFEST))


def parse_result(path: str, data: bytes) -> dict[str, Any] | None:
    """The same of a result all of whose files can be read.

    Raises:
      DamagedError: see ``parse_manifest``; or it names files that are none of a run's.
    """
    manifest = parse_manifest(path, data)
    if manifest is not None and not is_result(manifest):
        raise DamagedError(f"{path} is damaged: it names files that are none of its run")
    return manifest


def is_result(manifest: dict[str, Any]) -> bool:
    """Whether all files that a manifest names are such as its run gave names to."""
    return len(published_names(manifest)) == len(manifest["files"])


def published_names(manifest: dict[str, Any]) -> list[str]:
    """The files of a result, by their names; only such as a run gives its files, which carry its id."""
    names = (file["name"] for file in manifest["files"])
    return [name for name in names if is_published_name(name, manifest["run_id"])]


def is_published_name(name: object, run_id: str | None = None) -> bool:
    """Whether a name is one that a run gives to its files.

    Args:
      name: as it was read.
      run_id: of the run; None: of any.
    """
    if not isinstance(name, str) or not is_plain(name):
        return False
    found = _PUBLISHED.fullmatch(name)
    return found is not None and run_id in (None, found[1])


def dated(manifest: Mapping[str, Any]) -> int:
    """The time of a run's rows, in microseconds since 1970; of a compacted output that of the newest that it holds.

    Raises:
      ValueError: the manifest tells none.
    """
    told = manifest.get("labeled_at")
    if told is not None:
        return int(told)
    return round(datetime.fromisoformat(str(manifest.get("started_at"))).timestamp() * 1e6)


def published_run(output: str) -> str | None:
    """The id of the run that is published; None where there is none."""
    manifest = read_manifest(output)
    return None if manifest is None else str(manifest["run_id"])


def within_error_rate(rows: Mapping[str, int], max_error_rate: float, min_failures: int) -> bool:
    """Whether a run failed few enough of what it tried.

    Args:
      rows: ``predicted`` and ``failed``.
      max_error_rate: failed / (predicted + failed) that is still a success.
      min_failures: fewer do not count, unless nothing at all was predicted.
    """
    if rows["predicted"] and rows["failed"] < min_failures:
        return True
    return error_rate(rows) <= max_error_rate


def is_success(manifest: Mapping[str, Any]) -> bool:
    """Whether a run has ``_SUCCESS``."""
    within = manifest["within_error_rate"] and manifest.get("within_deleted_rate", True)
    return bool(within and manifest.get("complete", True))


def error_rate(rows: Mapping[str, int]) -> float:
    """failed / (predicted + failed): of what was tried; 0 if nothing was."""
    tried = rows["predicted"] + rows["failed"]
    return rows["failed"] / tried if tried else 0.0


def make_manifest(
    output: str,
    staging_dir: str,
    job: dict[str, Any],
    records: list[UnitRecord],
    deleted: Sequence[FileRecord],
    commit: Mapping[str, Any],
) -> dict[str, Any]:
    """The content of ``_MANIFEST.json``: the same whenever it is made of the same commit."""
    failed: Counter[str] = Counter()
    left_out = Counter[str](job.get("left_out", {}))
    for record in records:
        failed.update(record.failed)
        left_out.update(record.left_out)
    rows = {
        "input": sum(record.input for record in records),
        "predicted": sum(record.predicted for record in records),
        "failed": sum(failed.values()),
        "skipped": sum(record.skipped for record in records),
    }
    out_of_time = sum(record.skipped for record in records if record.out_of_time)
    skipped = _skipped_by_reason(records)
    committed_at = commit["committed_at"]
    metrics = _metrics(staging_dir)
    return {
        **job["manifest"],
        "output": output,
        "rows": rows,
        "conserved": rows["input"] == rows["predicted"] + rows["failed"] + rows["skipped"],
        "complete": not out_of_time,
        "skipped_by_reason": job.get("skipped_by_reason")
        or {reason: count for reason, count in sorted(skipped.items()) if count},
        "left_out": dict(sorted(left_out.items())),
        "color_converted": sum(record.color_converted for record in records),
        "rows_relabeled": sum(record.relabeled for record in records),
        "failed_by_reason": dict(sorted(failed.items())),
        "error_rate": error_rate(rows),
        "within_error_rate": within_error_rate(rows, job["max_error_rate"], job.get("min_failures", 0)),
        **_deleted(commit, deleted),
        "units": len(records),
        "started_at": _iso(job["started_at"]),
        "committed_at": _iso(committed_at),
        "seconds": round(committed_at - job["started_at"], 3),
        "seconds_to_first_label": _seconds_to_first_label(metrics, job["started_at"]),
        "metrics": metrics,
        "files": _published_files(job, records, deleted),
    }


def _deleted(commit: Mapping[str, Any], files: Sequence[FileRecord]) -> dict[str, Any]:
    """The tombstones; of a run that was asked for them also how many images were there, and how many are gone."""
    deleted, told = sum(file.rows for file in files), commit.get("tombstones")
    if told is None:
        return {"deleted": deleted}
    return {"deleted": deleted, "tombstones": told, "within_deleted_rate": deleted == told["gone"]}


def _skipped_by_reason(records: Iterable[UnitRecord]) -> Counter[str]:
    """Of records of earlier versions, which tell no reasons, all but those out of time are of labeled images."""
    skipped: Counter[str] = Counter()
    for record in records:
        told = record.skipped_by_reason
        rest = SkipReason.TIME_LIMIT if record.out_of_time else SkipReason.LABELED
        skipped.update({**told, rest.value: told.get(rest.value, 0) + record.skipped - sum(told.values())})
    return skipped


def _published_files(
    job: dict[str, Any], records: list[UnitRecord], deleted: Sequence[FileRecord]
) -> list[dict[str, Any]]:
    """Every file with its final name; shards without a row are left out where others have rows."""
    ordered = sorted(records, key=lambda record: record.unit_id)
    # Where there is no row at all, one shard tells the schema.
    some_rows = any(record.predicted for record in records)
    empty = None if some_rows else next((f for r in ordered for f in r.files if f.kind == "data"), None)
    files = []
    for number, record in enumerate(ordered):
        for file in record.files:
            if file.kind == "summary" or (file.kind == "data" and not file.rows and file is not empty):
                continue
            files.append(_described(file, job["run_id"], number))
    return files + [_described(file, job["run_id"], number) for number, file in enumerate(deleted)]


def _described(file: FileRecord, run_id: str, number: int) -> dict[str, Any]:
    ending = file.name.split(".", 1)[1]
    name = f"{layout.FOLDERS[file.kind]}part-{run_id}-{number:05d}.{ending}"
    described = {"name": name, "kind": file.kind, "rows": file.rows, "bytes": file.bytes}
    if file.computed_by:
        described["computed_by"] = file.computed_by
    if file.started_at is not None and file.finished_at is not None:
        described |= {"started_at": _iso(file.started_at), "finished_at": _iso(file.finished_at)}
    return {**described, "sha256": file.sha256, "staged_as": file.name}


def _metrics(staging_dir: str) -> dict[str, Any]:
    """What the runner told, which is advice."""
    try:
        return dict(own_json.read_json(storage.join(staging_dir, layout.METRICS), own_json.METRICS))
    except (FileNotFoundError, IsADirectoryError, DamagedError):
        return {}


def _seconds_to_first_label(metrics: dict[str, Any], started_at: float) -> float | None:
    """None where the runner told no metrics, or nothing was predicted."""
    predicted_at = metrics.get(names.NAMESPACE, {}).get(names.PREDICTED_AT_MSEC)
    return None if predicted_at is None else round(predicted_at["min"] / 1e3 - started_at, 3)


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="milliseconds")
