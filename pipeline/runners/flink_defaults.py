"""Completes Beam's options for Flink with facts from the cluster."""

from __future__ import annotations

import ipaddress
import json
import shutil
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from apache_beam.options.pipeline_options import FlinkRunnerOptions, PortableOptions, WorkerOptions

from beamlabel.pipeline.errors import UsageError
from beamlabel.pipeline.runners.choose import FLINK, PORTABLE, Runner
from beamlabel.pipeline.runners.flink_rest import ask, cluster_url
from beamlabel.transforms.secrets.logs import get_logger

_LOGGER = get_logger("beamlabel")
_WORKER = "beamlabel-worker"


def flink_defaults(runner: Runner, typed: Sequence[str]) -> list[str]:
    """Options to add to the user's, so that ``--flink_master`` is enough; none that the user has set.

    Args:
      runner: the result of ``choose``.
      typed: the user's options, which ``choose`` got.

    Returns:
      The number of free slots as ``--parallelism``, the cluster's ``--flink_version``, PROCESS as
      ``--environment_type`` if all TaskManagers are on this machine, and the program that PROCESS starts. If the
      cluster does not answer, nothing that depends on it; ``check_runner`` reports that.

    Raises:
      UsageError: Beam has no job server for the cluster's version.
    """
    if runner.kind not in (FLINK, PORTABLE):
        return []
    names = {word.split("=", 1)[0] for word in typed if word.startswith("--")}
    url = ""
    if runner.kind == FLINK and not runner.options.view_as(PortableOptions).job_endpoint:
        url = cluster_url(runner.options.view_as(FlinkRunnerOptions).flink_master)
    added = _of_cluster(runner, url, names) if url else []
    if added:
        _LOGGER.info("Using options from %s: %s", url, " ".join(added))
    if url and not _restarts(url):
        _LOGGER.warning(
            "%s has no restart-strategy in its configuration, so the first lost worker or TaskManager ends the job; "
            "see docs/flink.md",
            url,
        )
    return [*added, *_worker_command(runner, added)]


def _of_cluster(runner: Runner, url: str, names: set[str]) -> list[str]:
    overview = ask(url, "overview")
    if overview is None:
        return []
    added = []
    slots = overview.get("slots-available") or overview.get("slots-total") or 0
    if "--parallelism" not in names and slots:
        added += ["--parallelism", str(slots)]
    if not names & {"--flink_version", "--flink_job_server_jar"}:
        added += ["--flink_version", _version(url, str(overview.get("flink-version", "")))]
    if not _says_environment(runner) and _all_here(url):
        added += ["--environment_type", "PROCESS"]
    return added


def _version(url: str, version: str) -> str:
    minor, known = ".".join(version.split(".")[:2]), FlinkRunnerOptions.PUBLISHED_FLINK_VERSIONS
    if minor not in known:
        raise UsageError(
            f"--flink_master {url!r} is Flink {version}, but this Beam has job servers for {', '.join(known)}; set "
            "--flink_job_server_jar to another one"
        )
    return minor


def _restarts(url: str) -> bool:
    """Whether the cluster's configuration sets a restart strategy; True if the configuration is unknown.

    Beam has no option for it: Flink takes a batch job's restart strategy only from the cluster.
    """
    config = ask(url, "jobmanager/config")
    return config is None or any(entry["key"].startswith("restart-strategy") for entry in config)


def _says_environment(runner: Runner) -> bool:
    portable = runner.options.view_as(PortableOptions)
    image = runner.options.view_as(WorkerOptions).sdk_container_image
    return bool(portable.environment_type or portable.environment_config or image)


def _all_here(url: str) -> bool:
    """Whether there are TaskManagers, all with a loopback address."""
    answer = ask(url, "taskmanagers") or {}
    hosts = [urlsplit(manager["path"]).hostname for manager in answer.get("taskmanagers", [])]
    return bool(hosts) and all(host is not None and _is_loopback(host) for host in hosts)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(socket.gethostbyname(host)).is_loopback
    except (OSError, ValueError):
        return False


def _worker_command(runner: Runner, added: Sequence[str]) -> list[str]:
    """The option for the boot program of beamlabel's workers, if TaskManagers start processes and none is set."""
    portable = runner.options.view_as(PortableOptions)
    kind = "PROCESS" if "PROCESS" in added else str(portable.environment_type or "").upper()
    if kind != "PROCESS" or portable.environment_config or portable.environment_options:
        return []
    beside = Path(sys.executable).with_name(_WORKER)
    command = str(beside) if beside.exists() else shutil.which(_WORKER) or _WORKER
    return ["--environment_config", json.dumps({"command": command})]
