"""``beamlabel-worker`` against gRPC services in place of a runner's."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from apache_beam.portability.api import (
    beam_fn_api_pb2_grpc,
    beam_provision_api_pb2,
    beam_provision_api_pb2_grpc,
    beam_runner_api_pb2,
    endpoints_pb2,
)
from google.protobuf import struct_pb2

from support.flink_cluster import wait_for

BOOT = [sys.executable, "-m", "beamlabel.pipeline.runners.worker_boot"]


class Runner(
    beam_provision_api_pb2_grpc.ProvisionServiceServicer,
    beam_fn_api_pb2_grpc.BeamFnControlServicer,
    beam_fn_api_pb2_grpc.BeamFnLoggingServicer,
):
    """The three services that a worker calls first, on one port."""

    def __init__(self) -> None:
        self.connected = threading.Event()
        self.hang_up = threading.Event()
        self.workers: list[str] = []
        self.logged: list[str] = []
        self.dependencies: list[str] = ["submission_environment_dependencies.txt"]
        self._server = grpc.server(ThreadPoolExecutor(8))
        beam_provision_api_pb2_grpc.add_ProvisionServiceServicer_to_server(self, self._server)
        beam_fn_api_pb2_grpc.add_BeamFnControlServicer_to_server(self, self._server)
        beam_fn_api_pb2_grpc.add_BeamFnLoggingServicer_to_server(self, self._server)
        self.endpoint = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def GetProvisionInfo(self, request, context):  # noqa: N802
        self.workers.append(dict(context.invocation_metadata())["worker_id"])
        endpoint = endpoints_pb2.ApiServiceDescriptor(url=self.endpoint)
        options = struct_pb2.Struct()
        options.update(
            {"beam:option:default_sdk_harness_log_level:v1": "INFO", "beam:option:job_name:v1": "j"}
        )
        payloads = [
            beam_runner_api_pb2.ArtifactStagingToRolePayload(staged_name=name) for name in self.dependencies
        ]
        info = beam_provision_api_pb2.ProvisionInfo(
            control_endpoint=endpoint,
            logging_endpoint=endpoint,
            pipeline_options=options,
            runner_capabilities=["beam:protocol:control_response_elements_embedding:v1"],
            dependencies=[
                beam_runner_api_pb2.ArtifactInformation(role_payload=payload.SerializeToString())
                for payload in payloads
            ],
        )
        return beam_provision_api_pb2.GetProvisionInfoResponse(info=info)

    def Control(self, requests, context):  # noqa: N802
        self.workers.append(dict(context.invocation_metadata())["worker_id"])
        self.connected.set()
        self.hang_up.wait()
        yield from ()

    def Logging(self, requests, context):  # noqa: N802
        for entries in requests:
            self.logged.extend(entry.message for entry in entries.log_entries)
        yield from ()

    def close(self) -> None:
        self.hang_up.set()
        self._server.stop(1).wait()


@pytest.fixture
def runner() -> Iterator[Runner]:
    running = Runner()
    yield running
    running.close()


def arguments(runner: Runner) -> list[str]:
    """As a TaskManager passes them."""
    others = [
        f"--{name}_endpoint={runner.endpoint}" for name in ("logging", "artifact", "provision", "control")
    ]
    return ["--id=7-1", *others]


def test_a_worker_connects_under_its_id_and_ends_with_its_runner(runner: Runner) -> None:
    worker = subprocess.Popen([*BOOT, *arguments(runner)], stderr=subprocess.PIPE, text=True)
    assert runner.connected.wait(60)
    assert runner.workers == ["7-1", "7-1"]
    runner.hang_up.set()
    assert worker.wait(60) == 0
    assert any("Python sdk harness starting" in line for line in runner.logged)
    assert any("job_name" in line for line in runner.logged), "the job's options did not arrive"


def test_sigterm_ends_a_worker(runner: Runner) -> None:
    worker = subprocess.Popen([*BOOT, *arguments(runner)])
    assert runner.connected.wait(60)
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(60) == -signal.SIGTERM


def test_a_worker_dies_with_its_parent(runner: Runner, tmp_path: Path) -> None:
    """The worker must not die with the parent's starting thread, which in a TaskManager belongs to a task."""
    parent_code = (
        "import json, subprocess, sys, threading, time\n"
        "def start():\n"
        f"    worker = subprocess.Popen(json.loads({json.dumps([*BOOT, *arguments(runner)])!r}))\n"
        "    print(worker.pid, flush=True)\n"
        "thread = threading.Thread(target=start); thread.start(); thread.join()\n"
        "time.sleep(600)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", parent_code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    worker = int(parent.stdout.readline())
    assert runner.connected.wait(60)
    os.kill(worker, 0)
    parent.kill()
    parent.wait()
    wait_for(lambda: not _runs(worker), 60, "the end of an orphan")


def _runs(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_packages_that_nobody_installs_are_refused(runner: Runner) -> None:
    runner.dependencies += ["workflow.tar.gz"]
    done = subprocess.run([*BOOT, *arguments(runner)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "the job brings workflow.tar.gz" in done.stderr
    wait_for(lambda: any("leave out --setup_file" in line for line in runner.logged), 60, "the log")
    assert not runner.connected.is_set()


def test_a_runner_that_is_not_there(runner: Runner) -> None:
    done = subprocess.run([*BOOT, "--id=1"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "--provision_endpoint" in done.stderr
