"""Preflight → build → run → publish → exit code."""

from __future__ import annotations

import atexit
import logging
import os
import sys
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from pipeline import layout, process_id
from pipeline.cancellation import Cancellation, cancellation
from pipeline.import_beam import import_beam, names_runner
from pipeline.options import RESUME, UsageError, usage
from transforms.allocators import choose_arrow_allocator
from transforms.mistakes import is_mistake

if TYPE_CHECKING:
    from pipeline.lock import Lock

_LOGGER = logging.getLogger("beamlabel")

DONE, TOO_MANY_FAILURES, USAGE, BROKEN, OUT_OF_TIME = 0, 1, 2, 3, 4
# EX_TEMPFAIL of sysexits.h: to be tried again later.
NOT_YET = 75


def main(options: Any, runner_args: list[str]) -> None:
    """Runs the job and ends the process with its exit code."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # Nothing here multiplies matrices with NumPy; its threads would only be started, and spin.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    choose_arrow_allocator()
    set_up_logging()
    leave(run(options, runner_args, process_id.started_at()), job_servers=names_runner(runner_args))


def set_up_logging() -> None:
    """Warnings of everybody, and what beamlabel tells, go to stderr."""
    logging.basicConfig(
        level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr
    )
    logging.getLogger().handlers[0].addFilter(_is_worth_showing)
    _LOGGER.setLevel(logging.INFO)


def leave(code: int, *, job_servers: bool) -> NoReturn:
    """Ends the process; not by ``sys.exit``, which waits for whatever the runner's threads are still doing."""
    if job_servers:
        atexit._run_exitfuncs()  # Beam stops there what it started
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


# Beam says the first wherever its optional model manager cannot be imported (there is such a module), the second
# where `import_beam` keeps Google's libraries from it, the next two when it starts and stops a job server, the next in
# each worker process that is not in a container, and the last of an option of Flink's job server, which gets it.
_NOT_WORTH_SHOWING = (
    "Resource module is not available",
    "apitools not found",
    "Really starting service",
    "Really destroying service",
    "No semi_persistent_directory found",
    "Unparseable argument: --attached_mode",
)


def _is_worth_showing(record: logging.LogRecord) -> bool:
    message = record.getMessage()
    return not any(text in message for text in _NOT_WORTH_SHOWING)


def run(options: Any, runner_args: list[str], started_at: float | None = None) -> int:
    """Runs the job, which began at ``started_at`` (seconds since 1970; None: now); returns its exit code.

    0 done, 1 too many failures, 2 wrong usage or an output that exists, 3 the job broke, 4 out of time, 75 another
    run is at work on the output, 128 + signal when cancelled.
    """
    from pipeline.lock import OutputLockedError

    with cancellation() as cancelled:
        code = BROKEN
        try:
            code = _run(options, runner_args, time.time() if started_at is None else started_at, cancelled)
        except BaseException as error:
            if isinstance(error, OutputLockedError):
                _LOGGER.error("%s", error)
                return NOT_YET
            if cancelled.seen:
                pass  # whatever the signal was turned into on its way
            elif isinstance(error, UsageError):
                usage(error)
                return USAGE
            elif not isinstance(error, Exception):
                raise
            else:
                _LOGGER.error("the job broke: %s", error, exc_info=True)
        if cancelled.seen:
            _LOGGER.error("cancelled by %s", cancelled.seen)
            return cancelled.seen.exit_code
        return code


def _run(options: Any, runner_args: list[str], started_at: float, cancelled: Cancellation) -> int:
    from pipeline.lock import locked
    from transforms import storage

    try:
        output = storage.absolute(options.output).rstrip("/")
    except ValueError as error:
        raise UsageError(f"--output {options.output!r}: {error}") from error
    with locked(output) as lock:
        return _run_locked(options, runner_args, started_at, cancelled, output, lock)


