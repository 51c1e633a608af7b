"""``beamlabel-worker``: starts one of Beam's Python workers, like the boot program of Beam's containers.

It is for ``--environment_type PROCESS``, with which a Flink TaskManager starts its workers itself, and for a worker
pool's ``--container_executable``. The worker runs in this process and its environment, and nothing is installed.
"""

from __future__ import annotations

import argparse
import logging
import os
import select
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any, NoReturn

import platformdirs

from beamlabel.transforms.deadline.watchdog import watch_worker
from beamlabel.transforms.secrets.logs import get_logger, make_all_records_public
from beamlabel.transforms.secrets.say import say

_LOGGER = get_logger("beamlabel.worker")
_CONNECT_SECONDS = 60.0
_PARENT_GONE = 143
# Staged with every job, for information only.
_INFORMATION = "submission_environment_dependencies.txt"


def console() -> NoReturn:
    """The command ``beamlabel-worker``."""
    arguments = _parse(sys.argv[1:])
    die_with_parent()
    make_all_records_public()
    os.environ["WORKER_ID"] = arguments.id  # read by modules of Beam as they are imported
    watch_worker()
    code = 1
    try:
        os.environ.update(environment(arguments, provision_info(arguments.provision_endpoint, arguments.id)))
        from apache_beam.runners.worker import sdk_worker_main

        sdk_worker_main.main(sys.argv[:1])
        code = 0
    except BaseException as error:
        # No traceback, because every runner closes the connection at the end of a job.
        say(f"beamlabel-worker {arguments.id}: {type(error).__name__}: {error}")
    # Threads of Beam may still wait for a runner that has ended.
    logging.shutdown()
    os._exit(code)


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="beamlabel-worker", description=__doc__, allow_abbrev=False)
    parser.add_argument("--id", required=True, help="id of the worker")
    parser.add_argument(
        "--provision_endpoint", required=True, help="host:port of the runner's provision service"
    )
    for name in ("control", "logging", "artifact", "status"):
        parser.add_argument(f"--{name}_endpoint", help="used if the provision service names none")
    # Files in this directory are imported, so it is not below /tmp as in a container.
    parser.add_argument(
        "--semi_persist_dir",
        default=os.path.join(platformdirs.user_cache_dir("beamlabel"), "worker"),  # noqa: PTH118
        help="directory in which Beam looks for staged files (default: %(default)s)",
    )
    return parser.parse_args(argv)


def provision_info(endpoint: str, worker_id: str) -> Any:
    """The runner's provision info for a worker.

    Raises:
      grpc.RpcError, grpc.FutureTimeoutError: the runner does not answer.
    """
    import grpc
    from apache_beam.portability.api import beam_provision_api_pb2, beam_provision_api_pb2_grpc

    with grpc.insecure_channel(endpoint) as channel:
        grpc.channel_ready_future(channel).result(timeout=_CONNECT_SECONDS)
        service = beam_provision_api_pb2_grpc.ProvisionServiceStub(channel)
        request = beam_provision_api_pb2.GetProvisionInfoRequest()
        answer = service.GetProvisionInfo(
            request, metadata=[("worker_id", worker_id)], timeout=_CONNECT_SECONDS
        )
        return answer.info


def environment(arguments: argparse.Namespace, info: Any) -> dict[str, str]:
    """The variables that ``apache_beam.runners.worker.sdk_worker_main`` reads.

    Raises:
      RuntimeError: the job brings packages; the runner gets the message too.
    """
    from apache_beam.portability.api import endpoints_pb2
    from google.protobuf import json_format, text_format

    found = {
        "PIPELINE_OPTIONS": json_format.MessageToJson(info.pipeline_options),
        "RUNNER_CAPABILITIES": " ".join(info.runner_capabilities),
        "SEMI_PERSISTENT_DIRECTORY": arguments.semi_persist_dir,
    }
    for name in ("control", "logging", "status"):
        descriptor = getattr(info, f"{name}_endpoint")
        if not descriptor.url:
            descriptor = endpoints_pb2.ApiServiceDescriptor(url=getattr(arguments, f"{name}_endpoint") or "")
        if descriptor.url:
            variable = f"{name.upper()}_API_SERVICE_DESCRIPTOR"
            found[variable] = text_format.MessageToString(descriptor)
            if name == "logging":
                _refuse_packages(info, descriptor)
    return found


def _refuse_packages(info: Any, logging_endpoint: Any) -> None:
    brought = sorted(name for name in map(_staged_name, info.dependencies) if name != _INFORMATION)
    if not brought:
        return
    message = (
        f"the job brings {', '.join(brought)}, but beamlabel-worker installs nothing; install it where the "
        "worker runs, and leave out --setup_file, --requirements_file, --extra_package and --save_main_session"
    )
    from apache_beam.runners.worker.log_handler import FnApiLogRecordHandler

    # The runner discards the output of a worker.
    handler = FnApiLogRecordHandler(logging_endpoint)
    _LOGGER.addHandler(handler)
    _LOGGER.error(message)
    handler.close()
    raise RuntimeError(message)


def _staged_name(artifact: Any) -> str:
    from apache_beam.portability.api import beam_runner_api_pb2

    payload = beam_runner_api_pb2.ArtifactStagingToRolePayload.FromString(artifact.role_payload)
    return str(payload.staged_name)


def die_with_parent() -> None:
    """Ends this process when its parent ends, because a killed TaskManager cannot stop its workers.

    PR_SET_PDEATHSIG does not serve: it kills as soon as the parent's thread that started this process ends.
    """
    parent = os.getppid()
    threading.Thread(target=_wait_and_die, args=(parent,), name="die-with-parent", daemon=True).start()


def _wait_and_die(parent: int) -> None:
    try:
        poll = select.poll()
        poll.register(os.pidfd_open(parent), select.POLLIN)
        poll.poll()
    except (AttributeError, OSError):  # not Linux, or an old one
        while os.getppid() == parent:
            time.sleep(1)
    os._exit(_PARENT_GONE)


if __name__ == "__main__":
    console()
