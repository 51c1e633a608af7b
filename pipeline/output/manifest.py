"""The ``_MANIFEST.json`` of a published result."""

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

# Keys of every manifest since the first version.
_KEYS = {"run_id", "plan_id", "files", "rows", "metadata"}
_DIRECTORIES = "|".join(map(re.escape, layout.DIRECTORIES.values()))
_PUBLISHED = re.compile(rf"(?:{_DIRECTORIES})part-([A-Za-z0-9_-]+)-\d{{5,}}(?:\.[a-z0-9]+)+")


def absolute_output(output: str) -> str:
    """The absolute output directory, see ``output_place``.

    Raises:
      UsageError: not a path or URI.
    """
    try:
        return output_place(output) or "/"
    except ValueError as error:
        raise UsageError(f"OUTPUT {output!r}: {error}") from error


def require_manifest(output: str) -> dict[str, Any]:
    """The content of ``_MANIFEST.json`` in an absolute ``output``.

    Raises:
      UsageError: there is no result of beamlabel, or it cannot be reached.
      DamagedError: the manifest is damaged, or beamlabel did not write it.
    """
    try:
        manifest = read_manifest(output)
    except DamagedError:
        raise
    except (OSError, ValueError) as error:
        raise UsageError(f"OUTPUT {output!r}: {error}") from error
    if manifest is None:
        raise UsageError(f"OUTPUT {output!r}: no {layout.MANIFEST} found{_hint(output)}")
    return manifest


def _hint(output: str) -> str:
    try:
        runs = list(staging.runs(output))
        if any(layout.COMMIT in run.files for run in runs):
            return f"; a committed run is not published yet: use beamlabel publish {output}"
        if any(layout.JOB in run.files for run in runs):
            return "; a run was started but not finished"
    except OSError:
        pass
    return ", so this is not a result of beamlabel"


def read_manifest(output: str) -> dict[str, Any] | None:
    """The content of ``_MANIFEST.json``; None if it does not exist.

    Raises:
      DamagedError: it is damaged, or beamlabel did not write it.
      OSError: it cannot be read.
    """
    path = storage.join(output, layout.MANIFEST)
    try:
        data = storage.read_bytes(path)
    except (FileNotFoundError, IsADirectoryError):
        return None
    manifest = parse_manifest(path, data)
    if manifest is None:
        raise DamagedError(f"{path} was not written by beamlabel")
    return manifest


def parse_manifest(path: str, data: bytes) -> dict[str, Any] | None:
    """Parses a ``_MANIFEST.json`` of any version; None if beamlabel did not write it.

    Its file names are not checked: see ``is_result``, and ``below``, which checks them at every use.

    Raises:
      DamagedError: it is not JSON, or a value has another type.
    """
    content = own_json.parsed(path, data, ANYTHING)
    if not isinstance(content, dict) or len(_KEYS & content.keys()) < 2:
        return None
    return dict(own_json.checked(path, content, own_json.MANIFEST))


def parse_result(path: str, data: bytes) -> dict[str, Any] | None:
    """Parses the manifest of a result, and checks its file names; see ``parse_manifest``.

    Raises:
      DamagedError: see ``parse_manifest``; or it names files that do not belong to a run.
    """
    manifest = parse_manifest(path, data)
    if manifest is not None and not is_result(manifest):
        raise DamagedError(f"{path} is damaged: it names files that do not belong to its run")
    return manifest


def is_result(manifest: dict[str, Any]) -> bool:
    """Whether all files in a manifest have names that its run could have given."""
    return len(published_names(manifest)) == len(manifest["files"])


def published_names(manifest: dict[str, Any]) -> list[str]:
    """The names of a result's files; only those that a run gives its files, which contain its id."""
    names = (file["name"] for file in manifest["files"])
    return [name for name in names if is_published_name(name, manifest["run_id"])]


def is_published_name(name: object, run_id: str | None = None) -> bool:
    """Whether a name is one that a run gives its files.

    Args:
      name: the value from the manifest.
      run_id: of the run; None: any run.
    """
    if not isinstance(name, str) or not is_plain(name):
        return False
    found = _PUBLISHED.fullmatch(name)
    return found is not None and run_id in (None, found[1])


