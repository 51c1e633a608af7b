"""The same job with every kind of input on every local runner: the same rows, failures and shards."""

import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from apache_beam.runners.portability.prism_runner import PrismJobServer

from beamlabel.pipeline.runners.choose import choose
from support import needs
from support.flink_cluster import FlinkCluster, label_on_flink
from support.jobs import TINY, label, photos, uri_list
from support.runner_jobs import (
    OPTIONS,
    PRISM,
    ROOT,
    UNITS,
    MixedInput,
    Run,
    assert_conserved,
    assert_same_result,
    mixed_input,
    model_loads,
    run_command,
)
from support.servers import FileServer, Reply

MULTI_THREADING = ("--direct_running_mode", "multi_threading", "--direct_num_workers", 2)
MULTI_PROCESSING = ("--direct_running_mode", "multi_processing", "--direct_num_workers", 2)


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> MixedInput:
    return mixed_input(tmp_path_factory.mktemp("given"))


@pytest.fixture(scope="module")
def expected(given: MixedInput, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The result of Beam's in-memory runner."""
    job = run_command(tmp_path_factory.mktemp("expected") / "out", "--input", *given.inputs, *OPTIONS)
    assert job.code == 0, job.log
    return job


@pytest.fixture(scope="module")
def prism() -> tuple[str, ...]:
    if not PRISM.exists():
        needs.lacking("no Prism; tools/setup_prism.sh builds it if Go is installed")
    return ("--runner", "PrismRunner", "--prism_location", str(PRISM))


def test_in_memory(expected: Run, given: MixedInput) -> None:
    assert_conserved(expected, given)
    assert expected.manifest["units"] == UNITS
    assert model_loads(expected) == 1


@pytest.mark.parametrize(("mode", "processes"), [(MULTI_THREADING, 1), (MULTI_PROCESSING, 2)])
def test_local_workers(
    mode: tuple[object, ...], processes: int, expected: Run, given: MixedInput, tmp_path: Path
) -> None:
    job = run_command(tmp_path / "out", "--input", *given.inputs, *OPTIONS, *mode)
    assert job.code == 0, job.log
    assert_conserved(job, given)
    assert_same_result(job, expected)
    assert model_loads(job) == processes


def test_worker_processes(expected: Run, given: MixedInput, tmp_path: Path) -> None:
    """The job's own processes request units, so a fast one may leave none for the other."""
    job = run_command(tmp_path / "out", "--input", *given.inputs, *OPTIONS, "--worker_processes", 2)
    assert job.code == 0, job.log
    assert_conserved(job, given)
    assert_same_result(job, expected)
    assert model_loads(job) in (1, 2)
    assert "Traceback" not in job.log, job.log


def test_prism(expected: Run, given: MixedInput, prism: tuple[str, ...], tmp_path: Path) -> None:
    job = run_command(tmp_path / "out", "--input", *given.inputs, *OPTIONS, *prism)
    assert job.code == 0, job.log
    assert_conserved(job, given)
    assert_same_result(job, expected)
    assert model_loads(job) == 1
    assert "WARNING" not in job.log and "Traceback" not in job.log, job.log


def test_flink(expected: Run, given: MixedInput, flink_cluster: FlinkCluster, tmp_path: Path) -> None:
    """With two TaskManagers, each of which starts one worker."""
    launched = label_on_flink(flink_cluster, tmp_path / "out", "--input", *given.inputs, *OPTIONS)
    job = launched.finished
    assert job.code == 0, launched.stderr
    assert_conserved(job, given)
    assert_same_result(job, expected)
    assert model_loads(job) == 2


def test_prism_that_beam_downloaded(prism: tuple[str, ...], tmp_path: Path) -> None:
    """Plain ``--runner PrismRunner``, with the release's archive where Beam's download puts it."""
    source = Path(urlsplit(PrismJobServer(choose([]).options).path_to_binary()).path).stem
    cache = tmp_path / "home" / ".apache_beam" / "cache" / "prism" / "bin"
    cache.mkdir(parents=True)
    with zipfile.ZipFile(cache / f"{source}.zip", "w") as archive:
        archive.write(PRISM, source)
    uris = uri_list(tmp_path / "list.txt", photos(tmp_path / "photos", 3))
    env = {"HOME": str(tmp_path / "home"), "BEAMLABEL_CACHE": os.environ["BEAMLABEL_CACHE"]}
    arguments = ("--input", uris, "--module", TINY, "--runner", "PrismRunner")
    job = run_command(tmp_path / "out", *arguments, env=env)
    assert job.code == 0, job.log
    assert len(job.rows) == 3


def test_tfrecords(given: MixedInput, prism: tuple[str, ...], tmp_path: Path) -> None:
    tfrecord = ("--input", *given.inputs, *OPTIONS, "--output_format", "tfrecord")
    here = run_command(tmp_path / "here", *tfrecord)
    there = run_command(tmp_path / "there", *tfrecord, *prism)
    assert (here.code, there.code) == (0, 0), here.log + there.log
    assert_conserved(there, given)
    assert_same_result(there, here)


def test_a_library_call_leaves_no_job_server(prism: tuple[str, ...], tmp_path: Path) -> None:
    """Beam would stop it when Python ends, which may be days later in a user's process."""
    if not Path("/proc/self/stat").exists():
        needs.lacking("no /proc")
    uris = uri_list(tmp_path / "list.txt", photos(tmp_path / "photos", 3))
    assert label(tmp_path / "out", "--input", uris, *prism).code == 0
    assert not [command for command in in_session(os.getsid(0)) if command.startswith(str(PRISM))]


def in_session(session: int) -> Iterator[str]:
    """The command lines of a session's live processes."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, found = stat.read_text().rpartition(")")[2].split()[:4]
            command = (stat.parent / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if int(found) == session and state not in "ZX":
            yield command


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_cancelled_job_on_prism(
    number: signal.Signals, prism: tuple[str, ...], http_server: FileServer, tmp_path: Path
) -> None:
    """The signal goes to all processes of the group, like Ctrl-C on a terminal."""
    if not Path("/proc/self/stat").exists():
        needs.lacking("no /proc")
    content = photos(tmp_path / "photos", 1)[0].read_bytes()
    http_server.files["/quick.png"] = content
    http_server.files["/slow.png"] = Reply(body=content, delay=20)
    uris = [http_server.url_of(path) for path in ("/quick.png", "/slow.png")]
    arguments = ["--input", uri_list(tmp_path / "list.txt", uris), "--module", TINY, "--output", tmp_path / "out",
                 "--allow_http", "--allow_private_hosts", "--shard_rows", 1, *prism]  # fmt: skip
    launcher = subprocess.Popen(
        [sys.executable, "-m", "beamlabel", *map(str, arguments)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT, start_new_session=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    try:
        while not http_server.count("/slow.png"):
            assert launcher.poll() is None, launcher.communicate()[0]
            time.sleep(0.05)
        assert any(command.startswith(str(PRISM)) for command in in_session(launcher.pid))
        os.killpg(launcher.pid, number)
        log, _ = launcher.communicate(timeout=60)
        assert launcher.returncode == 128 + number
        assert "The job is CANCELLED" in log and f"Cancelled by {number.name}" in log, log
        assert "Traceback" not in log, log
        assert not [*in_session(launcher.pid)]
        assert not (tmp_path / "out" / "_MANIFEST.json").exists()
    finally:
        launcher.kill()
