"""Publishes the output that ``commit.json`` describes.

Every step can be repeated, so a killed publisher is simply run again: the moves and deletions are recorded once, before
the first move. Only files named in ``commit.json`` are published, regardless of directory listings.
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
    """The input has fewer references than ``--min_input``."""


def finish_pending(output: str) -> list[dict[str, Any]]:
    """Publishes committed runs that are not published yet, and deletes leftovers of publishers.

    Runs that are not committed are kept. A commit with missing files is dropped, and an error is logged.

    Returns:
      The manifests of the published runs.

    Raises:
      UsageError: a foreign file is in a place of ours; see ``check_own_files``.
    """
    manifests, others = [], []
    for run in check_own_files(output):
        # A commit without its job is a leftover: the staging directory was deleted while a run wrote into it.
        if not {layout.COMMIT, layout.JOB} <= run.files:
            others.append(run)
            continue
        try:
            manifests.append(publish(output, run.directory))
        except SmallInputError as error:
            _LOGGER.error("Earlier run in %s: %s", run.directory, error)
        except FileNotFoundError as error:
            _LOGGER.error("Dropping the incomplete commit in %s: %s", run.directory, error)
            _abandon(output, run.directory)
    for run in others:
        # If there are moves but no commit, a publisher was killed while it deleted its staging directory. It may also
        # have left only the job, which is deleted last.
        if layout.MOVES in run.files or (layout.JOB in run.files and _is_published(output, run.directory)):
            staging.delete_run(run.directory)
    staging.remove_if_empty(output)
    return manifests


def _is_published(output: str, staging_dir: str) -> bool:
    return bool(read_json(storage.join(staging_dir, layout.JOB), JOB)["run_id"] == published_run(output))


def _abandon(output: str, staging_dir: str) -> None:
    """Drops a commit with missing files, and deletes those of its files that were already moved."""
    moves = storage.join(staging_dir, layout.MOVES)
    if not staging.is_beside(output, staging_dir) and storage.exists(moves):
        manifest = read_manifest(output)
        published = {file["name"] for file in manifest["files"]} if manifest else set()
        names = set(_decided(moves)["moves"].values()) - published
        storage.delete_all([below(output, name) for name in sorted(names)])
    staging.delete_run(staging_dir)


def submitted(output: str) -> str | None:
    """The staging directory of a submitted job that no launcher waits for and that has not committed yet."""
    for directory in staging.holding(output, layout.JOB):
        if read_json(storage.join(directory, layout.JOB), JOB).get("detached"):
            return directory
    return None


def publish(output: str, staging_dir: str) -> dict[str, Any]:
    """Moves a committed run to its final names and describes it in ``_MANIFEST.json``.

    For an existing output, the order of the steps is: decide (``publish.json``), move, replace the manifest, write the
    report if requested, write ``_SUCCESS`` (or remove it, before the manifest), delete the files of the previous run,
    delete the staging directory. For a run that is staged beside its output, these steps happen in a directory there,
    which is then renamed to the output.

    Args:
      output: the output directory.
      staging_dir: the run's staging directory, see ``staging``.

    Returns:
      The manifest.

    Raises:
      FileNotFoundError: the run was not committed.
      SmallInputError: the input has fewer references than ``--min_input``; the staged files are deleted.
      OutsideError: see ``read_committed``.
      FileExistsError: the run is staged beside its output, which somebody else has created meanwhile.
    """
    job, commit, records, deleted = read_committed(staging_dir)
    manifest = make_manifest(output, staging_dir, job, records, deleted, commit)
    if (least := job.get("min_input") or 0) > manifest["rows"]["input"]:
        staging.delete_run(staging_dir)
        staging.remove_if_empty(output)
        raise SmallInputError(
            f"--min_input {least}: the input has only {manifest['rows']['input']} references; nothing was published"
        )
    if not staging.is_beside(output, staging_dir):
        _fill(output, staging_dir, job, records, manifest)
    elif published_run(output) != job["run_id"]:
        result = storage.join(staging_dir, layout.RESULT)
        _fill(result, staging_dir, job, records, manifest)
        try:
            storage.move_directory(result, output)
        except FileExistsError as error:
            raise FileExistsError(
                f"{output} was created during the run, whose result is in {staging_dir}; move the existing directory "
                f"away, then use beamlabel publish {output}"
            ) from error
    staging.delete_run(staging_dir)
    staging.remove_if_empty(output)
    storage.delete_temporary(output)
    return manifest


def _fill(
    directory: str, staging_dir: str, job: dict[str, Any], records: list[UnitRecord], manifest: dict[str, Any]
) -> None:
    decided = _decide(directory, staging_dir, manifest)
    storage.move_all(
        {below(staging_dir, source): below(directory, name) for source, name in decided["moves"].items()}
    )
    for place in sorted({below(directory, name).rpartition("/")[0] for name in decided["moves"].values()}):
        storage.sync_directory(place)
    _write_or_delete(storage.join(directory, layout.SCHEMA_PBTXT), job["schema_pbtxt"])
    success = storage.join(directory, layout.SUCCESS)
    succeeded = is_success(manifest)
    if not succeeded:
        # This comes before the manifest, so that no reader ever finds _SUCCESS beside the manifest of this run.
        storage.delete(success)
    storage.write_bytes(storage.join(directory, layout.MANIFEST), _json_bytes(manifest))
    _report(directory, staging_dir, manifest, records)
    if succeeded:
        storage.write_bytes(success, b"")
    _write_or_delete(
        storage.join(staging.inside(directory), layout.UNITS), _units_to_go_on_after(manifest, records)
    )
    delete_earlier_units(directory)
    storage.delete_all([below(directory, name) for name in decided["deletes"]])


def _report(directory: str, staging_dir: str, manifest: dict[str, Any], records: list[UnitRecord]) -> None:
    """Writes the page if the run requested one, and otherwise deletes that of the previous run."""
    if not manifest["options"].get("report"):
        storage.delete(storage.join(directory, layout.REPORT))
        return
    try:
        from beamlabel.pipeline.report.page import write_report
        from beamlabel.pipeline.report.summaries import staged_summaries

        write_report(directory, manifest, staged_summaries(directory, staging_dir, manifest, records))
    except Exception:  # the rows are complete, and the page can be made later
        storage.delete(storage.join(directory, layout.REPORT))
        _LOGGER.warning("Could not write the report", exc_info=True)


def _units_to_go_on_after(manifest: dict[str, Any], records: list[UnitRecord]) -> str | None:
    """The content of ``units.json``; None if a run of the same plan would have nothing to do."""
    is_listing = any(file["format"] == "images" for file in manifest["input_files"])
    if manifest["complete"] and manifest.get("within_deleted_rate", True) and not is_listing:
        return None
    done = [record.to_json() for record in records if not record.out_of_time]
    return json.dumps({"format": layout.UNITS_FORMAT, "records": done})


def _decide(directory: str, staging_dir: str, manifest: dict[str, Any]) -> dict[str, Any]:
    """The moves and deletions, recorded at the first try, because later tries find some of them done."""
    path = storage.join(staging_dir, layout.MOVES)
    moves = {file["staged_as"]: file["name"] for file in manifest["files"]}
    try:
        return _decided(path, moves)
    except FileNotFoundError:
        pass
    earlier = read_manifest(directory)
    before = [] if earlier is None else published_names(earlier)
    for name in before:
        below(directory, name)  # raises before anything is changed
    decided = {
        "moves": moves,
        "deletes": sorted(set(before) - {file["name"] for file in manifest["files"]}),
    }
    if storage.create_if_absent(path, _json_bytes(decided)):
        return decided
    return _decided(path, moves)


def _decided(path: str, moves: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Reads ``publish.json``, and checks that it moves and deletes only files of runs.

    Args:
      path: of the file.
      moves: the moves according to the commit; None if the commit is gone.

    Raises:
      FileNotFoundError: it does not exist.
      OutsideError: it is damaged, or names other files.
    """
    try:
        decided: dict[str, Any] = read_json(path, MOVES)
    except DamagedError as error:
        raise OutsideError(f"{error}; nothing was changed") from error
    for name in [*decided["moves"].values(), *decided["deletes"]]:
        if not is_published_name(name):
            raise OutsideError(f"{path}: {name!r} is not a file name of a run; nothing was changed")
    if moves is not None and decided["moves"] != moves:
        raise OutsideError(f"{path} moves other files than the commit beside it names; nothing was changed")
    return decided


def _write_or_delete(path: str, text: str | None) -> None:
    if text is None:
        storage.delete(path)
    else:
        storage.write_bytes(path, text.encode())


def _json_bytes(value: object) -> bytes:
    # Bytes of file names that are not UTF-8 become JSON escapes.
    return (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")
