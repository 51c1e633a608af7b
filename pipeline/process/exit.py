"""Exit codes, logging, and the end of the process."""

from __future__ import annotations

import logging
import os
import sys
from contextlib import suppress
from typing import NoReturn

from beamlabel.pipeline.process.messages import OneLine
from beamlabel.pipeline.process.terminal import elapsed_time
from beamlabel.transforms.module_process import waits
from beamlabel.transforms.secrets.logs import get_logger, make_public

_LOGGER = get_logger("beamlabel")

DONE, TOO_MANY_FAILURES, USAGE, BROKEN, OUT_OF_TIME = 0, 1, 2, 3, 4

# EX_TEMPFAIL of sysexits.h: try again later.
NOT_YET = 75


def set_up_logging() -> None:
    """Sends the records of beamlabel, and the warnings of all libraries, to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(OneLine())
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger().handlers[0].addFilter(_is_worth_showing)
    make_public()
    _LOGGER.setLevel(logging.INFO)
    waits.show_with(elapsed_time if sys.stderr.isatty() else None)


def exit_process(code: int) -> NoReturn:
    """Ends the process without ``sys.exit``, which would wait for the runner's threads."""
    # A record that cannot be written must not change the exit code.
    with suppress(Exception):
        logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


# Beam logs the first if its optional model manager cannot be imported (the module exists), the next two if
# `leave_out_connectors` hides their libraries, the next two when Beam starts and stops a job server, the next in each
# worker process outside a container, the next for an option of Flink's job server, which gets the option anyway, and
# the last, with a traceback, for a step that a signal interrupted.
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
