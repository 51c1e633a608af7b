"""Preflight → build → run → publish → exit code."""

from __future__ import annotations

import atexit
import logging
import os
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

from pipeline.cancellation import Cancellation, cancellation
from pipeline.import_beam import import_beam, names_runner
from pipeline.options import UsageError, usage

_LOGGER = logging.getLogger("beamlabel")
_NOT_WORTH_SHOWING = (
    # Where Beam's optional model manager cannot be imported; there is such a module.
    "Resource module is not available",
    # Where `import_beam` keeps Google's libraries from Beam.
    "apitools not found",
    # An option of Flink's job server, which gets it.
    "Unparseable argument: --attached_mode",
)

DONE, TOO_MANY_FAILURES, USAGE, BROKEN = 0, 1, 2, 3


def main(options: Any, runner_args: list[str]) -> None:
    """Runs the job and ends the process with its exit code."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # Nothing here multiplies matrices with NumPy; its threads would only be started, and spin.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    set_up_logging()
    leave(run(options, runner_args, _process_started_at()), job_servers=names_runner(runner_args))


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


def _process_started_at() -> float:
    """When this process was created, in seconds since 1970; where the system does not tell, now.

    /proc/self/stat, field 22: clock ticks since boot (proc_pid_stat(5)).
    """
    try:
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / os.sysconf("SC_CLK_TCK")
    except (OSError, AttributeError):
        age = 0.0
    return time.time() - age


def _is_worth_showing(record: logging.LogRecord) -> bool:
    message = record.getMessage()
    return not any(words in message for words in _NOT_WORTH_SHOWING)


def run(options: Any, runner_args: list[str], started_at: float | None = None) -> int:
    """Runs the job, which began at ``started_at`` (seconds since 1970; None: now); returns its exit code.

    0 done, 1 too many failures, 2 wrong usage or an output that exists, 3 the job broke, 128 + signal
    when cancelled.
    """
    with cancellation() as cancelled:
        code = BROKEN
        try:
            code = _run(options, runner_args, time.time() if started_at is None else started_at, cancelled)
        except BaseException as error:
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
    from pipeline.preflight import check_inputs, check_output
    from pipeline.publish import publish, settle
    from transforms import storage

    try:
        output = storage.absolute(options.output).rstrip("/")
        for manifest in settle(output):
            _LOGGER.info("published what an earlier run, %s, had committed", manifest["run_id"])
        check_output(output, options.if_exists)
    except (OSError, ValueError) as error:
        raise UsageError(f"--output {options.output!r}: {error}") from error
    inputs = check_inputs(options)

    import_beam(runner_args)
    from pipeline import runners
    from pipeline.execute import execute
    from pipeline.job import prepare

    runner = runners.choose(runner_args)
    if not runner.is_local:
        from pipeline.check_runner import check_runner
        from pipeline.flink_defaults import flink_defaults

        runner = runners.choose([*runner_args, *flink_defaults(runner, runner_args)])
        check_runner(runner, output, [file.path for file in inputs.files])
    job = prepare(options, inputs, started_at)
    execute(job, runner, cancelled)
    if runner.detached:
        _LOGGER.info("%s; when it is done, beamlabel publish %s", runner.detached, job.output)
        return DONE
    return report(publish(job.output, job.staging_dir))


def report(manifest: dict[str, Any]) -> int:
    """Tells what a published run did; returns its exit code."""
    rows = manifest["rows"]
    _LOGGER.info(
        "%d input = %d predicted + %d failed + %d skipped, in %.1f s: %s",
        rows["input"], rows["predicted"], rows["failed"], rows["skipped"], manifest["seconds"], manifest["output"],
    )  # fmt: skip
    if manifest["seconds_to_first_label"] is not None:
        _LOGGER.info("the first label was there after %.1f s", manifest["seconds_to_first_label"])
    for reason, count in manifest["failed_by_reason"].items():
        _LOGGER.info("failed: %s %d", reason, count)
    if manifest["within_error_rate"]:
        return DONE
    _LOGGER.error(
        "the error rate %.4f is above --max_error_rate %g: no _SUCCESS",
        manifest["error_rate"],
        manifest["options"]["max_error_rate"],
    )
    return TOO_MANY_FAILURES
