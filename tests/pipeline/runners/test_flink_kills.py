"""A kill in the middle of a job on Flink costs the work in flight but no row."""

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.flink_cluster import FlinkCluster, Launcher, wait_for
from support.jobs import TINY, photos, uri_list
from support.kill_jobs import TASK_MANAGER, UNIT_ROWS, VICTIMS, KillJob, run_and_kill
from support.servers import FileServer
from support.staged import staged_files

IMAGES = 1000
# In each of two workers: the images loaded ahead, the batch, and their units.
IN_FLIGHT = 2 * (256 + 128 + 2 * UNIT_ROWS)
CGROUP = Path("/sys/fs/cgroup/memory")


@pytest.fixture
def kill_job(http_server: FileServer, tmp_path: Path) -> KillJob:
    return KillJob(tmp_path, http_server, IMAGES)


# The same moments each time; benchmarks/flink_kills.md has all 20 recorded ones.
MOMENTS = [random.Random(victim).uniform(0.2, 0.95) for victim in VICTIMS]


@pytest.mark.parametrize(
    ("victim", "moment"),
    [
        pytest.param(victim, moment, marks=() if victim == TASK_MANAGER else pytest.mark.long)
        for victim, moment in zip(VICTIMS, MOMENTS, strict=True)
    ],
)
def test_a_kill_costs_the_units_in_flight(
    victim: str, moment: float, flink_cluster: FlinkCluster, kill_job: KillJob, tmp_path: Path
) -> None:
    outcome = run_and_kill(kill_job, flink_cluster, tmp_path / "out", victim, moment)
    assert outcome.rows == IMAGES
    assert outcome.restarts >= 1
    assert outcome.images_again <= IN_FLIGHT, "staged units were computed again"


@pytest.mark.long
def test_who_commits_is_killed_and_who_publishes(
    flink_cluster: FlinkCluster, kill_job: KillJob, tmp_path: Path
) -> None:
    before = flink_cluster.jobs()
    output = tmp_path / "out"
    launcher = kill_job.launch(flink_cluster, output)
    flink_cluster.wait_for_job(before)
    units = IMAGES // UNIT_ROWS
    wait_for(
        lambda: len(staged_files(tmp_path, "units/*.json")) == units,
        120,
        "all units",
        poll=0.005,
    )
    workers = [worker for name in flink_cluster.names for worker in flink_cluster.workers(name)]
    assert workers
    for worker in workers:
        os.kill(worker, signal.SIGKILL)
    wait_for(lambda: list(output.glob("part-*")), 120, "the first file that is published", poll=0.001)
    launcher.process.kill()
    launcher.wait()
    published = Launcher(output, command=("publish", output)).wait()
    assert published.finished.code == 0, published.stderr
    kill_job.check(published.finished)
    assert set(kill_job.fetched().values()) == {1}, "a staged unit was computed again"


# --- memory -------------------------------------------------------------------------------------------


class Limited:
    """A memory limit for the workers of a job that the kernel enforces."""

    def __init__(self, directory: Path, worker: Path) -> None:
        self.group = CGROUP / f"beamlabel-test-{os.getpid()}"
        self.group.mkdir()
        self.script = directory / "limited-worker"
        self.script.write_text(f'#!/bin/sh\necho $$ >{self.group}/cgroup.procs\nexec {worker} "$@"\n')
        self.script.chmod(0o755)

    def limit(self, size: int) -> None:
        (self.group / "memory.limit_in_bytes").write_text(str(size))

    def usage(self) -> int:
        return int((self.group / "memory.usage_in_bytes").read_text())

    def prefer_to_kill(self) -> None:
        """Makes the kernel kill the current processes before others of the group."""
        for process in (self.group / "cgroup.procs").read_text().split():
            Path(f"/proc/{process}/oom_score_adj").write_text("1000")

    def kills(self) -> int:
        words = (self.group / "memory.oom_control").read_text().split()
        return int(words[words.index("oom_kill") + 1])

    def options(self) -> list[str]:
        command = json.dumps({"command": str(self.script)})
        return ["--environment_type=PROCESS", f"--environment_config={command}"]

    def close(self) -> None:
        for process in (self.group / "cgroup.procs").read_text().split():
            os.kill(int(process), signal.SIGKILL)
        wait_for(lambda: not (self.group / "cgroup.procs").read_text(), 10, "an empty group")
        self.group.rmdir()


@pytest.fixture
def limited(tmp_path: Path, flink_cluster: FlinkCluster) -> Iterator[Limited]:
    if not os.access(CGROUP / "cgroup.procs", os.W_OK):
        # Not `needs.lacking`, since no installation can provide it.
        pytest.skip("needs a memory cgroup (version 1) that this user may write")
    group = Limited(tmp_path, flink_cluster.worker)
    yield group
    group.close()


@pytest.mark.long
def test_a_worker_killed_for_memory_is_started_again(
    flink_cluster: FlinkCluster, kill_job: KillJob, limited: Limited, tmp_path: Path
) -> None:
    """Another process uses up the limit, and the kernel kills the worker."""
    before = flink_cluster.jobs()
    limited.limit(4 << 30)
    launcher = kill_job.launch(flink_cluster, tmp_path / "out", *limited.options())
    job = flink_cluster.wait_for_job(before)
    wait_for(lambda: len(kill_job.server.requests) > IMAGES // 3, 120, "a third of the images")
    room = 64 << 20
    limited.prefer_to_kill()
    limited.limit(limited.usage() + room)
    hog = (
        "import pathlib, os\n"
        f"pathlib.Path('{limited.group}/cgroup.procs').write_text(str(os.getpid()))\n"
        f"b'x' * {2 * room}\n"
    )
    subprocess.run([sys.executable, "-c", hog], check=True, timeout=60)
    assert limited.kills() >= 1
    limited.limit(4 << 30)
    launched = launcher.wait()
    assert launched.finished.code == 0, launched.stderr
    kill_job.check(launched.finished)
    assert flink_cluster.restarts(job) >= 1


@pytest.mark.long
def test_a_job_whose_workers_have_too_little_memory_says_so(
    flink_cluster: FlinkCluster, limited: Limited, tmp_path: Path
) -> None:
    limited.limit(60 << 20)
    uris = uri_list(tmp_path / "in.txt", photos(tmp_path / "photos", 3))
    launched = Launcher(
        tmp_path / "out", "--input", uris, "--module", TINY, *flink_cluster.runner_options("PortableRunner"),
        *limited.options(),
    ).wait()  # fmt: skip
    assert launched.finished.code == 3
    assert limited.kills() >= 1
    assert "killed" in launched.stderr and "memory" in launched.stderr, launched.stderr
    assert not (tmp_path / "out" / "_MANIFEST.json").exists()
