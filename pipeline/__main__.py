"""``python -m beamlabel``: the labeling job and the other commands."""

from __future__ import annotations

import os
import signal
import sys

from beamlabel.pipeline.errors import UsageError
from beamlabel.pipeline.options.parser import parse, usage
from beamlabel.pipeline.process import streams
from beamlabel.pipeline.process.messages import tell


def console() -> None:
    """Entry point of the installed command."""
    streams.prepare()
    try:
        _run(sys.argv[1:])
    except KeyboardInterrupt:  # nothing to cancel yet
        tell("cancelled by SIGINT")
        os._exit(128 + signal.SIGINT)
    except streams.StdoutError as error:  # from --help and --version
        if str(error):
            tell(str(error))
        sys.exit(error.exit_code)


def _run(argv: list[str]) -> None:
    try:
        if argv and not argv[0].startswith("-"):
            from beamlabel.pipeline.commands.dispatch import is_job, parse_job, run_command

            if not is_job(argv[0]):
                run_command(argv[0], argv[1:])
            options, runner_args = parse_job(argv[0], argv[1:])
        else:
            options, runner_args = parse(argv)
    except UsageError as error:
        usage(error)
        sys.exit(2)
    # Beam takes a second to import, so the options are checked first.
    from beamlabel.pipeline.run import main

    main(options, runner_args)


if __name__ == "__main__":
    console()
