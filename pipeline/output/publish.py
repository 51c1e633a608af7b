"""``commit.json`` → the published output.

Every step may be repeated, and a publisher that was killed is simply run again: what to move and what to
delete is written down once, before the first move. Only files named by ``commit.json`` are published; a
directory listing is never the truth.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from beamlabel.pipeline import layout
from beamlabel.pipeline.errors import UsageError
from beamlabel.pipeline.output import staging
from beamlabel.pipeline.output.committed import read_committed
from beamlabel.pipeline.output.manifest import (
    is_published_name,
    is_success,
    make_manifest,
    published_names,
    published_run,
    read_manifest,
)
from beamlabel.pipeline.output.own_files import check_own_files, delete_earlier_units
from beamlabel.pipeline.output.own_json import JOB, MOVES, DamagedError, read_json
from beamlabel.transforms import storage
from beamlabel.transforms.records import UnitRecord
from beamlabel.transforms.secrets.logs import get_logger
from beamlabel.transforms.storage.inside import OutsideError, below

_LOGGER = get_logger("beamlabel")


class SmallInputError(UsageError):
    """The input has fewer references than it should have."""


def finish_pending(output: str) -> list[dict[str, Any]]:
    """Publishes what was committed and not yet published, and deletes what publishers have left.

    What was not committed stays as it is. A commit whose files are not all there is dropped, which is logged.

    Returns:
      The manifests of what was published.

    Raises:
      UsageError: something lies at a place of ours that is not ours; see ``check_own_files``.
    """
    manifests, others = [], []
    for run in check_own_files(output):
        # A commit without its job is litter: the staging was deleted while a run was writing there.
        if not {layout.COMMIT, layout.JOB} <= run.files:
            others.append(run)
            continue
        try:
            manifests.append(publish(output, run.folder))
        except SmallInputError as error:
            _LOGGER.error("an earlier run in %s: %s", run.folder, error)
        except FileNotFoundError as error:
            _LOGGER.error("what was committed in %s is not whole, and is dropped: %s", run.folder, error)
            _abandon(output, run.folder)
    for run in others:
        # Moves without a commit: their publisher got to the end, but not to the deletion of its staging. Or not even
        # its moves are left: only the job, which is deleted last.
        if layout.MOVES in run.files or (layout.JOB in run.files and _is_published(output, run.folder)):
            staging.delete_run(run.folder)
    staging.remove_if_empty(output)
    return manifests


def _is_published(output: str, staging_dir: str) -> bool:
    return bool(read_json(storage.join(staging_dir, layout.JOB), JOB)["run_id"] == published_run(output))


def _abandon(output: str, staging_dir: str) -> None:
    """Takes back a commit some of whose files are gone, and what of it was moved already."""
    moves = storage.join(staging_dir, layout.MOVES)
    if not staging.is_beside(output, staging_dir) and storage.exists(moves):
        manifest = read_manifest(output)
        published = {file["name"] for file in manifest["files"]} if manifest else set()
        names = set(_decided(moves)["moves"].values()) - published
        storage.delete_all([below(output, name) for name in sorted(names)])
    staging.delete_run(staging_dir)


def submitted(output: str) -> str | None:
    """The folder of a job that was submitted by a launcher that did not wait, and has committed nothing yet."""
    for folder in staging.holding(output, layout.JOB):
        if read_json(storage.join(folder, layout.JOB), JOB).get("detached"):
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
      SmallInputError: the input has fewer references than ``--min_input``; what was staged is deleted.
      OutsideError: see ``read_committed``.
      FileExistsError: the run is staged beside its output, and somebody else has made that meanwhile.
    """
    job, commit, records, deleted = read_committed(staging_dir)
    manifest = make_manifest(output, staging_dir, job, records, deleted, commit)
    if (least := job.get("min_input") or 0) > manifest["rows"]["input"]:
        staging.delete_run(staging_dir)
        staging.remove_if_empty(output)
        raise SmallInputError(
            f"--min_input {least}: the input has {manifest['rows']['input']} references, and nothing was published"
        )
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


