"""``python -m pipeline``: the labeling job's command."""

from __future__ import annotations

import sys

from pipeline.options import UsageError, parse, usage


def console() -> None:
    """Entry point of the installed command."""
    try:
        if sys.argv[1:2] == ["publish"]:
            from pipeline.publish_command import main as publish

            publish(sys.argv[2:])
        if sys.argv[1:2] == ["report"]:
            from pipeline.report_command import main as make_report

            make_report(sys.argv[2:])
        options, runner_args = parse(sys.argv[1:])
    except UsageError as error:
        usage(error)
        sys.exit(2)
    # Beam takes a second to import: not before the options are known to be good.
    from pipeline.run import main

    main(options, runner_args)


if __name__ == "__main__":
    console()
