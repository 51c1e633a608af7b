"""``beamlabel publish OUTPUT``: publishes a committed run without the launcher that submitted it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, NoReturn

from beamlabel.pipeline import layout
from beamlabel.pipeline.errors import UsageError
from beamlabel.pipeline.options.declare import positional
from beamlabel.pipeline.options.parser import parse_command
from beamlabel.pipeline.output import staging
from beamlabel.pipeline.output.left_over import tell_left_over
from beamlabel.pipeline.output.lock import OutputLockedError, locked
from beamlabel.pipeline.output.manifest import read_manifest
from beamlabel.pipeline.output.outcome import report
from beamlabel.pipeline.output.own_json import JOB, read_json
from beamlabel.pipeline.output.publish import finish_pending
from beamlabel.pipeline.places.outputs import check_directory
from beamlabel.pipeline.process.exit import DONE, NOT_YET, exit_process, set_up_logging
from beamlabel.pipeline.process.messages import tell
from beamlabel.transforms import storage
from beamlabel.transforms.storage.errors import is_user_error

_COMMAND = "beamlabel publish"


@dataclass(frozen=True, kw_only=True)
class PublishOptions:
    """The output of the committed run."""

    output: str = positional(metavar="OUTPUT", help="the run's --output")


def main(argv: list[str]) -> NoReturn:
    """Runs the command and ends the process with its exit code.

    Raises:
      UsageError: a wrong argument, or no run of beamlabel at the output.
    """
    options = parse_command(
        PublishOptions,
        argv,
        command="publish",
        description="Publishes a committed run whose launcher did not wait for it or was killed.",
        epilog="Exit codes: 0 published, now or before, 1 too many failures, 2 wrong usage, 3 failed, "
        "4 published, but out of time, 75 nothing is committed yet, or a run has locked the output.",
    )
    set_up_logging()
    exit_process(publish_committed(options.output))


def publish_committed(output: str) -> int:
    """Publishes the committed runs of an output; returns the exit code.

    Raises:
      UsageError: there is no run of beamlabel.
    """
    output = check_directory("OUTPUT", output)
    try:
        with locked(output):
            manifests = finish_pending(output)
            if manifests:
                tell_left_over(output)
        manifest = read_manifest(output)
        waiting = _waiting(output, manifest)
    except OutputLockedError as error:
        tell(str(error), _COMMAND)
        return NOT_YET
    except (OSError, ValueError) as error:
        if not is_user_error(error):
            raise
        raise UsageError(f"OUTPUT {output!r}: {error}") from error
    codes = [report(manifest) for manifest in manifests]
    if codes:
        return max(codes)
    if waiting:
        tell(f"nothing is committed yet in {waiting}", _COMMAND)
        return NOT_YET
    if manifest is None:
        raise UsageError(f"OUTPUT {output!r}: no run of beamlabel found there")
    tell(f"{output} is published", _COMMAND)
    return DONE


def _waiting(output: str, manifest: dict[str, Any] | None) -> str | None:
    """The staging directory of a run that started after the published one was committed."""
    since = datetime.fromisoformat(manifest["committed_at"]).timestamp() if manifest else 0.0
    for directory in staging.holding(output, layout.JOB):
        if read_json(storage.join(directory, layout.JOB), JOB)["started_at"] > since:
            return directory
    return None