def dated(manifest: Mapping[str, Any]) -> int:
    """The time of a run's rows, in microseconds since 1970; for a compacted output, that of its newest rows.

    Raises:
      ValueError: the manifest has no time.
    """
    told = manifest.get("labeled_at")
    if told is not None:
        return int(told)
    return round(datetime.fromisoformat(str(manifest.get("started_at"))).timestamp() * 1e6)


def published_run(output: str) -> str | None:
    """The id of the published run; None if there is none."""
    manifest = read_manifest(output)
    return None if manifest is None else str(manifest["run_id"])


def within_error_rate(rows: Mapping[str, int], max_error_rate: float, min_failures: int) -> bool:
    """Whether few enough of a run's images failed.

    Args:
      rows: ``predicted`` and ``failed``.
      max_error_rate: highest failed / (predicted + failed) of a success.
      min_failures: fewer failures do not count, unless nothing was predicted.
    """
    if rows["predicted"] and rows["failed"] < min_failures:
        return True
    return error_rate(rows) <= max_error_rate


def is_success(manifest: Mapping[str, Any]) -> bool:
    """Whether a run has ``_SUCCESS``."""
    within = manifest["within_error_rate"] and manifest.get("within_deleted_rate", True)
    return bool(within and manifest.get("complete", True))


def error_rate(rows: Mapping[str, int]) -> float:
    """failed / (predicted + failed), the share of tried images; 0 if none was tried."""
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
    """The content of ``_MANIFEST.json``, which depends only on the commit."""
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
    """The number of tombstones; if they were requested, also the number of earlier images and of missing ones."""
    deleted, told = sum(file.rows for file in files), commit.get("tombstones")
    if told is None:
        return {"deleted": deleted}
    return {"deleted": deleted, "tombstones": told, "within_deleted_rate": deleted == told["gone"]}


def _skipped_by_reason(records: Iterable[UnitRecord]) -> Counter[str]:
    """The skipped rows by reason; skips without one, of earlier versions, count as out of time or labeled."""
    skipped: Counter[str] = Counter()
    for record in records:
        told = record.skipped_by_reason
        rest = SkipReason.TIME_LIMIT if record.out_of_time else SkipReason.LABELED
        skipped.update({**told, rest.value: told.get(rest.value, 0) + record.skipped - sum(told.values())})
    return skipped


def _published_files(
    job: dict[str, Any], records: list[UnitRecord], deleted: Sequence[FileRecord]
) -> list[dict[str, Any]]:
    """Every file with its final name; shards without rows are left out if others have rows."""
    ordered = sorted(records, key=lambda record: record.unit_id)
    # If there are no rows at all, one shard is kept for its schema.
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
    name = f"{layout.DIRECTORIES[file.kind]}part-{run_id}-{number:05d}.{ending}"
    described = {"name": name, "kind": file.kind, "rows": file.rows, "bytes": file.bytes}
    if file.computed_by:
        described["computed_by"] = file.computed_by
    if file.started_at is not None and file.finished_at is not None:
        described |= {"started_at": _iso(file.started_at), "finished_at": _iso(file.finished_at)}
    return {**described, "sha256": file.sha256, "staged_as": file.name}


def _metrics(staging_dir: str) -> dict[str, Any]:
    """The runner's metrics, which are advisory."""
    try:
        return dict(own_json.read_json(storage.join(staging_dir, layout.METRICS), own_json.METRICS))
    except (FileNotFoundError, IsADirectoryError, DamagedError):
        return {}


def _seconds_to_first_label(metrics: dict[str, Any], started_at: float) -> float | None:
    """Seconds from the start to the first label; None if the runner gave no metrics, or nothing was predicted."""
    predicted_at = metrics.get(names.NAMESPACE, {}).get(names.PREDICTED_AT_MSEC)
    return None if predicted_at is None else round(predicted_at["min"] / 1e3 - started_at, 3)


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="milliseconds")
