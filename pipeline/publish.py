"""``commit.json`` → the published output.

Every step may be repeated, and a publisher that was killed is simply run again: what to move and what to
delete is written down once, before the first move. Only files named by ``commit.json`` are published; a
directory listing is never the truth.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from datetime import datetime, timezone
from typing import Any

from pipeline import layout, staging
from transforms import metrics as names
from transforms import storage
from transforms.records import UnitRecord

_LOGGER = logging.getLogger("beamlabel")


def settle(output: str) -> list[dict[str, Any]]:
    """Publishes what was committed and not yet published, and deletes what publishers have left.

    What was not committed stays as it is. A commit whose files are not all there is dropped, which is logged.

    Returns:
      The manifests of what was published.
    """
    manifests = []
    for folder in staging.holding(output, layout.COMMIT):
        # A commit without its job is litter: the staging was deleted while a run was writing there.
        if storage.exists(storage.join(folder, layout.JOB)):
            try:
                manifests.append(publish(output, folder))
            except FileNotFoundError as error:
                _LOGGER.error("what was committed in %s is not whole, and is dropped: %s", folder, error)
                _abandon(output, folder)
    # Moves without a commit: their publisher got to the end, but not to the deletion of its staging.
    for folder in staging.holding(output, layout.MOVES):
        staging.delete_run(folder)
    staging.remove_if_empty(output)
    return manifests


def _abandon(output: str, staging_dir: str) -> None:
    """Takes back a commit some of whose files are gone, and what of it was moved already."""
    moves = storage.join(staging_dir, layout.MOVES)
    if not staging.is_beside(output, staging_dir) and storage.exists(moves):
        manifest = read_manifest(output)
        published = {file["name"] for file in manifest["files"]} if manifest else set()
        for name in set(_read_json(moves)["moves"].values()) - published:
            storage.delete(storage.join(output, name))
    staging.delete_run(staging_dir)


def submitted(output: str) -> str | None:
    """The folder of a job that was submitted by a launcher that did not wait, and has committed nothing yet."""
    for folder in staging.holding(output, layout.JOB):
        if _read_json(storage.join(folder, layout.JOB)).get("detached"):
            return folder
    return None


def publish(output: str, staging_dir: str) -> dict[str, Any]:
    """Moves a committed run to its final names and describes it in ``_MANIFEST.json``.

    Into an output that exists, the order of the steps is: decide (``publish.json``), move, replace the manifest,
    write the report if there is to be one, write ``_SUCCESS`` (or, before the manifest, remove it), delete the
    files of the run before, delete the staging. A run that is staged beside its output does all that in a folder
    there, and renames it to the output.

    Args:
      output: the output folder.
      staging_dir: the run's folder, see ``staging``.

    Returns:
      The manifest.

    Raises:
      FileNotFoundError: the run was not committed.
      FileExistsError: the run is staged beside its output, and somebody else has made that meanwhile.
    """
    job = _read_json(storage.join(staging_dir, layout.JOB))
    records = [
        UnitRecord.from_json(r) for r in _read_json(storage.join(staging_dir, layout.COMMIT))["records"]
    ]
    manifest = make_manifest(output, staging_dir, job, records)
    if not staging.is_beside(output, staging_dir):
        _fill(output, staging_dir, job, records, manifest)
    elif published_run(output) != job["run_id"]:
        result = storage.join(staging_dir, layout.RESULT)
        _fill(result, staging_dir, job, records, manifest)
        try:
            storage.move_folder(result, output)
        except FileExistsError as error:
            raise FileExistsError(
                f"{output} came to be while the run was at work, whose result waits in {staging_dir}: "
                f"move away what is there, then: beamlabel publish {output}"
            ) from error
    staging.delete_run(staging_dir)
    staging.remove_if_empty(output)
    storage.delete_temporary(output)
    return manifest


def read_manifest(output: str) -> dict[str, Any] | None:
    """``_MANIFEST.json``; None where there is none."""
    path = storage.join(output, layout.MANIFEST)
    return _read_json(path) if storage.exists(path) else None


def published_run(output: str) -> str | None:
    """The id of the run that is published; None where there is none."""
    manifest = read_manifest(output)
    return None if manifest is None else str(manifest["run_id"])


def _fill(
    folder: str, staging_dir: str, job: dict[str, Any], records: list[UnitRecord], manifest: dict[str, Any]
) -> None:
    decided = _decide(folder, staging_dir, manifest)
    for source, name in decided["moves"].items():
        storage.move(storage.join(staging_dir, source), storage.join(folder, name))
    _write_or_delete(storage.join(folder, layout.SCHEMA_PBTXT), job["schema_pbtxt"])
    success = storage.join(folder, layout.SUCCESS)
    is_success = manifest["within_error_rate"] and manifest["complete"]
    if not is_success:
        # First, so that no reader ever finds it beside the manifest of this run.
        storage.delete(success)
    storage.write_bytes(storage.join(folder, layout.MANIFEST), _json_bytes(manifest))
    _report(folder, staging_dir, manifest, records)
    if is_success:
        storage.write_bytes(success, b"")
    _write_or_delete(storage.join(folder, layout.UNITS), _units_to_go_on_after(manifest, records))
    for name in decided["deletes"]:
        storage.delete(storage.join(folder, name))


def make_manifest(
    output: str, staging_dir: str, job: dict[str, Any], records: list[UnitRecord]
) -> dict[str, Any]:
    """The content of ``_MANIFEST.json``: the same whenever it is made of the same commit."""
    failed: Counter[str] = Counter()
    for record in records:
        failed.update(record.failed)
    rows = {
        "input": sum(record.input for record in records),
        "predicted": sum(record.predicted for record in records),
        "failed": sum(failed.values()),
        "skipped": sum(record.skipped for record in records),
    }
    out_of_time = sum(record.skipped for record in records if record.out_of_time)
    skipped = {"labeled": rows["skipped"] - out_of_time, "time_limit": out_of_time}
    tried = rows["predicted"] + rows["failed"]
    error_rate = rows["failed"] / tried if tried else 0.0
    committed_at = _read_json(storage.join(staging_dir, layout.COMMIT))["committed_at"]
    metrics = _metrics(staging_dir)
    return {
        **job["manifest"],
        "output": output,
        "rows": rows,
        "conserved": rows["input"] == rows["predicted"] + rows["failed"] + rows["skipped"],
        "complete": not out_of_time,
        "skipped_by_reason": {reason: count for reason, count in skipped.items() if count},
        "failed_by_reason": dict(sorted(failed.items())),
        "error_rate": error_rate,
        "within_error_rate": error_rate <= job["max_error_rate"],
        "units": len(records),
        "started_at": _iso(job["started_at"]),
        "committed_at": _iso(committed_at),
        "seconds": round(committed_at - job["started_at"], 3),
        "seconds_to_first_label": _seconds_to_first_label(metrics, job["started_at"]),
        "metrics": metrics,
        "files": _published_files(job, records),
    }


def _report(folder: str, staging_dir: str, manifest: dict[str, Any], records: list[UnitRecord]) -> None:
    """Writes the page if the run was to have one, and else deletes that of the run before."""
    if not manifest["options"].get("report"):
        storage.delete(storage.join(folder, layout.REPORT))
        return
    try:
        from pipeline.report import write_report
        from pipeline.summaries import staged_summaries

        write_report(folder, manifest, staged_summaries(folder, staging_dir, manifest, records))
    except Exception:  # the rows are there: no run may be lost for a page, which can be made later
        storage.delete(storage.join(folder, layout.REPORT))
        _LOGGER.warning("the report could not be made", exc_info=True)


def _published_files(job: dict[str, Any], records: list[UnitRecord]) -> list[dict[str, Any]]:
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
            ending = file.name.split(".", 1)[1]
            folder = f"{layout.FAILURES}/" if file.kind == "failures" else ""
            name = f"{folder}part-{job['run_id']}-{number:05d}.{ending}"
            described = {"name": name, "kind": file.kind, "rows": file.rows, "bytes": file.bytes}
            if file.computed_by:
                described["computed_by"] = file.computed_by
            if file.started_at is not None and file.finished_at is not None:
                described |= {"started_at": _iso(file.started_at), "finished_at": _iso(file.finished_at)}
            files.append({**described, "sha256": file.sha256, "staged_as": file.name})
    return files


def _units_to_go_on_after(manifest: dict[str, Any], records: list[UnitRecord]) -> str | None:
    """The content of ``_UNITS.json``; None where a run of the same plan would have nothing to do."""
    is_listing = any(file["format"] == "images" for file in manifest["input_files"])
    if manifest["complete"] and not is_listing:
        return None
    return json.dumps({"records": [record.to_json() for record in records if not record.out_of_time]})


def _decide(folder: str, staging_dir: str, manifest: dict[str, Any]) -> dict[str, Any]:
    """What is moved and deleted, written down at the first try, since later tries see half of it done."""
    path = storage.join(staging_dir, layout.MOVES)
    if not storage.exists(path):
        earlier = read_manifest(folder)
        before = [] if earlier is None else [file["name"] for file in earlier["files"]]
        decided = {
            "moves": {file["staged_as"]: file["name"] for file in manifest["files"]},
            "deletes": sorted(set(before) - {file["name"] for file in manifest["files"]}),
        }
        storage.create_if_absent(path, _json_bytes(decided))
    return _read_json(path)


def _write_or_delete(path: str, text: str | None) -> None:
    if text is None:
        storage.delete(path)
    else:
        storage.write_bytes(path, text.encode())


def _metrics(staging_dir: str) -> dict[str, Any]:
    path = storage.join(staging_dir, layout.METRICS)
    return _read_json(path) if storage.exists(path) else {}


def _seconds_to_first_label(metrics: dict[str, Any], started_at: float) -> float | None:
    """None where the runner told no metrics, or nothing was predicted."""
    predicted_at = metrics.get(names.NAMESPACE, {}).get(names.PREDICTED_AT_MSEC)
    return None if predicted_at is None else round(predicted_at["min"] / 1e3 - started_at, 3)


def _read_json(path: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(storage.read_bytes(path))
    return content


def _json_bytes(value: object) -> bytes:
    return (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode()


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="milliseconds")
