"""Builds the graph, submits it to a runner, waits for the job, and cancels it after a signal."""

from __future__ import annotations

import json
import logging
import re
import time
from typing import TYPE_CHECKING, Any

import apache_beam as beam

from beamlabel.pipeline import layout
from beamlabel.pipeline.job.graph import build
from beamlabel.pipeline.job.label_job import LabelJob
from beamlabel.pipeline.process.cancellation import Cancellation
from beamlabel.pipeline.runners import choose
from beamlabel.pipeline.runners.job_servers import job_servers_stopped
from beamlabel.transforms import storage
from beamlabel.transforms.secrets.logs import get_logger

if TYPE_CHECKING:
    from beamlabel.pipeline.runners.flink_job import FlinkJob

_LOGGER = get_logger("beamlabel")
# Seconds that the launcher waits for the cancellation of a remote job.
_CANCEL_SECONDS = 30.0
# Flink's messages for a killed worker: during its start, and during its work.
_WORKER_LOST = ("Process died with exit code 137", "CANCELLED: client cancelled")
_HINT = (
    "a worker was killed or crashed, most often because memory ran out; a smaller --batch_size and --load_threads "
    "need less"
)
# The last line of a Python traceback in a runner's message.
_PYTHON_ERROR = re.compile(r"^(?!java\.|org\.)[A-Za-z_][\w.]*(?:Error|Exception): [^\n]*", re.MULTILINE)
_ENDED = ("DONE", "FAILED", "CANCELLED", "UPDATED", "DRAINED")


def execute(job: LabelJob, runner: choose.Runner, cancelled: Cancellation) -> None:
    """Runs the job to its end, or with a detached runner to the end of its submission.

    Raises:
      RuntimeError: the job failed, or committed nothing.
      Cancelled: a signal came; the job is cancelled if its runner can do that.
    """
    choose.prepare_options(runner, job.run_id)
    pipeline = beam.Pipeline(runner=runner.make(), options=runner.options)
    build(pipeline, job)
    with job_servers_stopped(pipeline.runner):
        result = pipeline.run() if runner.is_local else _run_elsewhere(pipeline, runner, cancelled)
        if runner.detached and not runner.is_local:
            return
        if not storage.exists(storage.join(job.staging_dir, layout.COMMIT)):
            raise RuntimeError(f"the runner finished, but nothing was committed in {job.staging_dir}")
        _keep_metrics(result, job.staging_dir)


def _run_elsewhere(pipeline: beam.Pipeline, runner: choose.Runner, cancelled: Cancellation) -> Any:
    from beamlabel.pipeline.runners.flink_job import FlinkJob  # its imports are not needed by a local run

    flink_job = FlinkJob(runner)
    with cancelled.deferred():
        result = pipeline.run()
    try:
        if runner.detached:
            flink_job.wait_for_submission(result, cancelled)
        else:
            _wait(result, cancelled)
    except BaseException:
        if cancelled.seen:
            _cancel(result, flink_job)
        raise
    return result


def _keep_metrics(result: Any, staging_dir: str) -> None:
    try:
        metrics = json.dumps(_metrics(result)).encode()
        storage.write_bytes(storage.join(staging_dir, layout.METRICS), metrics)
    except Exception as error:  # metrics are advisory, and no reason for a committed run to fail
        _LOGGER.warning("The runner's metrics are missing: %s", error)


def _wait(result: Any, cancelled: Cancellation) -> None:
    cancelled.check()
    try:
        state = result.wait_until_finish()
    except RuntimeError as error:
        if any(words in str(error) for words in _WORKER_LOST):
            raise RuntimeError(f"{_HINT}: {error}") from error
        if raised := _PYTHON_ERROR.findall(str(error)):
            raise RuntimeError(
                f"a worker raised {raised[-1]}; once its cause is fixed, --if_exists resume continues from the staged "
                f"units: {error}"
            ) from error
        raise
    if state != "DONE":
        raise RuntimeError(f"the runner reports the job as {state}")


def _cancel(result: Any, flink_job: FlinkJob) -> None:
    _LOGGER.info("Cancelling the job")
    # Workers in this process, such as Prism's, would log many errors.
    logging.getLogger("apache_beam").setLevel(logging.CRITICAL)
    end = time.monotonic() + _CANCEL_SECONDS
    try:
        result.cancel()
        state = flink_job.cancel(_CANCEL_SECONDS)
        while not state and result.state not in _ENDED and time.monotonic() < end:
            time.sleep(0.2)
        _LOGGER.info("The job is %s", state or result.state)
    except Exception as error:
        _LOGGER.error("Could not cancel the job, which may still run: %s", error)


def _metrics(result: Any) -> dict[str, Any]:
    """The run's counters and distributions by namespace; they are advisory, not authoritative about rows."""
    found = result.metrics().query()
    metrics: dict[str, dict[str, Any]] = {}
    for counter in found["counters"]:
        name, value = counter.key.metric, _result(counter)
        if value is not None:
            group = metrics.setdefault(name.namespace, {})
            group[name.name] = group.get(name.name, 0) + value
    for distribution in found["distributions"]:
        name, value = distribution.key.metric, _result(distribution)
        if value is not None:
            facts = {"count": value.count, "sum": value.sum, "min": value.min, "max": value.max}
            metrics.setdefault(name.namespace, {})[name.name] = facts
    return metrics


def _result(metric: Any) -> Any:
    """The value; None if there is none. Beam's own ``result`` takes 0 for missing, and Prism may commit None."""
    return metric.attempted if metric.committed is None else metric.committed
