"""Checks the requirements of a runner before the submission."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from apache_beam.options.pipeline_options import (
    FlinkRunnerOptions,
    JobServerOptions,
    PipelineOptions,
    PortableOptions,
    PrismRunnerOptions,
    SetupOptions,
)

from beamlabel.pipeline.errors import UsageError
from beamlabel.pipeline.runners import flink_rest
from beamlabel.pipeline.runners.check_dataflow import check_dataflow
from beamlabel.pipeline.runners.choose import DATAFLOW, FLINK, PORTABLE, PRISM, Runner
from beamlabel.pipeline.runners.prism import find_prism
from beamlabel.transforms import storage

_CONNECT_SECONDS = 5.0
_FLINK_PORT = 8081


def check_runner(runner: Runner, output: str, inputs: Iterable[str], base_dir: str | None = None) -> None:
    """Refuses a job that would fail after the submission. Downloads Prism's binary if necessary.

    Args:
      runner: the result of ``choose``.
      output: absolute path of the output.
      inputs: absolute paths of the inputs.
      base_dir: as the user set it; None if unset.

    Raises:
      UsageError: a requirement is missing; the message names the option to set.
    """
    checks = {DATAFLOW: check_dataflow, PORTABLE: _check_portable, PRISM: _check_prism}
    if check := checks.get(runner.kind):
        check(runner.options)
    elif runner.kind == FLINK:
        _check_flink(runner.options, runner.detached)
    if runner.kind in (FLINK, PORTABLE):
        _check_container_has_us(runner)
    where = _without_our_directories(runner)
    if where:
        paths = [("--output", output), *(("--input", path) for path in inputs)]
        for option, path in [*paths, *([("--base_dir", base_dir)] if base_dir else [])]:
            if storage.is_local(path):
                raise UsageError(f"{option} {path!r} is a local path that {where}")


def _without_our_directories(runner: Runner) -> str:
    """The reason why workers cannot reach local directories, and the remedy; empty if they may reach them."""
    if runner.kind == DATAFLOW:
        return "Dataflow workers cannot reach; use a gs:// path"
    if runner.kind in (FLINK, PORTABLE) and _environment_type(runner) == "DOCKER":
        return (
            "workers in containers (--environment_type DOCKER, Beam's default) cannot reach; use a gs:// path, or "
            "set --environment_type to PROCESS or EXTERNAL and share the directory with all workers"
        )
    return ""


def _check_container_has_us(runner: Runner) -> None:
    portable = runner.options.view_as(PortableOptions)
    setup = runner.options.view_as(SetupOptions)
    brings = (setup.setup_file, setup.extra_packages, setup.requirements_file)
    named = (portable.environment_config, portable.environment_options, *brings)
    if _environment_type(runner) == "DOCKER" and portable.job_endpoint != "embed" and not any(named):
        raise UsageError(
            f"--runner {runner.name}: its workers run Beam's container image, which has no beamlabel; set "
            "--environment_config to an image that contains it (--sdk_container_image is not for this runner), or "
            "set --environment_type to PROCESS or EXTERNAL and install beamlabel beside each TaskManager"
        )


def _environment_type(runner: Runner) -> str:
    portable = runner.options.view_as(PortableOptions)
    if portable.environment_type:
        return str(portable.environment_type).upper()
    within = runner.options.view_as(FlinkRunnerOptions).flink_master in flink_rest.WITHIN
    return "LOOPBACK" if runner.kind == FLINK and within else "DOCKER"


def _check_flink(options: PipelineOptions, detached: str) -> None:
    flink = options.view_as(FlinkRunnerOptions)
    if options.view_as(PortableOptions).job_endpoint:
        _check_portable(options)
        return
    master = flink.flink_master.strip()
    if master in flink_rest.WITHIN and detached.startswith("--attached_mode"):
        raise UsageError(
            "--attached_mode needs --flink_master: a Flink that the launcher starts ends with the launcher"
        )
    if master not in flink_rest.WITHIN:
        _check_reachable(
            "--flink_master", master, "Flink's REST address, such as localhost:8081", _FLINK_PORT
        )
    _check_file("--flink_job_server_jar", flink.flink_job_server_jar)
    java = options.view_as(JobServerOptions).job_server_java_launcher
    if not flink.flink_submit_uber_jar and shutil.which(java) is None:
        raise UsageError(
            f"--runner FlinkRunner starts a job server with Java, but {java!r} is not on PATH; install Java 11 or 17, "
            "set --job_server_java_launcher, or set --job_endpoint to a running job server"
        )


def _check_portable(options: PipelineOptions) -> None:
    portable = options.view_as(PortableOptions)
    if not portable.job_endpoint:
        raise UsageError("--runner PortableRunner needs --job_endpoint, host:port of a job server")
    if portable.job_endpoint != "embed":
        _check_reachable("--job_endpoint", portable.job_endpoint, "host:port of a running job server")
        _check_serves_grpc("--job_endpoint", portable.job_endpoint)


def _check_prism(options: PipelineOptions) -> None:
    _check_file("--prism_location", options.view_as(PrismRunnerOptions).prism_location)
    # A running server has its own binary.
    if not options.view_as(PortableOptions).job_endpoint:
        find_prism(options)


def _check_file(option: str, value: Any) -> None:
    if value and not urlsplit(value).scheme and not Path(value).is_file():
        raise UsageError(f"{option} {value!r}: there is no such file")


def _check_reachable(option: str, address: str, wanted: str, default_port: int | None = None) -> None:
    """Connects once, so that a mistyped address does not cost a timeout of minutes."""
    try:
        parts = urlsplit(address if "://" in address else f"//{address}")
        host, port = parts.hostname, parts.port or (443 if parts.scheme == "https" else default_port)
    except ValueError:
        host, port = None, None
    if not host or not port:
        raise UsageError(f"{option} {address!r} is not {wanted}")
    try:
        socket.create_connection((host, port), timeout=_CONNECT_SECONDS).close()
    except OSError as error:
        raise UsageError(f"{option} {address!r} does not answer ({error}); expected {wanted}") from error


def _check_serves_grpc(option: str, address: str) -> None:
    """Refuses a port of another service, such as Flink's own, which Beam would report as a timeout after a minute."""
    import grpc

    with grpc.insecure_channel(address) as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout=_CONNECT_SECONDS)
        except grpc.FutureTimeoutError:
            raise UsageError(
                f"{option}: the process listening on {address!r} is not a Beam job server"
            ) from None
