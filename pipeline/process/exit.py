"""How the process ends: exit codes, logging, and what a run tells at its end."""

from __future__ import annotations

import logging
import os
import sys
from contextlib import suppress
from typing import Any, NoReturn

from beamlabel.pipeline import layout
from beamlabel.pipeline.process.messages import OneLine
from beamlabel.pipeline.process.terminal import elapsed_time
from beamlabel.transforms.module_process import waits
from beamlabel.transforms.secrets.logs import get_logger, make_public
from beamlabel.transforms.secrets.text import public_uri

_LOGGER = get_logger("beamlabel")

DONE, TOO_MANY_FAILURES, USAGE, BROKEN, OUT_OF_TIME = 0, 1, 2, 3, 4

# EX_TEMPFAIL of sysexits.h: to be tried again later.
NOT_YET = 75


def set_up_logging() -> None:
    """Warnings of everybody, and what beamlabel tells, go to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(OneLine())
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger().handlers[0].addFilter(_is_worth_showing)
    make_public()
    _LOGGER.setLevel(logging.INFO)
    waits.show_with(elapsed_time if sys.stderr.isatty() else None)


def exit_process(code: int) -> NoReturn:
    """Ends the process; not by ``sys.exit``, which waits for whatever the runner's threads are still doing."""
    # What is not said by now changes nothing of the end.
    with suppress(Exception):
        logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


# Beam says the first wherever its optional model manager cannot be imported (there is such a module), the next two
# where `leave_out_connectors` keeps their libraries from it, the next two when it starts and stops a job server, the
# next in each worker process that is not in a container, the next of an option of Flink's job server, which gets it,
# and the last of a step that a signal has interrupted, with a traceback.
_NOT_WORTH_SHOWING = (
    "Resource module is not available",
    "apitools not found",
    "Could not find a compatible bson package",
    "Really starting service",
    "Really destroying service",
    "No semi_persistent_directory found",
    "Unparseable argument: --attached_mode",
    "cancellation.Cancelled: SIG",
)


def _is_worth_showing(record: logging.LogRecord) -> bool:
    message = record.getMessage()
    return not any(text in message for text in _NOT_WORTH_SHOWING)


def report(manifest: dict[str, Any]) -> int:
    """Tells what a published run did; returns its exit code."""
    rows = manifest["rows"]
    _LOGGER.info(
        "%d input = %d predicted + %d failed + %d skipped, in %.1f s: %s",
        rows["input"], rows["predicted"], rows["failed"], rows["skipped"], manifest["seconds"], manifest["output"],
    )  # fmt: skip
    if not rows["input"] and "retried_failures" not in manifest:
        _LOGGER.warning(
            "THE INPUT IS EMPTY: NOTHING WAS LABELED. There is no reference in %s; --min_input 1 makes that an error",
            ", ".join(map(public_uri, manifest["options"].get("input", ()))),
        )
    if manifest.get("rows_relabeled"):
        _LOGGER.info(
            "%d of the predicted were labeled by features of earlier rows, and not fetched",
            manifest["rows_relabeled"],
        )
    if manifest.get("seconds_to_first_label") is not None:
        _LOGGER.info("the first label was there after %.1f s", manifest["seconds_to_first_label"])
    if manifest["options"].get("report"):
        _LOGGER.info("the report: %s/%s", manifest["output"], layout.REPORT)
    for what in ("failed", "skipped"):
        for reason, count in manifest[f"{what}_by_reason"].items():
            _LOGGER.info("%s: %s %d", what, reason, count)
    for cause, count in manifest.get("left_out", {}).items():
        _LOGGER.info("left out: %s %d", cause, count)
    if manifest.get("deleted"):
        _LOGGER.info("%d images are gone: %s/%s", manifest["deleted"], manifest["output"], layout.DELETED)
    gone = manifest.get("retried_failures", 0) - rows["input"]
    if gone > 0:
        _LOGGER.warning("%d of the failed references are not in the input any more", gone)
    if not manifest.get("complete", True):
        _LOGGER.error("the time was over: no _SUCCESS; --if_exists resume goes on from here")
        return OUT_OF_TIME
    allowed = manifest["options"]["max_error_rate"]
    if not manifest.get("within_deleted_rate", True):
        told = manifest["tombstones"]
        _LOGGER.error(
            "%d of %d images of earlier outputs are not in the input any more, more than --max_deleted_rate %g: no "
            "tombstones, no _SUCCESS. Is the input whole? If they are gone: --max_deleted_rate 1 --if_exists resume",
            told["gone"], told["live"], manifest["options"].get("max_deleted_rate", 0.0),
        )  # fmt: skip
        return TOO_MANY_FAILURES
    if manifest["within_error_rate"]:
        if manifest["error_rate"] > allowed:
            _LOGGER.info("these are fewer failures than --min_failures %d: the error rate does not count",
                         manifest["options"].get("min_failures", 0))  # fmt: skip
        return DONE
    _LOGGER.error(
        "the error rate %.4f is above --max_error_rate %g: no _SUCCESS",
        manifest["error_rate"],
        allowed,
    )
    return TOO_MANY_FAILURES
