"""Faults on Flink other than kills, with 20 % faulty references; ``benchmarks/flink_faults.py`` has many more."""

from pathlib import Path

import pytest

from support.fault_jobs import Attempt, FaultJob, run_with_fault
from support.flink_cluster import FlinkCluster
from support.hanging_module import HANGING_PHOTO, save_hanging_module
from support.jobs import photos
from support.servers import FileServer
from support.small_disk import SmallDisk

IMAGES = 200


@pytest.mark.long
def test_a_module_that_hangs_in_native_code(
    flink_cluster: FlinkCluster, http_server: FileServer, tmp_path: Path
) -> None:
    """Its worker ends, and Flink starts another one; only the images that hang fail."""
    module = str(save_hanging_module(tmp_path / "module"))
    job = FaultJob(
        tmp_path / "job", http_server, photos(tmp_path / "photos", 20), IMAGES, module, hanging=HANGING_PHOTO
    )

    def nothing(attempt: Attempt) -> None:
        pass

    output = tmp_path / "labels" / "out"
    outcome = run_with_fault(job, flink_cluster, output, nothing, "--inference_deadline", "5s")
    assert outcome.is_good, outcome
    assert outcome.restarts >= 2


@pytest.mark.long
def test_a_full_disk_fails_the_run_and_a_resume_completes_it(
    flink_cluster: FlinkCluster, http_server: FileServer, tmp_path: Path
) -> None:
    job = FaultJob(tmp_path / "job", http_server, photos(tmp_path / "photos", 20), IMAGES)
    try:
        disk = SmallDisk(tmp_path / "labels", "16m")
    except OSError as error:
        # Not `needs.lacking`, since no installation can provide it.
        pytest.skip(str(error))

    def fill(attempt: Attempt) -> None:
        attempt.wait_share(0.3)
        disk.fill()
        attempt.repair = disk.empty

    with disk:
        outcome = run_with_fault(job, flink_cluster, tmp_path / "labels" / "out", fill)
    assert outcome.is_good, outcome
    assert outcome.codes == (3, 0)
    assert "No space left" in outcome.errors[0] and "resume" in outcome.errors[0]
