"""Preflight → build → run → publish → exit code."""

from __future__ import annotations

import atexit
import json
import logging
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from pipeline.cancellation import Cancellation, cancellation
from pipeline.import_beam import import_beam, names_runner
from pipeline.options import UsageError, usage

if TYPE_CHECKING:
    from pipeline.job import LabelJob

_LOGGER = logging.getLogger("beamlabel")

DONE, TOO_MANY_FAILURES, USAGE, BROKEN = 0, 1, 2, 3
# How long a remote job may take to be cancelled before the launcher leaves it, in seconds.
_CANCEL_SECONDS = 30.0
_ENDED = ("DONE", "FAILED", "CANCELLED", "UPDATED", "DRAINED")


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
    # Beam says the first wherever its optional model manager cannot be imported (there is such a module), the
    # second where `import_beam` keeps Google's libraries from it.
    message = record.getMessage()
    return "Resource module is not available" not in message and "apitools not found" not in message


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
    from pipeline.publish import settle
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
    import apache_beam as beam

    from pipeline import runners
    from pipeline.graph import build
    from pipeline.job import prepare

    runner = runners.choose(runner_args)
    if not runner.is_local:
        from pipeline.check_runner import check_runner

        check_runner(runner, output, [file.path for file in inputs.files])
    job = prepare(options, inputs, started_at)
    runners.prepare_options(runner, job.run_id)
    pipeline = beam.Pipeline(runner=runner.make(), options=runner.options)
    build(pipeline, job)
    if runner.is_local:
        return _outcome(pipeline.run(), job)
    with cancelled.deferred():
        result = pipeline.run()
    if runner.detached:
        cancelled.check()
        _LOGGER.info("%s; when it is done, beamlabel publish %s", runner.detached, job.output)
        return DONE
    _wait(result, cancelled)
    return _outcome(result, job)


def _wait(result: Any, cancelled: Cancellation) -> None:
    """Waits for a remote job, and cancels it if this process is told to end.

    Raises:
      RuntimeError: it ended otherwise than well.
    """
    try:
        cancelled.check()
        state = result.wait_until_finish()
    except BaseException:
        if cancelled.seen:
            _cancel(result)
        raise
    if state != "DONE":
        raise RuntimeError(f"the runner says that the job is {state}")


def _cancel(result: Any) -> None:
    _LOGGER.info("cancelling the job")
    end = time.monotonic() + _CANCEL_SECONDS
    try:
        result.cancel()
        while result.state not in _ENDED and time.monotonic() < end:
            time.sleep(0.2)
        _LOGGER.info("the job is %s", result.state)
    except Exception as error:
        _LOGGER.error("the job could not be cancelled, and may go on running: %s", error)


def _outcome(result: Any, job: LabelJob) -> int:
    """Publishes what a run that is over has committed."""
    from pipeline import layout
    from pipeline.publish import publish
    from transforms import storage

    if not storage.exists(storage.join(job.staging_dir, layout.COMMIT)):
        raise RuntimeError(f"the runner is done, but nothing was committed in {job.staging_dir}")
    try:
        metrics = json.dumps(_metrics(result)).encode()
        storage.write_bytes(storage.join(job.staging_dir, layout.METRICS), metrics)
    except Exception as error:  # advice, which no committed run may break on
        _LOGGER.warning("the runner's metrics are missing: %s", error)
    return report(publish(job.output, job.staging_dir))


def _metrics(result: Any) -> dict[str, Any]:
    """The run's counters and distributions by namespace: advice, never the truth about rows."""
    found = result.metrics().query()
    metrics: dict[str, dict[str, Any]] = {}
    for counter in found["counters"]:
        name = counter.key.metric
        group = metrics.setdefault(name.namespace, {})
        group[name.name] = group.get(name.name, 0) + counter.result
    for distribution in found["distributions"]:
        name, value = distribution.key.metric, distribution.result
        facts = {"count": value.count, "sum": value.sum, "min": value.min, "max": value.max}
        metrics.setdefault(name.namespace, {})[name.name] = facts
    return metrics


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