def _run_locked(
    options: Any,
    runner_args: list[str],
    started_at: float,
    cancelled: Cancellation,
    output: str,
    lock: Lock,
) -> int:
    from pipeline.preflight import check_inputs, check_output
    from pipeline.publish import publish, settle, submitted
    from pipeline.retry import check_same_inputs, failures_to_retry

    try:
        for manifest in settle(output):
            _LOGGER.info("published what an earlier run, %s, had committed", manifest["run_id"])
        check_output(output, options.if_exists)
        _check_submitted(submitted(output), output, options.if_exists)
    except (OSError, ValueError) as error:
        if not is_mistake(error):
            raise
        raise UsageError(f"--output {options.output!r}: {error}") from error
    failed = failures_to_retry(options, output)
    inputs = check_inputs(options)
    if failed is not None:
        check_same_inputs(failed, inputs)

    import_beam(runner_args)
    from pipeline import runners
    from pipeline.execute import execute
    from pipeline.job import plan, stage
    from pipeline.progress import shown
    from pipeline.resume import finished

    runner = runners.choose(runner_args)
    options.worker_threads = options.worker_threads or runners.worker_threads(runner)
    if not runner.is_local:
        from pipeline.check_runner import check_runner
        from pipeline.flink_defaults import flink_defaults

        runner = runners.choose([*runner_args, *flink_defaults(runner, runner_args)])
        check_runner(runner, output, [file.path for file in inputs.files], options.base_dir)
    with tempfile.TemporaryDirectory() as scratch:
        planned = plan(options, inputs, Path(scratch), started_at, failed)
        job = planned.job
        if options.if_exists == RESUME and (there := finished(job.output, job.plan_id)):
            _LOGGER.info("nothing to resume: run %s has finished this plan", there["run_id"])
            return report(there)
        planned.facts["detached"] = runner.detached
        stage(planned, options)
    here = runner.works_in_this_process
    job = job.for_workers(elsewhere=not here, later=runner.starts_later)
    with nullcontext() if runner.detached else shown(job, in_this_process=here):
        execute(job, runner, cancelled)
    if runner.detached:
        _LOGGER.info("%s; when it is done, beamlabel publish %s", runner.detached, job.output)
        return DONE
    lock.check()
    return report(publish(job.output, job.staging_dir))


def _check_submitted(folder: str | None, output: str, if_exists: str) -> None:
    """Refuses to delete, or to meddle with, what a job is at work on that no launcher waits for."""
    from pipeline.lock import OutputLockedError

    if folder is None:
        return
    if if_exists != "overwrite":
        raise OutputLockedError(
            f"a job was submitted that stages in {folder}, and has not committed yet; when it is done: beamlabel "
            f"publish {output}; if it never will be: --if_exists overwrite"
        )
    _LOGGER.warning("deleting what a submitted job, which may still be at work, has staged in %s", folder)


def report(manifest: dict[str, Any]) -> int:
    """Tells what a published run did; returns its exit code."""
    rows = manifest["rows"]
    _LOGGER.info(
        "%d input = %d predicted + %d failed + %d skipped, in %.1f s: %s",
        rows["input"], rows["predicted"], rows["failed"], rows["skipped"], manifest["seconds"], manifest["output"],
    )  # fmt: skip
    if manifest["seconds_to_first_label"] is not None:
        _LOGGER.info("the first label was there after %.1f s", manifest["seconds_to_first_label"])
    if manifest["options"]["report"]:
        _LOGGER.info("the report: %s/%s", manifest["output"], layout.REPORT)
    for reason, count in manifest["failed_by_reason"].items():
        _LOGGER.info("failed: %s %d", reason, count)
    gone = manifest.get("retried_failures", 0) - rows["input"]
    if gone > 0:
        _LOGGER.warning("%d of the failed references are not in the input any more", gone)
    if not manifest["complete"]:
        _LOGGER.error("the time was over: no _SUCCESS; --if_exists resume goes on from here")
        return OUT_OF_TIME
    if manifest["within_error_rate"]:
        return DONE
    _LOGGER.error(
        "the error rate %.4f is above --max_error_rate %g: no _SUCCESS",
        manifest["error_rate"],
        manifest["options"]["max_error_rate"],
    )
    return TOO_MANY_FAILURES
