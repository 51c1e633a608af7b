"""A Dataflow job whose launcher waits: the end of the job, and cancellation by a signal."""

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.gcs_server import Bucket
from support.google_cloud import ROOT, JobService, google_cloud
from support.jobs import TINY, photos
from support.servers import FileServer

IMAGE = "--sdk_container_image=us-central1-docker.pkg.dev/a-project-1/beamlabel/worker:1"
Launch = Callable[[], subprocess.Popen]


@pytest.fixture
def service() -> Iterator[JobService]:
    running = JobService()
    yield running
    running.close()


@pytest.fixture
def launch(gcs: Bucket, service: JobService, file_server: FileServer, tmp_path: Path) -> Iterator[Launch]:
    """Starts a launcher that waits for its job."""
    (photo,) = photos(tmp_path / "photos", 1)
    gcs.put("in.txt", gcs.put("photo.png", photo.read_bytes()).encode())
    environment = google_cloud(tmp_path, gcs.server, file_server)
    started = []

    def start() -> subprocess.Popen:
        command = [
            sys.executable, "-m", "beamlabel", "--input", gcs.uri("in.txt"), "--module", TINY,
            "--output", gcs.uri("out"), IMAGE,
            "--runner=DataflowRunner", "--project=a-project-1", "--region=us-central1",
            f"--temp_location={gcs.uri('temp')}", f"--dataflow_endpoint={service.url}",
        ]  # fmt: skip
        started.append(
            subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)
        )
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_cancels_the_job(number: int, code: int, launch: Launch, service: JobService) -> None:
    launcher = launch()
    while not service.created.wait(0.2):
        assert launcher.poll() is None, launcher.communicate()[1]
    launcher.send_signal(number)
    _, told = launcher.communicate(timeout=60)
    assert launcher.returncode == code, told
    assert service.state == "JOB_STATE_CANCELLED"
    assert "The job is CANCELLED" in told


@pytest.mark.parametrize(
    ("state", "message", "expected"),
    [
        ("JOB_STATE_FAILED", "The worker lost contact.", "The worker lost contact."),
        ("JOB_STATE_CANCELLED", "", "CANCELLED"),
        ("JOB_STATE_DONE", "", "nothing was committed"),
    ],
)
def test_how_a_job_ends_is_how_the_run_ends(
    state: str, message: str, expected: str, launch: Launch, service: JobService
) -> None:
    service.state, service.message = state, message
    launcher = launch()
    _, told = launcher.communicate(timeout=180)
    assert launcher.returncode == 3, told
    assert expected in told
    assert ("PUT", "/v1b3/projects/a-project-1/locations/us-central1/jobs/a-job") not in service.calls
