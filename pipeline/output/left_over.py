"""What runs of other plans have left in the staging of an output that is published."""

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
    """Deletes what killed runs of other plans have staged, once a run is published, and says so.

    The lock is held, so none of them is at work, but for a job that was submitted and that no launcher waits for: of
    that it says how to end it.

    What is not ours, or cannot be deleted, is no reason to fail: the result is there.
    """
    try:
        for run in check_own_files(output):
            if _is_submitted(run):
                _tell(output, run)
                continue
            staging.delete_run(run.folder)
            _LOGGER.info("deleted %s, which a run of another plan, or a worker of it, had left", run.folder)
        staging.remove_if_empty(output)
    except (UsageError, OSError, ValueError) as error:
        _LOGGER.warning("kept what runs of other plans have left in %s: %s", staging.inside(output), error)


def tell_left_over(output: str) -> None:
    """Says what runs have staged that are not committed, and how to finish or remove that."""
    for run in staging.runs(output):
        _tell(output, run)


def _is_submitted(run: StagedRun) -> bool:
    return layout.JOB in run.files and bool(
        read_json(storage.join(run.folder, layout.JOB), JOB).get("detached")
    )


def _tell(output: str, run: StagedRun) -> None:
    _LOGGER.warning(
        "kept: %s, where a run that is not committed has staged files. Its own options with --if_exists resume go on "
        "with it; any run into %s with --if_exists overwrite removes it, or delete the folder",
        run.folder, output,
    )  # fmt: skip
