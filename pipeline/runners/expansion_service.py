"""``python -m beamlabel.pipeline.runners.expansion_service``: ``LabelImages`` for pipelines of other languages.

Beam's expansion service with ``LabelImages`` registered under a URN. While another language builds a pipeline, it asks
the service for the transform: the service resolves and compiles the module, and answers with the graph. The steps
then run on Python workers, which the service's options name.
"""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from collections.abc import Sequence
from typing import Any

import grpc
from apache_beam.internal import pickler
from apache_beam.options.pipeline_options import (
    PipelineOptions,
    PortableOptions,
    SetupOptions,
    StandardOptions,
    WorkerOptions,
)
from apache_beam.options.pipeline_options_validator import PipelineOptionsValidator
from apache_beam.portability.api import (
    beam_artifact_api_pb2_grpc,
    beam_expansion_api_pb2,
    beam_expansion_api_pb2_grpc,
    beam_fn_api_pb2_grpc,
)
from apache_beam.runners.portability import artifact_service
from apache_beam.runners.portability.expansion_service import ExpansionServiceServicer
from apache_beam.runners.portability.portable_runner import PortableRunner
from apache_beam.runners.worker.worker_pool_main import BeamFnExternalWorkerPoolServicer
from apache_beam.utils import thread_pool_executor

from beamlabel.pipeline.errors import UsageError
from beamlabel.pipeline.process.exit import DONE, USAGE, exit_process, set_up_logging
from beamlabel.pipeline.runners.choose import choose, prepare_options
from beamlabel.transforms import cross_language
from beamlabel.transforms.secrets.logs import get_logger

_LOGGER = get_logger("beamlabel")
# Two servers must not share a port, so that the second one fails.
_SERVER_OPTIONS = (("grpc.so_reuseport", 0),)


class _Expansions(ExpansionServiceServicer):
    """Beam's service, which responds with the error message and logs the traceback."""

    def Expand(self, request: Any, context: Any = None) -> Any:  # noqa: N802 (the service's name)
        response = super().Expand(request, context)
        if not response.error:
            return response
        _LOGGER.error("%s cannot be expanded:\n%s", request.transform.spec.urn, response.error)
        return beam_expansion_api_pb2.ExpansionResponse(error=without_traceback(response.error))


def without_traceback(text: str) -> str:
    """The exception at the end of a text of ``traceback.format_exc``; the text itself if it has no frames."""
    lines = text.strip().splitlines()
    frames = [number for number, line in enumerate(lines) if line.startswith('  File "')]
    if not frames:
        return text
    message = (number for number in range(frames[-1] + 1, len(lines)) if not lines[number].startswith(" "))
    return "\n".join(lines[next(message, 0) :])


def serve(host: str, port: int, beam_args: Sequence[str], *, with_workers: bool) -> grpc.Server:
    """Starts the service.

    Args:
      host, port: the address to listen on.
      beam_args: Beam's options for the steps: the environment of their workers, ``--temp_location``.
      with_workers: whether the workers are threads of this process.

    Raises:
      UsageError: the options name no workers that can run the steps, an option is unknown to Beam, or the port is
        taken.
    """
    options = _options(beam_args, f"{host}:{port}" if with_workers else "")
    pickler.set_library(options.view_as(SetupOptions).pickle_library)
    server = grpc.server(thread_pool_executor.shared_unbounded_instance(), options=_SERVER_OPTIONS)
    beam_expansion_api_pb2_grpc.add_ExpansionServiceServicer_to_server(_expansions(options), server)
    beam_artifact_api_pb2_grpc.add_ArtifactRetrievalServiceServicer_to_server(
        artifact_service.ArtifactRetrievalService(
            artifact_service.BeamFilesystemHandler(None).file_reader
        ),
        server,
    )  # fmt: skip
    if with_workers:
        beam_fn_api_pb2_grpc.add_BeamFnExternalWorkerPoolServicer_to_server(
            BeamFnExternalWorkerPoolServicer(), server
        )
    try:
        server.add_insecure_port(f"{host}:{port}")
    except RuntimeError as error:
        raise UsageError(f"--host {host} --port {port}: cannot listen there: {error}") from error
    server.start()
    return server


def _options(beam_args: Sequence[str], own_workers: str) -> PipelineOptions:
    """Beam's options; the environment options name the workers of this process, if there are any."""
    words = [*beam_args, "--experiments=beam_fn_api", "--sdk_location=container"]
    named = choose(words).options
    if named.view_as(StandardOptions).runner:
        raise UsageError("--runner is an option of the pipeline that calls the service; leave it out here")
    if own_workers and named.view_as(PortableOptions).environment_type:
        raise UsageError("--environment_type and --serve_loopback_worker: only one can name the workers")
    if not own_workers and not _names_workers(named):
        raise UsageError(
            "no option names workers that have beamlabel; set --serve_loopback_worker, --environment_type "
            "(with --environment_config), --sdk_container_image or --setup_file"
        )
    if own_workers:
        words += ["--environment_type=EXTERNAL", f"--environment_config={own_workers}"]
    runner = choose(words)
    prepare_options(runner, "expansion")
    if not own_workers:
        # This makes `LabelImages` stage the artifact for workers that may be on other machines.
        runner.options.view_as(StandardOptions).runner = "PortableRunner"
    return runner.options


def _expansions(options: PipelineOptions) -> _Expansions:
    named = options.view_as(PortableOptions)
    try:
        # Beam runs these checks before every pipeline; here, they would first run in a caller's pipeline.
        errors = PipelineOptionsValidator(options, PortableRunner()).validate()
        if not errors:
            return _Expansions(options)
    except (KeyError, TypeError, ValueError) as error:  # from Beam's parsing of the options
        errors = [str(error)]
    raise UsageError(
        f"--environment_type {named.environment_type} does not fit --environment_config "
        f"{named.environment_config!r} and Beam's other options: {'; '.join(errors)}"
    )


def _names_workers(options: PipelineOptions) -> bool:
    setup = options.view_as(SetupOptions)
    return bool(
        options.view_as(PortableOptions).environment_type
        or options.view_as(WorkerOptions).sdk_container_image
        or setup.setup_file
        or setup.requirements_file
        or setup.extra_packages
    )


def main(argv: Sequence[str]) -> int:
    """Serves until SIGINT or SIGTERM; returns the exit code."""
    set_up_logging()
    arguments, beam_args = _parser().parse_known_args(argv)
    try:
        server = serve(
            arguments.host, arguments.port, beam_args, with_workers=arguments.serve_loopback_worker
        )
    except UsageError as error:
        _LOGGER.error("%s", error)
        return USAGE
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    _LOGGER.info("%s is served at %s:%d", cross_language.URN, arguments.host, arguments.port)
    stop.wait()
    server.stop(None).wait()
    return DONE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m beamlabel.pipeline.runners.expansion_service",
        description="Serves LabelImages to pipelines of other languages. Beam's own options are accepted too: "
        "--environment_type and --environment_config name the Python workers, and --temp_location a directory that "
        "they can read, to which the compiled module is copied.",
        allow_abbrev=False,
    )
    parser.add_argument("--port", type=int, required=True, help="port to listen on")
    parser.add_argument(
        "--host",
        default="localhost",
        help="address to listen on (default: %(default)s); anyone who reaches it can run code as this user, as with "
        "every Beam expansion service",
    )
    parser.add_argument(
        "--serve_loopback_worker",
        action="store_true",
        help="also run the Python worker, for a runner on this machine",
    )
    return parser


if __name__ == "__main__":
    exit_process(main(sys.argv[1:]))
