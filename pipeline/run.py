"""Runs a job: checks, graph, execution, publishing, and exit code."""

from __future__ import annotations

import dataclasses
import os
import sys
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from beamlabel.pipeline.errors import UsageError
from beamlabel.pipeline.options.job_options import RESUME, JobOptions
from beamlabel.pipeline.options.parser import usage
from beamlabel.pipeline.options.resume_command import advice, resume_command
from beamlabel.pipeline.process import process_id
from beamlabel.pipeline.process.cancellation import Cancellation, cancellation
from beamlabel.pipeline.process.exit import (
    BROKEN,
    DONE,
    NOT_YET,
    OUT_OF_TIME,
    USAGE,
    exit_process,
    set_up_logging,
)
from beamlabel.pipeline.process.scratch import own_scratch
from beamlabel.pipeline.runners.import_beam import leave_out_connectors
from beamlabel.transforms.row_batches import EMBEDDINGS
from beamlabel.transforms.secrets.logs import get_logger
from beamlabel.transforms.storage import beam_setup
from beamlabel.transforms.storage.billing import set_billing_project
from beamlabel.transforms.storage.errors import is_user_error

_LOGGER = get_logger("beamlabel")

if TYPE_CHECKING:
    from beamlabel.pipeline.job.preflight import Inputs
    from beamlabel.pipeline.output.lock import Lock


