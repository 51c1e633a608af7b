"""Jobs on Flink with an injected fault, and their outcomes; for tests and ``benchmarks/flink_faults.py``."""

from __future__ import annotations

import os
import re
import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from support.faults_on_flink import HANGS, FaultyReferences
from support.flink_cluster import FlinkCluster, Launcher, wait_for
from support.jobs import TINY, FinishedJob, label, uri_list
from support.servers import FileServer

UNIT_ROWS = 20
_DELAY = 0.1
_THREADS = 8
_GONE_SECONDS = 30.0
# Generous, for busy machines.
_SUBMIT_SECONDS, _LAUNCHER_SECONDS = 400.0, 600.0
# Two at most end by themselves, so a fault that a resume does not overcome is one.
_RESUMES = 3


@dataclass(frozen=True)
class Found:
    """The errors in an output; a correct output has zeros and empty lists.

    Attributes:
      lost: References with neither a row nor a failure.
      doubled: Rows and failures beyond the first of a reference.
      wrong: References with a row instead of a failure, a failure instead of a row, or another reason.
      unequal: Rows and failures that differ in any bit from those of a run in this process.
      left: Files that are not part of the result.
    """

    lost: int = 0
    doubled: int = 0
    wrong: int = 0
    unequal: int = 0
    left: tuple[str, ...] = ()


class FaultJob:
    """A job over references of which 20 % are faulty, and the expected result from a run in this process.

    Args:
      directory: The directory for the inputs and for the run in this process.
      server: The server of the images.
      photos: The images.
      count: The number of references.
      module: The module's handle.
      hanging: An image for which the module never ends; two references name it.
    """

    def __init__(
        self,
        directory: Path,
        server: FileServer,
        photos: Sequence[Path],
        count: int,
        module: str = TINY,
        hanging: bytes | None = None,
    ) -> None:
        self.references = FaultyReferences(server, photos, count, hanging)
        self.count = count
        directory.mkdir(parents=True, exist_ok=True)
        uris = uri_list(directory / "in.txt", self.references.uris)
        self.arguments = (
            "--input", uris, "--module", module, "--shard_rows", UNIT_ROWS, "--allow_http",
            "--allow_private_hosts", "--load_threads", _THREADS, "--max_error_rate", 0.3,
        )  # fmt: skip
        # A run in this process would hang on this image.
        self.references.serve(hanging=False)
        self.expected = label(directory / "expected" / "out", *self.arguments, module=module)
        assert self.expected.code == 0
        assert self.found(self.expected) == Found(wrong=self.references.reasons.count(HANGS))

    def launch(self, cluster: FlinkCluster, output: str | Path, *more: object) -> Launcher:
        """Starts the job on a cluster."""
        return Launcher(output, *self.arguments, *cluster.runner_options("PortableRunner"), *more)

    def share(self) -> float:
        """The share of the images that has been requested since ``serve``."""
        return self.references.asked() / self.references.served

    def found(self, job: FinishedJob) -> Found:
        """Checks a result and the files beside it."""
        outcomes: Counter[int] = Counter()
        wrong = set()
        said = [(row["ref_id"], None) for row in job.rows]
        for ref_id, reason in [*said, *((one["ref_id"], one["reason"]) for one in job.failures)]:
            number = _number(ref_id)
            outcomes[number] += 1
            if reason != self.references.reasons[number]:
                wrong.add(number)
        return Found(
            lost=sum(number not in outcomes for number in range(self.count)),
            doubled=sum(times - 1 for times in outcomes.values()),
            wrong=len(wrong),
            unequal=self._unequal(job),
            left=left_files(job),
        )

    def _unequal(self, job: FinishedJob) -> int:
        ours, theirs = (one.table.sort_by("ref_id") for one in (job, self.expected))
        unequal = 0 if ours.equals(theirs) else _different(ours.to_pylist(), theirs.to_pylist())
        ours, theirs = (sorted(map(repr, self._comparable(one.failures))) for one in (job, self.expected))
        return unequal + (0 if ours == theirs else len({*ours} ^ {*theirs}))

    def _comparable(self, failures: list[dict]) -> list[dict]:
        """Drops the images that hang, since they failed for another reason in the run in this process."""
        return [one for one in failures if self.references.reasons[_number(one["ref_id"])] != HANGS]


def _number(ref_id: str) -> int:
    return int(ref_id.rpartition("#")[2])


def _different(ours: list[dict], theirs: list[dict]) -> int:
    """The number of rows that differ; at least one, since the tables differ."""
    by_id = {row["ref_id"]: repr(row) for row in theirs}
    return max(1, sum(by_id.get(row["ref_id"]) != repr(row) for row in ours))


def left_files(job: FinishedJob) -> tuple[str, ...]:
    """The files beside the result in an output's directory: staging, locks, and files that no manifest names."""
    named = {file["name"] for file in job.manifest["files"]} | {"_MANIFEST.json", "_SUCCESS"}
    expected = {str(Path(job.output.name, name)) for name in named}
    beside = job.output.parent
    return tuple(
        sorted(
            str(path.relative_to(beside))
            for path in beside.rglob("*")
            if str(path.relative_to(beside)) not in expected and not _holds_expected(path, beside, expected)
        )
    )


