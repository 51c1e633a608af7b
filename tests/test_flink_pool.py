"""A job through the worker pool that ``deploy/flink/`` puts beside each TaskManager, with Beam's own boot program.

Beam's in-process job service stands in for the TaskManager: it asks the pool for a worker by the same call, and serves
the same provision, artifact, control and data services.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import flink_deployment as deployment
import needs
import pytest
from jobs import TINY, Finished, label, photos

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def boot():
    """The program at ``/opt/apache/beam/boot`` of Beam's images, of the Beam that is installed."""
    if shutil.which("go") is None:
        needs.lacking("no Go, which builds Beam's boot program")
    done = subprocess.run(
        [ROOT / "tools" / "get_beam_boot.sh", deployment.BEAM], capture_output=True, text=True, timeout=900
    )
    if done.returncode:
        needs.lacking(f"tools/get_beam_boot.sh: {done.stderr[-1000:]}")
    return ROOT / ".runners" / "beam-boot" / deployment.BEAM / "boot"


@pytest.fixture
def pool(boot, tmp_path):
    """Address of a pool that is started as the image's entry point does, with the image's variables."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    variables = dict(
        argument.split("=", 1)
        for instruction, argument in deployment.dockerfile("Dockerfile")
        if instruction == "ENV"
    )
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, **variables, "PATH": path, "PYTHONPATH": str(ROOT)}
    command = ["python", "-m", "apache_beam.runners.worker.worker_pool_main"]
    arguments = [f"--service_port={port}", f"--container_executable={boot}"]
    with (tmp_path / "pool.log").open("wb") as log:
        process = subprocess.Popen(
            [*command, *arguments], env=environment, stdout=log, stderr=log, start_new_session=True
        )
    try:
        end = time.monotonic() + 60
        while not listens(port):
            assert process.poll() is None, (tmp_path / "pool.log").read_text()
            assert time.monotonic() < end
            time.sleep(0.2)
        yield f"localhost:{port}"
    finally:
        process.terminate()
        try:
            process.wait(20)
        finally:
            kill_group(process.pid)


def listens(port):
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def kill_group(group):
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        return


def test_the_pool_runs_a_job(pool, tmp_path):
    folder = photos(tmp_path / "photos", 20)[0].parent
    (folder / "broken.png").write_bytes(b"not an image")
    inputs = ["--input", f"{folder}/", "--input_format", "images"]
    here = label(tmp_path / "here", *inputs)
    ours = ("--environment_type", "--experiments")
    given = [option for option in deployment.launch_options("compose.yaml") if option.startswith(ours)]
    assert len(given) == 2
    command = [
        sys.executable,
        "-m",
        "pipeline",
        *inputs,
        "--module",
        TINY,
        "--output",
        str(tmp_path / "there"),
    ]
    runner = ["--runner=PortableRunner", "--job_endpoint=embed", *given, f"--environment_config={pool}"]
    done = subprocess.run(
        [*command, *runner],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr[-3000:] + (tmp_path / "pool.log").read_text()[-3000:]
    there = Finished(0, tmp_path / "there")
    assert there.succeeded
    assert there.rows == here.rows
    assert len(there.rows) == 20
    assert there.failures == here.failures
    assert "Starting worker with command" in (tmp_path / "pool.log").read_text()
