"""Injects faults of many kinds on a Flink cluster with two TaskManagers, each in a separate run.

    python benchmarks/flink_faults.py --module HANDLE [--images 600] [--only NAME,...]

An HTTP server serves real photographs, and every fifth reference has a fault with a known reason. A run that fails is
resumed. Prints a table in Markdown. Ends with 1 if a row was lost, was doubled or differs from that of a run in this
process, or if a file or a process was left. Needs ``tools/setup_flink.sh``, and root for the full disks.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "tests")]

from photos import photographs  # noqa: E402

from support.fault_jobs import Attempt, FaultJob, Outcome, run_with_fault, signal_workers  # noqa: E402
from support.flink_cluster import FlinkCluster, require_flink  # noqa: E402
from support.gcs_server import Bucket, GcsServer  # noqa: E402
from support.hanging_module import HANGING_PHOTO, save_hanging_module  # noqa: E402
from support.servers import FileServer  # noqa: E402
from support.small_disk import SmallDisk  # noqa: E402

_PHOTOS = 100
_AWAY_SECONDS = 10
# For a batch of photographs with the real module, on cores that other programs use too.
_DEADLINE = ("--inference_deadline", "30s")


@dataclass(frozen=True)
class Place:
    """The cluster, the jobs and the storage of the faults.

    Attributes:
      directory: directory of everything on the disk.
      cluster: cluster with two TaskManagers.
      job: job over the usual references.
      hanging: makes the same job with images for which its module never returns.
      disk: small disk of the temporary directory and the cache of ``taskmanager-0``'s workers.
      bucket: bucket for remote outputs.
    """

    directory: Path
    cluster: FlinkCluster
    job: FaultJob
    hanging: Callable[[], FaultJob]
    disk: SmallDisk
    bucket: Bucket

    def run(self, name: str, fault: Callable[[Attempt], None], *more: object) -> Outcome:
        """Runs the usual job into a directory of its own."""
        return run_with_fault(self.job, self.cluster, self.directory / name / "out", fault, *more)


def task_manager_killed(place: Place) -> Outcome:
    """SIGKILL to one TaskManager; it comes back 10 s later"""

    def kill(attempt: Attempt) -> None:
        attempt.wait_share(0.4)
        attempt.cluster.kill_task_manager("taskmanager-1")
        time.sleep(_AWAY_SECONDS)
        attempt.cluster.start_task_manager("taskmanager-1")
        attempt.happened = 1

    return place.run("task_manager_killed", kill)


def workers_killed(place: Place) -> Outcome:
    """SIGKILL to an SDK worker, five times, of one TaskManager and the other in turn"""

    def kill(attempt: Attempt) -> None:
        for number in range(5):
            attempt.wait_share(0.15 * (number + 1))
            name = attempt.cluster.names[number % len(attempt.cluster.names)]
            attempt.wait(
                lambda name=name: attempt.cluster.workers(name), 240, "a worker that was started again"
            )
            attempt.happened += signal_workers(attempt.cluster, name, signal.SIGKILL)
            attempt.wait_restarts(number + 1)

    return place.run("workers_killed", kill)


def staging_full(place: Place) -> Outcome:
    """ENOSPC: the disk of output and staging is full from the middle on; there is room again before the resume"""
    with SmallDisk(place.directory / "staging_full", "64m") as disk:

        def fill(attempt: Attempt) -> None:
            attempt.wait_share(0.3)
            disk.fill()
            attempt.happened = 1
            attempt.repair = disk.empty

        return place.run("staging_full", fill)


def staging_full_for_a_while(place: Place) -> Outcome:
    """ENOSPC: the same disk is full until Flink has restarted the stage three times"""
    with SmallDisk(place.directory / "staging_full_a_while", "64m") as disk:

        def fill(attempt: Attempt) -> None:
            attempt.wait_share(0.3)
            disk.fill()
            attempt.happened = 1
            attempt.wait_restarts(3)
            disk.empty()

        return place.run("staging_full_a_while", fill)


def worker_disk_full(place: Place) -> Outcome:
    """ENOSPC: TMPDIR and cache of one worker of two are full from the middle on, output on gs://; room before resume"""

    def fill(attempt: Attempt) -> None:
        attempt.wait_share(0.3)
        place.disk.fill()
        attempt.happened = 1
        attempt.repair = place.disk.empty

    def fetch() -> Path:
        local = place.directory / "worker_disk_full"
        for name in place.bucket.list(""):
            (local / name).parent.mkdir(parents=True, exist_ok=True)
            (local / name).write_bytes(place.bucket.get(name))
        return local / "out"

    output = place.bucket.uri("out")
    try:
        return run_with_fault(place.job, place.cluster, output, fill, fetch=fetch)
    finally:
        place.disk.empty()


def worker_stopped(place: Place) -> Outcome:
    """SIGSTOP to all SDK workers of a TaskManager, without SIGCONT"""

    def stop(attempt: Attempt) -> None:
        attempt.wait_share(0.4)
        attempt.happened = signal_workers(attempt.cluster, "taskmanager-0", signal.SIGSTOP)

    return place.run("worker_stopped", stop, *_DEADLINE)


def worker_stopped_at_its_start(place: Place) -> Outcome:
    """SIGSTOP to all SDK workers of a TaskManager before they have asked for an image"""

    def stop(attempt: Attempt) -> None:
        attempt.wait(lambda: attempt.cluster.workers("taskmanager-0"), 120, "a worker")
        attempt.happened = signal_workers(attempt.cluster, "taskmanager-0", signal.SIGSTOP)

    return place.run("worker_stopped_at_its_start", stop, *_DEADLINE)


