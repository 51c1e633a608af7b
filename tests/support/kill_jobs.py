"""A job on Flink with a process killed midway; for the tests and ``benchmarks/flink_kills.py``."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from support.flink_cluster import FlinkCluster, Launched, Launcher, wait_for
from support.jobs import TINY, FinishedJob, label, photos, uri_list
from support.servers import FileServer, Reply

TASK_MANAGER, WORKER, BOTH = "TaskManager", "SDK worker", "TaskManager and its worker"
VICTIMS = (TASK_MANAGER, WORKER, BOTH)
UNIT_ROWS = 50
# A slow server makes the job long enough for a kill midway without CPU time.
_DELAY = 0.1
_THREADS = 8
_PHOTOS = 50


class KillJob:
    """A job whose server counts fetches; an image's fetches are the number of times its computation began.

    Args:
      directory: The directory for the inputs.
      server: The server of the images.
      count: The number of images.
    """

    def __init__(self, directory: Path, server: FileServer, count: int) -> None:
        self.server = server
        self.count = count
        server.reset()
        contents = [path.read_bytes() for path in photos(directory / "photos", _PHOTOS)]
        self.paths = [f"/{number:05d}.png" for number in range(count)]
        self._contents = {path: contents[number % _PHOTOS] for number, path in enumerate(self.paths)}
        self.uris = uri_list(directory / "in.txt", map(server.url_of, self.paths))
        self.arguments = (
            "--input", self.uris, "--module", TINY, "--shard_rows", UNIT_ROWS, "--allow_http",
            "--allow_private_hosts", "--load_threads", _THREADS,
        )  # fmt: skip
        self._serve(delay=0)
        self.expected = label(directory / "expected", *self.arguments)
        assert self.expected.code == 0

    def launch(self, cluster: FlinkCluster, output: Path, *more: object) -> Launcher:
        self._serve(delay=_DELAY)
        return Launcher(output, *self.arguments, *cluster.runner_options("PortableRunner"), *more)

    def _serve(self, delay: float) -> None:
        self.server.reset()
        for path, content in self._contents.items():
            self.server.files[path] = Reply(body=content, delay=delay)

    def fetched(self) -> Counter[str]:
        """The number of requests for each image."""
        return Counter(request.path for request in list(self.server.requests))

    def check(self, job: FinishedJob) -> None:
        """Checks that the output has every input row exactly once and nothing else."""
        assert job.code == 0 and job.succeeded
        rows = {"input": self.count, "predicted": self.count, "failed": 0, "skipped": 0}
        assert job.manifest["rows"] == rows
        assert job.table.sort_by("ref_id").equals(self.expected.table.sort_by("ref_id"))
        there = {str(path.relative_to(job.output)) for path in job.output.rglob("*") if path.is_file()}
        assert there == {"_MANIFEST.json", "_SUCCESS", *(file["name"] for file in job.manifest["files"])}


@dataclass(frozen=True)
class Outcome:
    """The cost of a kill.

    Attributes:
      victim: One of VICTIMS.
      moment: The share of the images that had been fetched.
      restarts: The number of failures that Flink recorded.
      units_again, images_again: The number of units with an image that was fetched more than once, and of such images.
      seconds: The time from the kill to the end of the launcher.
    """

    victim: str
    moment: int
    restarts: int
    units_again: int
    images_again: int
    rows: int
    seconds: float


def run_and_kill(job: KillJob, cluster: FlinkCluster, output: Path, victim: str, moment: float) -> Outcome:
    """Runs the job, kills ``victim`` once a share ``moment`` of the images has been fetched, and checks the rows.

    Above 1, the kill comes after all fetches, during the rest of the units or the commit.
    """
    before = cluster.jobs()
    launcher = job.launch(cluster, output)
    flink_job = cluster.wait_for_job(before)
    wanted = max(1, min(job.count, round(moment * job.count)))
    try:
        wait_for(lambda: len(job.server.requests) >= wanted, 120, f"{wanted} images fetched")
        name = random.Random(moment).choice(cluster.names)
        seen = kill(cluster, name, victim, job)
        killed_at = time.monotonic()
        launched: Launched = launcher.wait()
    except BaseException:
        launcher.interrupt(signal.SIGKILL)
        raise
    assert launched.finished.code == 0, launched.stderr
    job.check(launched.finished)
    again = {path: times for path, times in job.fetched().items() if times > 1}
    return Outcome(
        victim,
        seen,
        cluster.restarts(flink_job),
        len({job.paths.index(path) // UNIT_ROWS for path in again}),
        sum(times - 1 for times in again.values()),
        launched.finished.table.num_rows,
        time.monotonic() - killed_at,
    )


def kill(cluster: FlinkCluster, name: str, victim: str, job: KillJob) -> int:
    """Sends SIGKILL, restarts a killed TaskManager like a pod, and returns the images fetched so far."""
    workers = cluster.workers(name)
    seen = len(job.server.requests)
    if victim != TASK_MANAGER:
        for worker in workers:
            os.kill(worker, signal.SIGKILL)
    if victim != WORKER:
        cluster.kill_task_manager(name)
        cluster.start_task_manager(name)
    return seen
