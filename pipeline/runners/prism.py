"""Prism, Beam's single-process runner in Go: finds it before the submission, and shields its server from Ctrl-C."""

from __future__ import annotations

from typing import Any

from apache_beam.options.pipeline_options import PipelineOptions, PrismRunnerOptions
from apache_beam.runners.portability.job_server import StopOnExitJobServer
from apache_beam.runners.portability.prism_runner import PrismJobServer, PrismRunner

from beamlabel.pipeline.errors import UsageError
from beamlabel.pipeline.runners.own_group import in_own_group


class SteadyPrismRunner(PrismRunner):
    """Beam's Prism runner, with a server that a terminal's Ctrl-C does not end before the job is cancelled."""

    def default_job_server(self, options: PipelineOptions) -> StopOnExitJobServer:
        return StopOnExitJobServer(_JobServer(options))


class _JobServer(PrismJobServer):
    def subprocess_cmd_and_endpoint(self) -> tuple[list[Any], str]:
        command, endpoint = super().subprocess_cmd_and_endpoint()
        return in_own_group([str(word) for word in command]), endpoint


def find_prism(options: PipelineOptions) -> None:
    """Sets ``--prism_location`` to a local binary, which Beam downloads once if the user names none.

    Raises:
      UsageError: there is no such binary, and none can be downloaded.
    """
    prism = options.view_as(PrismRunnerOptions)
    named = prism.prism_location
    try:
        prism.prism_location = PrismJobServer.local_bin(
            PrismJobServer(options).path_to_binary(), PrismJobServer.BIN_CACHE, ignore_cache=bool(named)
        )
    except (OSError, RuntimeError, ValueError) as error:
        what = f"--prism_location {named!r}" if named else "--runner PrismRunner"
        raise UsageError(
            f"{what}: Prism is not available ({error}); set --prism_location to its binary, which "
            "tools/setup_prism.sh builds with Go"
        ) from error