def inference_hangs(place: Place) -> Outcome:
    """A module that does not end for two images, in native code"""

    def nothing(attempt: Attempt) -> None:
        attempt.happened = sum(reason == "inference_timeout" for reason in attempt.job.references.reasons)

    output = place.directory / "inference_hangs" / "out"
    deadline = ("--inference_deadline", "10s")
    return run_with_fault(place.hanging(), place.cluster, output, nothing, *deadline)


def launcher_ended(place: Place) -> Outcome:
    """SIGTERM to the launcher, which cancels the job"""

    def end(attempt: Attempt) -> None:
        attempt.wait_share(0.5)
        attempt.launcher.interrupt(signal.SIGTERM)
        attempt.happened = 1

    return place.run("launcher_ended", end)


def launcher_killed(place: Place) -> Outcome:
    """SIGKILL to the launcher; Flink's job is cancelled by hand before the resume"""

    def end(attempt: Attempt) -> None:
        attempt.wait_share(0.5)
        attempt.launcher.process.kill()
        attempt.happened = 1
        attempt.repair = lambda: [place.cluster.cancel(job) for job in place.cluster.running_jobs()] and None

    return place.run("launcher_killed", end)


FAULTS: tuple[Callable[[Place], Outcome], ...] = (
    task_manager_killed,
    workers_killed,
    staging_full,
    staging_full_for_a_while,
    worker_disk_full,
    worker_stopped,
    worker_stopped_at_its_start,
    inference_hangs,
    launcher_ended,
    launcher_killed,
)


@contextmanager
def prepared(directory: Path, module: str, images: int, cache: Path) -> Iterator[Place]:
    """Starts a cluster, and the servers, jobs and disk of the faults."""
    server, gcs = FileServer(), GcsServer()
    os.environ["STORAGE_EMULATOR_HOST"] = gcs.url
    pictures = photographs(cache, _PHOTOS)

    def hanging() -> FaultJob:
        of_it = directory / "hanging"
        handle = str(save_hanging_module(of_it / "module"))
        return FaultJob(of_it, server, pictures, images, handle, hanging=HANGING_PHOTO)

    with SmallDisk(directory / "worker_disk", "64m") as disk:
        small = {"TMPDIR": str(disk.directory), "BEAMLABEL_CACHE": str(disk.directory / "cache")}
        cluster = FlinkCluster(directory / "cluster", environments={"taskmanager-0": small})
        try:
            job = FaultJob(directory / "job", server, pictures, images, module)
            yield Place(directory, cluster, job, hanging, disk, Bucket(gcs, f"faults-{uuid.uuid4().hex[:8]}"))
        finally:
            cluster.close()
            server.close()
            gcs.close()


def row(fault: Callable[[Place], Outcome], outcome: Outcome, images: int) -> str:
    """Returns a line of the table."""
    found = outcome.found
    left = len(found.left) + len(outcome.processes)
    cells = (
        fault.__doc__, outcome.happened, outcome.restarts, ", ".join(map(str, outcome.codes)), images, found.lost,
        found.doubled, found.wrong, found.unequal, left, f"{outcome.seconds:.0f}",
        "yes" if outcome.is_good else "**no**",
    )  # fmt: skip
    return f"| {' | '.join(map(str, cells))} |"


_COLUMNS = (
    "fault", "times", "restarts", "exit codes", "images", "lost", "doubled", "wrong reason", "not bit-equal", "left",
    "seconds to the end", "good",
)  # fmt: skip
_HEAD = f"| {' | '.join(_COLUMNS)} |\n|{' --- |' * len(_COLUMNS)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--module", required=True, help="handle, directory or .tar.gz")
    parser.add_argument("--images", type=int, default=600, help="images of each run (default 600)")
    parser.add_argument("--only", type=lambda text: text.split(","), default=[], help="names of faults")
    arguments = parser.parse_args()
    named = {fault.__name__: fault for fault in FAULTS}
    if unknown := set(arguments.only) - set(named):
        parser.error(f"--only: unknown faults: {', '.join(sorted(unknown))}; choose from {', '.join(named)}")
    require_flink()
    # The cluster must end with this process.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    chosen = [named[name] for name in arguments.only or named]
    good = True
    with tempfile.TemporaryDirectory(prefix="flink-faults") as name:
        directory = Path(name)
        os.environ["BEAMLABEL_CACHE"] = str(directory / "cache")
        # Otherwise the failures of two runs have different times.
        os.environ["SOURCE_DATE_EPOCH"] = "1700000000"
        lines = [_HEAD]
        with prepared(directory, arguments.module, arguments.images, directory / "cache") as place:
            for fault in chosen:
                try:
                    outcome = fault(place)
                except (AssertionError, OSError, subprocess.SubprocessError):
                    traceback.print_exc()
                    lines.append(f"| {fault.__doc__} | {'- | ' * 10}**no** |")
                    good = False
                    for job in place.cluster.running_jobs():
                        place.cluster.cancel(job)
                    continue
                print(fault.__name__, outcome, file=sys.stderr, flush=True)
                lines.append(row(fault, outcome, arguments.images))
                good &= outcome.is_good
                print(lines[-1], flush=True)
    print("\n".join(lines))
    sys.exit(not good)


if __name__ == "__main__":
    main()