def _holds_expected(path: Path, beside: Path, expected: set[str]) -> bool:
    name = str(path.relative_to(beside))
    return path.is_dir() and any(one.startswith(f"{name}/") for one in expected)


# --- processes ----------------------------------------------------------------------------------------


def left_processes(cluster: FlinkCluster) -> list[int]:
    """Processes that the cluster started for a job and that outlive it."""
    with suppress(TimeoutError):
        wait_for(lambda: not cluster.left_processes(), _GONE_SECONDS, "no process left")
    return cluster.left_processes()


def signal_workers(cluster: FlinkCluster, name: str, number: signal.Signals) -> int:
    """Sends a signal to the SDK workers of a TaskManager and returns their number."""
    workers = cluster.workers(name)
    for worker in workers:
        with suppress(ProcessLookupError):
            os.kill(worker, number)
    return len(workers)


# --- runs ---------------------------------------------------------------------------------------------


@dataclass
class Attempt:
    """A run in progress, as the function that injects the fault gets it.

    Attributes:
      repair: Called before the run is resumed.
      happened: How often the fault was injected.
    """

    job: FaultJob
    cluster: FlinkCluster
    launcher: Launcher
    flink_job: str
    output: str | Path
    repair: Callable[[], None] = lambda: None
    happened: int = 0
    restarts: int = field(default=0, init=False)

    def wait_share(self, share: float, seconds: float = 400) -> None:
        """Waits until this share of the images has been requested."""
        self.wait(lambda: self.job.share() >= share, seconds, f"{share:.0%} of the images")

    def wait_restarts(self, number: int, seconds: float = 400) -> None:
        """Waits until Flink has recorded this number of failures."""
        self.wait(lambda: self.cluster.restarts(self.flink_job) >= number, seconds, f"{number} restarts")

    def wait(self, condition: Callable[[], object], seconds: float, what: str) -> None:
        """Waits until the condition holds or the launcher has ended."""
        wait_for(lambda: condition() or self.launcher.process.poll() is not None, seconds, what)


@dataclass(frozen=True)
class Outcome:
    """The outcome of a fault.

    Attributes:
      happened: How often the fault was injected.
      codes: The exit codes of the launchers; those after the first are resumes.
      restarts: The number of failures that Flink recorded in the first run.
      found: See ``Found``.
      processes: The processes that were left.
      seconds: The time from the fault to the end of the last launcher.
      errors: The errors of the launchers that failed.
    """

    happened: int
    codes: tuple[int, ...]
    restarts: int
    found: Found
    processes: tuple[int, ...]
    seconds: float
    errors: tuple[str, ...] = ()

    @property
    def is_good(self) -> bool:
        """Whether the run ended with a correct result and left nothing behind."""
        return self.codes[-1] == 0 and self.found == Found() and not self.processes


def run_with_fault(
    job: FaultJob,
    cluster: FlinkCluster,
    output: str | Path,
    fault: Callable[[Attempt], None],
    *more: object,
    fetch: Callable[[], Path] | None = None,
) -> Outcome:
    """Runs a job, injects a fault, and resumes the job if it failed.

    Args:
      job: The job.
      cluster: The cluster; all its slots are free.
      output: A directory that is alone in its parent directory, or a URI.
      fault: The function that injects the fault; called once Flink has the job.
      more: Further arguments of the job.
      fetch: Downloads a remote output and the files beside it into a local directory.
    """
    cluster.wait_for_slots(len(cluster.names))
    before = cluster.jobs()
    job.references.serve(_DELAY)
    launcher = job.launch(cluster, output, *more)
    try:
        attempt = Attempt(job, cluster, launcher, cluster.wait_for_job(before, _SUBMIT_SECONDS), output)
        fault(attempt)
        begin = time.monotonic()
        ended = [launcher.wait(_LAUNCHER_SECONDS)]
        restarts = cluster.restarts(attempt.flink_job)
        attempt.repair()
        while ended[-1].finished.code and len(ended) <= _RESUMES:
            cluster.wait_for_slots(len(cluster.names))
            launcher = job.launch(cluster, output, *more, "--if_exists", "resume")
            ended.append(launcher.wait(_LAUNCHER_SECONDS))
    except BaseException:
        with suppress(ProcessLookupError):
            launcher.interrupt(signal.SIGKILL)
        raise
    seconds = time.monotonic() - begin
    codes = tuple(one.finished.code for one in ended)
    errors = tuple(last_error(one.stderr) for one in ended if one.finished.code)
    assert codes[-1] == 0, ended[-1].stderr[-3000:]
    processes = left_processes(cluster)
    result = FinishedJob(0, fetch() if fetch else Path(output))
    return Outcome(attempt.happened, codes, restarts, job.found(result), tuple(processes), seconds, errors)


def last_error(stderr: str) -> str:
    """The last error line of a launcher."""
    lines = re.findall(r"^.*(?:ERROR|beamlabel: error).*$", stderr, re.MULTILINE)
    return lines[-1] if lines else stderr[-500:]
