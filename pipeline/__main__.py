"""``python -m pipeline``: the labeling job, and the commands beside it."""

from __future__ import annotations

import sys

from pipeline.options import UsageError, parse, usage


def console() -> None:
    """Entry point of the installed command."""
    argv = sys.argv[1:]
    try:
        if argv and not argv[0].startswith("-"):
            from pipeline.commands import run_command

            run_command(argv[0], argv[1:])
        options, runner_args = parse(argv)
    except UsageError as error:
        usage(error)
        sys.exit(2)
    # Beam takes a second to import: not before the options are known to be good.
    from pipeline.run import main

    main(options, runner_args)


if __name__ == "__main__":
    console()
