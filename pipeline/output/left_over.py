"""Leftovers of runs of other plans in the staging directories of a published output."""

from __future__ import annotations

from beamlabel.pipeline import layout
from beamlabel.pipeline.errors import UsageError
from beamlabel.pipeline.output import staging
from beamlabel.pipeline.output.own_files import check_own_files
from beamlabel.pipeline.output.own_json import JOB, read_json
from beamlabel.pipeline.output.staging import StagedRun
from beamlabel.transforms import storage
from beamlabel.transforms.secrets.logs import get_logger

_LOGGER = get_logger("beamlabel")


def delete_left_over(output: str) -> None:
    """Deletes the staged files of killed runs of other plans after a run is published, and logs it.

    The lock is held, so none of these runs is active, except for a submitted job that no launcher waits for. Its files
    are kept, and a warning tells how to end it.

    Files of other programs, and files that cannot be deleted, cause only a warning, because the result is published.
    """
    try:
        for run in check_own_files(output):
            if _is_submitted(run):
                _tell(output, run)
                continue
            staging.delete_run(run.directory)
            _LOGGER.info("Deleted %s, which a run of another plan or its worker had left", run.directory)
        staging.remove_if_empty(output)
    except (UsageError, OSError, ValueError) as error:
        _LOGGER.warning("Kept leftovers of runs of other plans in %s: %s", staging.inside(output), error)


def tell_left_over(output: str) -> None:
    """Logs the staged files of runs that are not committed, and how to finish or remove them."""
    for run in staging.runs(output):
        _tell(output, run)


def _is_submitted(run: StagedRun) -> bool:
    return layout.JOB in run.files and bool(
        read_json(storage.join(run.directory, layout.JOB), JOB).get("detached")
    )


def _tell(output: str, run: StagedRun) -> None:
    _LOGGER.warning(
        "Kept %s, the staged files of a run that is not committed. To continue it, use its options with --if_exists "
        "resume. To remove it, use --if_exists overwrite in any run into %s, or delete the directory.",
        run.directory, output,
    )  # fmt: skip