def main(options: JobOptions, runner_args: list[str]) -> None:
    """Runs the job and ends the process with its exit code."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # NumPy multiplies only a head's matrices, in the workers' threads; its own threads would only spin. NumPy reads the
    # variable when it is imported.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from beamlabel.transforms.worker.allocators import choose_arrow_allocator

    choose_arrow_allocator()
    set_up_logging()
    leave_out_connectors(runner_args)
    command = resume_command(sys.argv, options.run.run_date)
    exit_process(run(options, runner_args, process_id.started_at(), command))


def run(
    options: JobOptions, runner_args: list[str], started_at: float | None = None, resumes: str = ""
) -> int:
    """Runs the job; returns its exit code.

    Args:
      options: the job's options.
      runner_args: command-line arguments for the runner.
      started_at: start time of the job, in seconds since 1970; None: now.
      resumes: the command that continues the run if it is cancelled or out of time; empty if there is none.

    The exit codes are 0 done, 1 too many failures, 2 wrong usage or the output exists, 3 the job failed, 4 out of time,
    75 the output is locked by another run, and 128 + the signal's number if cancelled.
    """
    from beamlabel.pipeline.output.lock import OutputLockedError

    with cancellation() as cancelled:
        if resumes:
            cancelled.on_end_say(advice(resumes))
        code = BROKEN
        try:
            code = _run(options, runner_args, time.time() if started_at is None else started_at, cancelled)
        except BaseException as error:
            if isinstance(error, OutputLockedError):
                _LOGGER.error("%s", error)
                return NOT_YET
            if cancelled.seen:
                pass  # code in between may have turned it into another exception
            elif isinstance(error, UsageError):
                usage(
                    error, "beamlabel relabel" if options.inputs.input_format == EMBEDDINGS else "beamlabel"
                )
                return USAGE
            elif not isinstance(error, Exception):
                raise
            else:
                _LOGGER.error("The job failed: %s", error, exc_info=not isinstance(error, OSError))
        if cancelled.seen:
            _LOGGER.error("Cancelled by %s", cancelled.seen)
            code = cancelled.seen.exit_code
        if resumes and (cancelled.seen or code == OUT_OF_TIME):
            _LOGGER.info("%s", advice(resumes))
        return code


def _run(options: JobOptions, runner_args: list[str], started_at: float, cancelled: Cancellation) -> int:
    from beamlabel.pipeline.output.lock import locked
    from beamlabel.pipeline.places.cache import check_kept
    from beamlabel.pipeline.places.outputs import check_directory

    # Set now: the checks access files before a pipeline exists, which would pass these options to Beam.
    beam_setup.configure(runner_args)
    set_billing_project(options.loading.billing_project)
    output = check_directory("--output", options.output.output)
    # From here on the directory has one name, however the user spelled it.
    options = dataclasses.replace(options, output=dataclasses.replace(options.output, output=output))
    check_kept()
    with own_scratch(), locked(output) as lock:
        return _run_locked(options, runner_args, started_at, cancelled, output, lock)


def _run_locked(
    options: JobOptions,
    runner_args: list[str],
    started_at: float,
    cancelled: Cancellation,
    output: str,
    lock: Lock,
) -> int:
    from beamlabel.pipeline.job.retry_failures import check_same_inputs, failures_to_retry, inputs_to_retry

    _prepare_output(output, options)
    failed = failures_to_retry(options.earlier, output)
    if failed is not None:
        inputs_of_run = inputs_to_retry(options.inputs, failed, options.loading.allowed_schemes)
        options = dataclasses.replace(options, inputs=inputs_of_run)
    inputs = _inputs(options)
    if failed is not None:
        check_same_inputs(failed, inputs)

    from beamlabel.pipeline.job.plan import plan
    from beamlabel.pipeline.job.progress import shown
    from beamlabel.pipeline.job.resume import finished_manifest
    from beamlabel.pipeline.job.stage import stage
    from beamlabel.pipeline.output.outcome import report
    from beamlabel.pipeline.runners import choose
    from beamlabel.pipeline.runners.execute import execute
    from beamlabel.pipeline.runners.processes.count import need_of

    runner = choose.choose(runner_args)
    choose.check_processes(runner, options.loading.worker_processes)
    threads = options.loading.worker_threads or choose.worker_threads(runner)
    options = dataclasses.replace(
        options, loading=dataclasses.replace(options.loading, worker_threads=threads)
    )
    if not runner.is_local:
        from beamlabel.pipeline.runners.check_runner import check_runner
        from beamlabel.pipeline.runners.flink_defaults import flink_defaults

        runner = choose.choose([*runner_args, *flink_defaults(runner, runner_args)])
        check_runner(runner, output, [file.path for file in inputs.files], options.inputs.base_dir)
    with tempfile.TemporaryDirectory() as scratch:
        planned = plan(options, inputs, Path(scratch), started_at, failed)
        job = planned.job
        if options.run.if_exists == RESUME and (there := finished_manifest(job.output, job.plan_id)):
            _LOGGER.info("Nothing to resume: run %s has finished this plan", there["run_id"])
            return report(there)
        planned.facts["detached"] = runner.detached
        runner = choose.with_processes(
            runner, options.loading.worker_processes, options.loading.worker_threads, need_of(planned)
        )
        stage(planned, options.run.if_exists)
    here = runner.works_in_this_process
    job = job.for_workers(elsewhere=not here, later=runner.starts_later)
    with nullcontext() if runner.detached else shown(job, in_this_process=here):
        execute(job, runner, cancelled)
    if runner.detached:
        _LOGGER.info("%s; when it is done, run beamlabel publish %s", runner.detached, job.output)
        return DONE
    lock.check()
    return report(_publish(job.output, job.staging_dir))


def _publish(output: str, staging_dir: str) -> dict[str, Any]:
    """Publishes the run and deletes leftovers of other runs; returns the manifest."""
    from beamlabel.pipeline.output.left_over import delete_left_over
    from beamlabel.pipeline.output.publish import publish

    manifest = publish(output, staging_dir)
    delete_left_over(output)
    return manifest


def _inputs(options: JobOptions) -> Inputs:
    if options.inputs.input_format == EMBEDDINGS:
        from beamlabel.pipeline.relabel.inputs import relabel_inputs

        return relabel_inputs(options.inputs.input, options.output.output, options.output.output_format)
    from beamlabel.pipeline.job.preflight import check_inputs, check_schemes_of

    inputs = check_inputs(options.inputs, options.output)
    check_schemes_of(inputs, options.loading.allowed_schemes)
    return inputs


def _prepare_output(output: str, options: JobOptions) -> None:
    """Publishes an earlier run that was committed, and refuses an output that this run may not replace."""
    from beamlabel.pipeline.job.preflight import check_output
    from beamlabel.pipeline.output.publish import finish_pending, submitted

    try:
        for manifest in finish_pending(output):
            _LOGGER.info("Published the commit of an earlier run, %s", manifest["run_id"])
        check_output(output, options.run.if_exists)
        _check_submitted(submitted(output), output, options.run.if_exists)
    except (OSError, ValueError) as error:
        if not is_user_error(error):
            raise
        raise UsageError(f"--output {options.output.output!r}: {error}") from error


def _check_submitted(directory: str | None, output: str, if_exists: str) -> None:
    """Refuses to touch the staging directory of a submitted job without a waiting launcher."""
    from beamlabel.pipeline.output.lock import OutputLockedError

    if directory is None:
        return
    if if_exists != "overwrite":
        raise OutputLockedError(
            f"a submitted job stages in {directory} and has not committed yet; when it is done, run beamlabel publish "
            f"{output}; if it never will be, use --if_exists overwrite"
        )
    _LOGGER.warning("Deleting the staged files of a submitted job, which may still run, in %s", directory)
