"""Writes the staging directory of a plan: the files for workers, and the facts for ``publish``."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from beamlabel.pipeline import layout
from beamlabel.pipeline.errors import UsageError
from beamlabel.pipeline.job.label_job import LabelJob
from beamlabel.pipeline.job.plan import Plan, plan
from beamlabel.pipeline.job.preflight import Inputs
from beamlabel.pipeline.job.resume import reuse_finished_units
from beamlabel.pipeline.options.job_options import RESUME, JobOptions
from beamlabel.pipeline.output import staging
from beamlabel.transforms import storage
from beamlabel.transforms.secrets.logs import get_logger
from beamlabel.transforms.storage.errors import is_user_error

_LOGGER = get_logger("beamlabel")


def prepare(options: JobOptions, inputs: Inputs, started_at: float | None = None) -> LabelJob:
    """Plans a job and stages it, see ``plan`` and ``stage``."""
    with tempfile.TemporaryDirectory() as scratch:
        planned = plan(options, inputs, Path(scratch), started_at)
        stage(planned, options.run.if_exists)
        return planned.job


def stage(planned: Plan, if_exists: str) -> None:
    """Stages the files for workers and the facts of the run; deletes leftovers, or adopts them to resume.

    Raises:
      UsageError: the output cannot be written.
    """
    job, facts = planned.job, planned.facts
    try:
        if if_exists == RESUME:
            _write_job(job, {**facts, "detached": None})
            facts["manifest"]["resumed_units"] = reuse_finished_units(
                job.output, job.staging_dir, job.plan_id
            )
            if facts["manifest"]["resumed_units"]:
                _LOGGER.info("Resuming after %d finished units", facts["manifest"]["resumed_units"])
        else:
            # Leftovers are deleted only now, when all options are known to be valid.
            staging.delete_all(job.output)
            _write_job(job, {**facts, "detached": None})
        for path, file in planned.staged.items():
            storage.write_file(path, file)
        if if_exists == RESUME or facts.get("detached"):
            _write_job(job, facts)
    except (OSError, ValueError) as error:
        if not is_user_error(error):
            raise
        raise UsageError(f"--output {job.output!r} cannot be written: {error}") from error


def _write_job(job: LabelJob, facts: Mapping[str, Any]) -> None:
    """Writes ``job.json``, which marks the staging directory as ours, before anything else of the run.

    The launcher may be killed at any moment, so ``detached`` is recorded only when everything is staged.
    """
    content = {"format": layout.JOB_FORMAT, **facts}
    path = storage.join(job.staging_dir, layout.JOB)
    storage.write_bytes(path, json.dumps(content, indent=1, default=str).encode())
