"""One job on Flink, and what is killed in the middle of it; for the tests and for ``benchmarks/flink_kills.py``."""

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
# A server that takes its time makes a job long enough to be hit in the middle, at no cost of CPU time.
_DELAY = 0.1
_THREADS = 8
_PHOTOS = 50


class KillJob:
    """A job whose images a server counts: how often each is fetched is how often it was begun to be computed.

    Args:
      folder: for the inputs.
      server: which serves the images.
      count: of images.
    """

    def __init__(self, folder: Path, server: FileServer, count: int) -> None:
        self.server = server
        self.count = count
        server.reset()
        contents = [path.read_bytes() for path in photos(folder / "photos", _PHOTOS)]
        self.paths = [f"/{number:05d}.png" for number in range(count)]
        self._contents = {path: contents[number % _PHOTOS] for number, path in enumerate(self.paths)}
        self.uris = uri_list(folder / "in.txt", map(server.url_of, self.paths))
        self.arguments = (
            "--input", self.uris, "--module", TINY, "--shard_rows", UNIT_ROWS, "--allow_http",
            "--allow_private_hosts", "--load_threads", _THREADS,
        )  # fmt: skip
        self._serve(delay=0)
        self.expected = label(folder / "expected", *self.arguments)
        assert self.expected.code == 0

    def launch(self, cluster: FlinkCluster, output: Path, *more: object) -> Launcher:
        self._serve(delay=_DELAY)
        return Launcher(output, *self.arguments, *cluster.runner_options("PortableRunner"), *more)

    def _serve(self, delay: float) -> None:
        self.server.reset()
        for path, content in self._contents.items():
            self.server.files[path] = Reply(body=content, delay=delay)

    def fetched(self) -> Counter[str]:
        """How often each image was asked for."""
        return Counter(request.path for request in list(self.server.requests))

    def check(self, job: FinishedJob) -> None:
        """Every input row exactly once, and nothing else in the output."""
        assert job.code == 0 and job.succeeded
        rows = {"input": self.count, "predicted": self.count, "failed": 0, "skipped": 0}
        assert job.manifest["rows"] == rows
        assert job.table.sort_by("ref_id").equals(self.expected.table.sort_by("ref_id"))
        there = {str(path.relative_to(job.output)) for path in job.output.rglob("*") if path.is_file()}
        assert there == {"_MANIFEST.json", "_SUCCESS", *(file["name"] for file in job.manifest["files"])}


@dataclass(frozen=True)
class Outcome:
    """What a kill cost.

    Attributes:
      victim: one of VICTIMS.
      moment: images that had been fetched, of all.
      restarts: failures that Flink recorded.
      units_again, images_again: units with an image that was fetched more than once, and such images.
      seconds: from the kill to the end of the launcher.
    """

    victim: str
    moment: int
    restarts: int
    units_again: int
    images_again: int
    rows: int
    seconds: float


def run_and_kill(job: KillJob, cluster: FlinkCluster, output: Path, victim: str, moment: float) -> Outcome:
    """Runs the job, kills ``victim`` when a share ``moment`` of the images has been fetched, and checks the rows.

    Above 1, it is killed when all have been fetched and the rest of the units, or the commit, is under way.
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
    """SIGKILL; a TaskManager is then started again, as a pod would be. Returns the images fetched by then."""
    workers = cluster.workers(name)
    seen = len(job.server.requests)
    if victim != TASK_MANAGER:
        for worker in workers:
            os.kill(worker, signal.SIGKILL)
    if victim != WORKER:
        cluster.kill_task_manager(name)
        cluster.start_task_manager(name)
    return seen
