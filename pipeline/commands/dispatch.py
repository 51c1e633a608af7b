"""Runs a command of the table, and imports only that command's module."""

from __future__ import annotations

import difflib
import importlib
import sys
from typing import NoReturn

from beamlabel.pipeline.errors import UsageError
from beamlabel.pipeline.options.command_table import COMMANDS
from beamlabel.pipeline.options.job_options import JobOptions
from beamlabel.pipeline.options.parser import underscored, usage
from beamlabel.transforms.secrets.logs import get_logger


def is_job(name: str) -> bool:
    """Whether a command is the labeling job with other options."""
    return name in COMMANDS and COMMANDS[name].is_job


def parse_job(name: str, argv: list[str]) -> tuple[JobOptions, list[str]]:
    """Parses a command that ``is_job`` into the job's options and the remaining arguments for the runner.

    Raises:
      SystemExit: with 2 after a usage error, and after ``--help``.
    """
    try:
        parsed: tuple[JobOptions, list[str]] = importlib.import_module(COMMANDS[name].module).parse(argv)
    except UsageError as error:
        usage(error, f"beamlabel {name}")
        sys.exit(2)
    return parsed


def run_command(name: str, argv: list[str]) -> NoReturn:
    """Runs a command and ends the process with its exit code.

    Every command accepts Beam's file system options, such as ``--s3_endpoint_url``.

    Exit codes: 0 done, 1 done with a bad result, 2 wrong usage, 3 failed, 128 + signal when cancelled. The ``--help``
    of a command lists any others.

    Raises:
      UsageError: there is no such command.
      SystemExit: after ``--help``.
    """
    if name not in COMMANDS:
        close = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"did you mean {close[0]}?" if close else f"the commands are {', '.join(COMMANDS)}"
        raise UsageError(
            f"{name!r} is not a command; {hint} (to label images, use --input without a command)"
        )
    main = importlib.import_module(COMMANDS[name].module).main
    from beamlabel.pipeline.process import streams
    from beamlabel.pipeline.process.cancellation import Cancelled, cancellation
    from beamlabel.pipeline.process.exit import BROKEN, USAGE, exit_process, set_up_logging
    from beamlabel.pipeline.process.messages import tell
    from beamlabel.transforms.storage import beam_setup

    set_up_logging()
    with cancellation() as cancelled:
        try:
            if COMMANDS[name].answers:
                streams.check_stdout()
            storage_options, argv = beam_setup.split(underscored(argv))
            beam_setup.configure(storage_options)
            code = main(argv)
        except UsageError as error:
            usage(error, f"beamlabel {name}")
            code = USAGE
        except Cancelled as sent:
            code = sent.exit_code
        except streams.StdoutError as error:
            if str(error):
                tell(str(error), f"beamlabel {name}")
            code = error.exit_code
        except Exception as error:
            # An OSError is explained by its message; anything else is a fault of the program, and needs its traceback.
            # After a signal it is neither: code in between turned the signal into another exception.
            if not cancelled.seen:
                get_logger("beamlabel").error(
                    "%s failed: %s", name, error, exc_info=not isinstance(error, OSError)
                )
            code = BROKEN
        if cancelled.seen:
            tell(f"cancelled by {cancelled.seen}", f"beamlabel {name}")
            code = cancelled.seen.exit_code
        # Within ``cancellation``, so that a signal also ends a process that hangs while it exits.
        exit_process(code)
