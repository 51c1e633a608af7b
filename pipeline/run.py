"""Preflight → build → run → publish → exit code."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from pipeline.import_beam import import_beam
from pipeline.options import UsageError, usage

_LOGGER = logging.getLogger("beamlabel")

DONE, TOO_MANY_FAILURES, USAGE, BROKEN = 0, 1, 2, 3
_LOCAL_RUNNERS = ("", "direct", "directrunner", "fnapirunner")


class Cancelled(BaseException):
    """Raised in the main thread by SIGINT and SIGTERM.

    Not an ``Exception``, so that nothing between here and the signal swallows it by catching those.
    """

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal.Signals(signal_number).name)
        self.exit_code = 128 + signal_number


@contextmanager
def _cancellation() -> Iterator[list[Cancelled]]:
    """Catches SIGINT and SIGTERM; yields the list that holds the signal once there was one.

    The list is the truth: what is raised inside Beam surfaces as a ``RuntimeError``.
    """
    seen: list[Cancelled] = []

    def handler(number: int, frame: FrameType | None) -> None:
        seen.append(Cancelled(number))
        if len(seen) == 1:  # a second signal must not cut short what the first one started
            raise seen[0]

    before = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield seen
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)


def main(options: Any, runner_args: list[str]) -> None:
    """Runs the job and ends the process with its exit code."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    logging.basicConfig(
        level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr
    )
    logging.getLogger().handlers[0].addFilter(_is_worth_showing)
    _LOGGER.setLevel(logging.INFO)
    code = run(options, runner_args)
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    # Not sys.exit: after a cancellation it would wait for whatever the runner's threads are still doing.
    os._exit(code)


def _is_worth_showing(record: logging.LogRecord) -> bool:
    # Beam says the first wherever its optional model manager cannot be imported (there is such a module), the
    # second where `import_beam` keeps Google's libraries from it.
    message = record.getMessage()
    return "Resource module is not available" not in message and "apitools not found" not in message


def run(options: Any, runner_args: list[str]) -> int:
    """Runs the job; returns its exit code.

    0 done, 1 too many failures, 2 wrong usage or an output that exists, 3 the job broke, 128 + signal
    when cancelled.
    """
    with _cancellation() as cancelled:
        code = BROKEN
        try:
            code = _run(options, runner_args)
        except BaseException as error:
            if cancelled:
                pass  # whatever the signal was turned into on its way
            elif isinstance(error, UsageError):
                usage(error)
                return USAGE
            elif not isinstance(error, Exception):
                raise
            else:
                _LOGGER.error("the job broke: %s", error, exc_info=True)
        if cancelled:
            _LOGGER.error("cancelled by %s", cancelled[0])
            return cancelled[0].exit_code
        return code


def _run(options: Any, runner_args: list[str]) -> int:
    from pipeline import layout
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
    import apache_beam as beam

    from pipeline.graph import build
    from pipeline.job import prepare

    runner, beam_options = _runner(runner_args)
    job = prepare(options, inputs)
    pipeline = beam.Pipeline(runner=runner, options=beam_options)
    build(pipeline, job)
    result = pipeline.run()
    result.wait_until_finish()
    try:
        metrics = json.dumps(_metrics(result)).encode()
        storage.write_bytes(storage.join(job.staging_dir, layout.METRICS), metrics)
    except Exception as error:  # advice, which no committed run may break on
        _LOGGER.warning("the runner's metrics are missing: %s", error)
    return _report(publish(job.output, job.staging_dir), options.max_error_rate)


def _runner(runner_args: list[str]) -> tuple[Any, Any]:
    """The runner, chosen explicitly: ``DirectRunner`` itself would first try to download Prism.

    Raises:
      UsageError: an option that neither the job nor Beam knows, on the local runner.
    """
    from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions

    beam_options = PipelineOptions(runner_args)
    name = beam_options.view_as(StandardOptions).runner
    if (name or "").rpartition(".")[2].lower() not in _LOCAL_RUNNERS:
        return name, beam_options
    from apache_beam.runners.portability.fn_api_runner import FnApiRunner

    known = beam_options.get_all_options()
    for argument in runner_args:
        option = argument.split("=", 1)[0]
        if (
            option.startswith("--")
            and option[2:].replace("-", "_") not in known
            and f"no_{option[2:]}" not in known
        ):
            raise UsageError(f"{option}: no such option of beamlabel or of Beam")
    return FnApiRunner(), beam_options


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


def _report(manifest: dict[str, Any], max_error_rate: float) -> int:
    rows = manifest["rows"]
    _LOGGER.info(
        "%d input = %d predicted + %d failed + %d skipped, in %.1f s: %s",
        rows["input"], rows["predicted"], rows["failed"], rows["skipped"], manifest["seconds"], manifest["output"],
    )  # fmt: skip
    for reason, count in manifest["failed_by_reason"].items():
        _LOGGER.info("failed: %s %d", reason, count)
    if manifest["within_error_rate"]:
        return DONE
    _LOGGER.error(
        "the error rate %.4f is above --max_error_rate %g: no _SUCCESS",
        manifest["error_rate"],
        max_error_rate,
    )
    return TOO_MANY_FAILURES
