"""Jobs on Flink that something happens to, and what came of them; for tests and ``benchmarks/flink_faults.py``."""

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
# For machines that have much else to do.
_SUBMIT_SECONDS, _LAUNCHER_SECONDS = 400.0, 600.0
# Two at most end by themselves, so a fault that a resume does not overcome is one.
_RESUMES = 3


@dataclass(frozen=True)
class Found:
    """What is not as it should be in an output; zeros and nothing are good.

    Attributes:
      lost: references with neither a row nor a failure.
      doubled: rows and failures beyond the first of a reference.
      wrong: references that have a row and should have failed, or the other way round, or that failed for another
        reason.
      unequal: rows and failures that are not, bit for bit, those of a run in this process.
      left: files that are no part of the result.
    """

    lost: int = 0
    doubled: int = 0
    wrong: int = 0
    unequal: int = 0
    left: tuple[str, ...] = ()


class FaultJob:
    """A job of references of which 20 % are faulty, and what a run of it in this process makes of them.

    Args:
      folder: for the inputs, and for the run in this process.
      server: which serves the images.
      photos: the images.
      count: of references.
      module: the handle.
      hanging: an image at which it does not end; two of those are among the references.
    """

    def __init__(
        self,
        folder: Path,
        server: FileServer,
        photos: Sequence[Path],
        count: int,
        module: str = TINY,
        hanging: bytes | None = None,
    ) -> None:
        self.references = FaultyReferences(server, photos, count, hanging)
        self.count = count
        folder.mkdir(parents=True, exist_ok=True)
        uris = uri_list(folder / "in.txt", self.references.uris)
        self.arguments = (
            "--input", uris, "--module", module, "--shard_rows", UNIT_ROWS, "--allow_http",
            "--allow_private_hosts", "--load_threads", _THREADS, "--max_error_rate", 0.3,
        )  # fmt: skip
        # A run in this process would hang with it.
        self.references.serve(hanging=False)
        self.expected = label(folder / "expected" / "out", *self.arguments, module=module)
        assert self.expected.code == 0
        assert self.found(self.expected) == Found(wrong=self.references.reasons.count(HANGS))

    def launch(self, cluster: FlinkCluster, output: str | Path, *more: object) -> Launcher:
        """Starts it on a cluster."""
        return Launcher(output, *self.arguments, *cluster.runner_options("PortableRunner"), *more)

    def share(self) -> float:
        """Which part of the images has been asked for, since they were last served."""
        return self.references.asked() / self.references.served

    def found(self, job: FinishedJob) -> Found:
        """Looks at a result, and at what lies beside it."""
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
        """But those of images that hang, which failed otherwise in the run in this process."""
        return [one for one in failures if self.references.reasons[_number(one["ref_id"])] != HANGS]


def _number(ref_id: str) -> int:
    return int(ref_id.rpartition("#")[2])


def _different(ours: list[dict], theirs: list[dict]) -> int:
    """How many rows differ; at least one, since the tables do."""
    by_id = {row["ref_id"]: repr(row) for row in theirs}
    return max(1, sum(by_id.get(row["ref_id"]) != repr(row) for row in ours))


def left_files(job: FinishedJob) -> tuple[str, ...]:
    """What lies in the folder of an output beside the result: staging, locks, and files that nobody names."""
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
    """Processes that the cluster has started for a job, and that do not end after it."""
    with suppress(TimeoutError):
        wait_for(lambda: not cluster.left_processes(), _GONE_SECONDS, "no process left")
    return cluster.left_processes()


def signal_workers(cluster: FlinkCluster, name: str, number: signal.Signals) -> int:
    """Sends a signal to the SDK workers of a TaskManager; returns how many there were."""
    workers = cluster.workers(name)
    for worker in workers:
        with suppress(ProcessLookupError):
            os.kill(worker, number)
    return len(workers)


# --- runs ---------------------------------------------------------------------------------------------


@dataclass
class Attempt:
    """A run that is on its way, for whoever does something to it.

    Attributes:
      repair: is called before the run is resumed.
      happened: what was done to it, how often.
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
        """Until so much of the images was asked for."""
        self.wait(lambda: self.job.share() >= share, seconds, f"{share:.0%} of the images")

    def wait_restarts(self, number: int, seconds: float = 400) -> None:
        """Until Flink has recorded so many failures."""
        self.wait(lambda: self.cluster.restarts(self.flink_job) >= number, seconds, f"{number} restarts")

    def wait(self, condition: Callable[[], object], seconds: float, what: str) -> None:
        """Until that is so, or the launcher has ended."""
        wait_for(lambda: condition() or self.launcher.process.poll() is not None, seconds, what)


@dataclass(frozen=True)
class Outcome:
    """What came of a fault.

    Attributes:
      happened: how often something was done to the run.
      codes: the exit codes of the launchers; those after the first are resumes.
      restarts: failures that Flink recorded in the first run.
      found: see there.
      processes: those that were left.
      seconds: from the fault to the end of the last launcher.
      errors: what launchers that failed said.
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
        """Whether the run has ended with a right result, and nothing is left of it."""
        return self.codes[-1] == 0 and self.found == Found() and not self.processes


def run_with_fault(
    job: FaultJob,
    cluster: FlinkCluster,
    output: str | Path,
    fault: Callable[[Attempt], None],
    *more: object,
    fetch: Callable[[], Path] | None = None,
) -> Outcome:
    """Runs a job, has something done to it, and resumes it if it has failed.

    Args:
      job: which.
      cluster: where; all slots are free.
      output: a folder of which nothing else is in the folder above, or a URI.
      fault: called when Flink has the job.
      more: arguments of the job.
      fetch: brings a remote output, and what lies beside it, into a local folder.
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
    """The last line in which a launcher says why it fails."""
    lines = re.findall(r"^.*(?:ERROR|beamlabel: error).*$", stderr, re.MULTILINE)
    return lines[-1] if lines else stderr[-500:]
