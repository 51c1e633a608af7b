"""A local run in real worker processes: results, deaths, signals, and leftovers."""

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import needs
from support.jobs import TINY, FinishedJob, label, photos, uri_list
from support.paths import ROOT
from support.runner_jobs import shards
from support.staged import staged_files

if not Path("/proc/self/stat").exists():
    needs.lacking("no /proc")

IMAGES = 4000


@pytest.fixture(scope="module")
def uris(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("images")
    return uri_list(
        directory / "list.txt", [str(path) for path in photos(directory / "photos", 40)] * (IMAGES // 40)
    )


def children(pid: int) -> list[int]:
    """The ids of a process's live children, without the process that loads modules.

    The tests keep that process for later uses.
    """
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
            loads_modules = b"module_process/child.py" in stat.with_name("cmdline").read_bytes()
        except OSError:
            continue
        if int(parent) == pid and state not in "ZX" and not loads_modules:
            found.append(int(stat.parent.name))
    return sorted(found)


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


class Launched:
    """The job in its own process group with two worker processes."""

    def __init__(self, directory: Path, uris: Path, *more: object) -> None:
        self.directory, self.output, self.scratch = directory, directory / "out", directory / "tmp"
        self.scratch.mkdir()
        arguments = [
            "--module",
            TINY,
            "--input",
            uris,
            "--output",
            self.output,
            "--worker_processes",
            2,
            *more,
        ]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "beamlabel", *map(str, arguments)],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT, start_new_session=True,
            env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(self.scratch)},
        )  # fmt: skip

    def wait_for_units(self) -> list[int]:
        """The workers' process ids once they have staged a file."""
        while not staged_files(self.directory, "units/*"):
            assert self.process.poll() is None, self.process.communicate()[0]
            time.sleep(0.01)
        return children(self.process.pid)

    def end(self) -> tuple[FinishedJob, str]:
        log, _ = self.process.communicate(timeout=120)
        return FinishedJob(self.process.returncode, self.output), log


@pytest.fixture
def launched(tmp_path, uris) -> Iterator[Launched]:
    launched = Launched(tmp_path, uris)
    yield launched
    launched.process.kill()
    launched.process.communicate()


def test_one_that_is_killed_costs_no_row(launched, uris):
    workers = launched.wait_for_units()
    assert len(workers) == 2
    os.kill(workers[0], signal.SIGKILL)
    job, log = launched.end()
    assert job.code == 0, log
    assert job.manifest["rows"] == {"input": IMAGES, "predicted": IMAGES, "failed": 0, "skipped": 0}
    assert job.manifest["conserved"]
    assert job.table["uri"].to_pylist() == uris.read_text().splitlines()
    assert "was killed by SIGKILL" in log and "Traceback" not in log, log
    assert all(map(is_gone, workers))
    assert not [*launched.scratch.iterdir()]


def test_without_any_the_run_ends_and_is_resumed(launched, uris, tmp_path):
    for worker in launched.wait_for_units():
        os.kill(worker, signal.SIGKILL)
    job, log = launched.end()
    assert job.code == 3, log
    assert "no worker process is left" in log, log
    assert not job.output.exists()
    resumed = label(launched.output, "--input", uris, "--if_exists", "resume", "--worker_processes", 1)
    assert resumed.code == 0
    assert resumed.manifest["resumed_units"] > 0
    whole = label(tmp_path / "whole", "--input", uris)
    assert shards(resumed) == shards(whole)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_to_all_of_the_group(number, launched):
    workers = launched.wait_for_units()
    os.killpg(launched.process.pid, number)
    job, log = launched.end()
    assert job.code == 128 + number, log
    assert f"Cancelled by {number.name}" in log
    assert "Traceback" not in log and not re.search(r"worker process \d", log), log
    assert all(map(is_gone, workers))
    assert not [*launched.scratch.iterdir()]
    assert not [*launched.directory.glob("_beamlabel*/lock")]


def test_they_end_with_a_launcher_that_is_killed(launched):
    workers = launched.wait_for_units()
    assert len(workers) == 2
    launched.process.kill()
    # They poll for the end of a process that is not their child, so the delay is unknown.
    deadline = time.monotonic() + 60
    while not all(map(is_gone, workers)):
        assert time.monotonic() < deadline, workers
        time.sleep(0.01)


def test_an_error_of_the_job_is_shown_once(tmp_path, uris):
    launched = Launched(tmp_path, uris)
    try:
        launched.wait_for_units()
        for directory in tmp_path.glob("_beamlabel*/**/units"):
            directory.rename(directory.with_name("moved"))
            directory.write_text("no directory")
        job, log = launched.end()
    finally:
        launched.process.kill()
    assert job.code == 3, log
    message = next(line for line in log.splitlines() if "The job failed" in line)
    assert "Error: [Errno" in message and "WriteUnit" in message
    assert log.count("_RemoteError:") == 1, log


def test_it_is_for_this_machine(tmp_path, uris, capsys):
    for more in (("--runner", "PrismRunner"), ("--direct_running_mode", "multi_processing")):
        assert label(tmp_path / "out", "--input", uris, "--worker_processes", 2, *more).code == 2
        assert "--worker_processes 2" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_more_processes_than_units(tmp_path):
    """In a library call whose imports a worker process must find."""
    uris = uri_list(tmp_path / "list.txt", photos(tmp_path / "photos", 3))
    before = {*Path(tempfile.gettempdir()).iterdir()}
    others = children(os.getpid())
    job = label(tmp_path / "out", "--input", uris, "--worker_processes", 3)
    assert job.code == 0
    assert len(job.rows) == 3
    assert set(children(os.getpid())) <= set(others)
    assert not [path for path in {*Path(tempfile.gettempdir()).iterdir()} - before if "workers" in path.name]