def _fill(
    folder: str, staging_dir: str, job: dict[str, Any], records: list[UnitRecord], manifest: dict[str, Any]
) -> None:
    decided = _decide(folder, staging_dir, manifest)
    storage.move_all(
        {below(staging_dir, source): below(folder, name) for source, name in decided["moves"].items()}
    )
    for place in sorted({below(folder, name).rpartition("/")[0] for name in decided["moves"].values()}):
        storage.sync_folder(place)
    _write_or_delete(storage.join(folder, layout.SCHEMA_PBTXT), job["schema_pbtxt"])
    success = storage.join(folder, layout.SUCCESS)
    succeeded = is_success(manifest)
    if not succeeded:
        # First, so that no reader ever finds it beside the manifest of this run.
        storage.delete(success)
    storage.write_bytes(storage.join(folder, layout.MANIFEST), _json_bytes(manifest))
    _report(folder, staging_dir, manifest, records)
    if succeeded:
        storage.write_bytes(success, b"")
    _write_or_delete(
        storage.join(staging.inside(folder), layout.UNITS), _units_to_go_on_after(manifest, records)
    )
    delete_earlier_units(folder)
    storage.delete_all([below(folder, name) for name in decided["deletes"]])


def _report(folder: str, staging_dir: str, manifest: dict[str, Any], records: list[UnitRecord]) -> None:
    """Writes the page if the run was to have one, and else deletes that of the run before."""
    if not manifest["options"].get("report"):
        storage.delete(storage.join(folder, layout.REPORT))
        return
    try:
        from beamlabel.pipeline.report.page import write_report
        from beamlabel.pipeline.report.summaries import staged_summaries

        write_report(folder, manifest, staged_summaries(folder, staging_dir, manifest, records))
    except Exception:  # the rows are there: no run may be lost for a page, which can be made later
        storage.delete(storage.join(folder, layout.REPORT))
        _LOGGER.warning("the report could not be made", exc_info=True)


def _units_to_go_on_after(manifest: dict[str, Any], records: list[UnitRecord]) -> str | None:
    """The content of ``units.json``; None where a run of the same plan would have nothing to do."""
    is_listing = any(file["format"] == "images" for file in manifest["input_files"])
    if manifest["complete"] and manifest.get("within_deleted_rate", True) and not is_listing:
        return None
    done = [record.to_json() for record in records if not record.out_of_time]
    return json.dumps({"format": layout.UNITS_FORMAT, "records": done})


def _decide(folder: str, staging_dir: str, manifest: dict[str, Any]) -> dict[str, Any]:
    """What is moved and deleted, written down at the first try, since later tries see half of it done."""
    path = storage.join(staging_dir, layout.MOVES)
    moves = {file["staged_as"]: file["name"] for file in manifest["files"]}
    try:
        return _decided(path, moves)
    except FileNotFoundError:
        pass
    earlier = read_manifest(folder)
    before = [] if earlier is None else published_names(earlier)
    for name in before:
        below(folder, name)  # or nothing is begun
    decided = {
        "moves": moves,
        "deletes": sorted(set(before) - {file["name"] for file in manifest["files"]}),
    }
    if storage.create_if_absent(path, _json_bytes(decided)):
        return decided
    return _decided(path, moves)


def _decided(path: str, moves: Mapping[str, str] | None = None) -> dict[str, Any]:
    """What ``publish.json`` says, if it says to move and to delete nothing but files of runs.

    Args:
      path: of the file.
      moves: that follow from the commit; None if there is none any more.

    Raises:
      FileNotFoundError: it is not there.
      OutsideError: it is damaged, or says something else.
    """
    try:
        decided: dict[str, Any] = read_json(path, MOVES)
    except DamagedError as error:
        raise OutsideError(f"{error}; nothing was touched") from error
    for name in [*decided["moves"].values(), *decided["deletes"]]:
        if not is_published_name(name):
            raise OutsideError(f"{path}: {name!r} is no name of a file of a run; nothing was touched")
    if moves is not None and decided["moves"] != moves:
        raise OutsideError(f"{path} moves other files than the commit beside it names; nothing was touched")
    return decided


def _write_or_delete(path: str, text: str | None) -> None:
    if text is None:
        storage.delete(path)
    else:
        storage.write_bytes(path, text.encode())


def _json_bytes(value: object) -> bytes:
    # Of file names that are not UTF-8 the odd bytes become the escapes that JSON has for them.
    return (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")
