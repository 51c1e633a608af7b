"""A job through the worker pool of ``deploy/flink/`` beside each TaskManager, with Beam's boot program."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import support.flink_deployment as deployment
from support import needs
from support.flink_cluster import JOB_SERVER_JAR, FlinkCluster, listens, require_flink
from support.jobs import TINY, FinishedJob, label, photos
from support.paths import ROOT
from support.staged import staged_files


@pytest.fixture(scope="module")
def boot():
    """The program ``/opt/apache/beam/boot`` of Beam's images for the installed Beam version."""
    if shutil.which("go") is None:
        needs.lacking("no Go to build Beam's boot program")
    done = subprocess.run(
        [ROOT / "tools" / "get_beam_boot.sh", deployment.BEAM], capture_output=True, text=True, timeout=900
    )
    if done.returncode:
        needs.lacking(f"tools/get_beam_boot.sh: {done.stderr[-1000:]}")
    return ROOT / ".runners" / "beam-boot" / deployment.BEAM / "boot"


@dataclass(frozen=True)
class Pool:
    """A running worker pool that leads its own process group."""

    address: str
    pid: int
    log: Path

    def workers(self) -> list[int]:
        """The process ids of the SDK workers that the pool has started."""
        boots = subprocess.run(["pgrep", "-P", str(self.pid)], capture_output=True, text=True).stdout.split()
        found = [
            subprocess.run(
                ["pgrep", "-P", boot, "-f", "sdk_worker_main"], capture_output=True, text=True
            ).stdout
            for boot in boots
        ]
        return [int(pid) for text in found for pid in text.split()]


@pytest.fixture
def pool(boot, tmp_path) -> Iterator[Pool]:
    """A pool that is started like the image's entry point, with the image's variables."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    variables = dict(
        argument.split("=", 1)
        for instruction, argument in deployment.dockerfile("Dockerfile")
        if instruction == "ENV"
    )
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**variables, **os.environ, "PATH": path, "PYTHONPATH": str(ROOT)}
    command = ["python", "-m", "apache_beam.runners.worker.worker_pool_main"]
    arguments = [f"--service_port={port}", f"--container_executable={boot}"]
    directory = tmp_path / "work"
    directory.mkdir()
    with (tmp_path / "pool.log").open("wb") as log:
        process = subprocess.Popen(
            [*command, *arguments],
            cwd=directory,
            env=environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        end = time.monotonic() + 60
        while not listens(port):
            assert process.poll() is None, (tmp_path / "pool.log").read_text()
            assert time.monotonic() < end
            time.sleep(0.2)
        yield Pool(f"localhost:{port}", process.pid, tmp_path / "pool.log")
    finally:
        process.terminate()
        try:
            process.wait(20)
        finally:
            kill_group(process.pid)


def kill_group(group):
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        return


def launch(output, inputs, *runner):
    """Starts the command with the fixed arguments of ``compose.yaml``, overridden by the runner's options."""
    given = [
        option for option in deployment.launch_options("compose.yaml") if not option.startswith("--flink")
    ]
    command = [sys.executable, "-m", "beamlabel", *inputs, "--module", TINY, "--output", str(output)]
    return subprocess.Popen(
        [*command, *given, *runner],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def finish(process, output, pool):
    try:
        _, stderr = process.communicate(timeout=300)
    finally:
        process.kill()
    assert process.returncode == 0, stderr[-3000:] + pool.log.read_text()[-3000:]
    return FinishedJob(process.returncode, output)


def test_the_pool_runs_a_job(pool, tmp_path):
    """Beam's in-process job service stands in for the TaskManager: it requests a worker by the same call."""
    directory = photos(tmp_path / "photos", 20)[0].parent
    (directory / "broken.png").write_bytes(b"not an image")
    inputs = ["--input", f"{directory}/", "--input_format", "images"]
    here = label(tmp_path / "here", *inputs)
    runner = ["--runner=PortableRunner", "--job_endpoint=embed", f"--environment_config={pool.address}"]
    there = finish(launch(tmp_path / "there", inputs, *runner), tmp_path / "there", pool)
    assert there.succeeded
    assert there.rows == here.rows
    assert len(there.rows) == 20
    assert there.failures == here.failures
    assert "Starting worker with command" in pool.log.read_text()
    # The files of the boot program are the reason for the image's world-writable directory.
    assert (tmp_path / "work" / "pipeline_options.json").is_file()


@pytest.fixture
def flink(tmp_path):
    """Flink with one TaskManager and the settings of ``cluster.yaml`` except sizes."""
    require_flink()
    settings = deployment.cluster()["spec"]["flinkConfiguration"]
    settings = {name: value for name, value in settings.items() if ".memory." not in name}
    cluster = FlinkCluster(tmp_path / "flink", 1, settings)
    yield cluster
    cluster.close()


@pytest.mark.long
def test_a_worker_of_the_pool_is_killed_under_flink(flink, pool, tmp_path):
    """The boot program restarts the worker, Flink restarts the stage, and each row comes once."""
    directory = photos(tmp_path / "photos", 400)[0].parent
    inputs = ["--input", f"{directory}/", "--input_format", "images", "--shard_rows", "4"]
    here = label(tmp_path / "here", *inputs)
    runner = [f"--flink_master={flink.address}", f"--flink_job_server_jar={JOB_SERVER_JAR}"]
    output = tmp_path / "there"
    process = launch(output, inputs, *runner, f"--environment_config={pool.address}")
    try:
        end = time.monotonic() + 240
        while len(staged_files(output.parent)) < 10:
            assert process.poll() is None, process.stderr.read()[-3000:]
            assert time.monotonic() < end
            time.sleep(0.05)
        (worker,) = pool.workers()
        os.kill(worker, signal.SIGKILL)
    except BaseException:
        process.kill()
        raise
    there = finish(process, output, pool)
    (job,) = flink.jobs()
    assert flink.restarts(job) >= 1
    assert there.rows == here.rows
    assert len(there.rows) == 400
