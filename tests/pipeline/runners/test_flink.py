"""The job on a Flink cluster with two TaskManagers: the same rows, and the effects of ending it early."""

import json
import signal
from pathlib import Path

import numpy as np
import pytest

from beamlabel.pipeline.job.progress import StagingDirectory
from beamlabel.pipeline.runners.choose import choose
from support import needs
from support.flink_cluster import JOB_SERVER_JAR, FlinkCluster, Launcher, free_port, label_on_flink, wait_for
from support.jobs import TINY, FinishedJob, label, photos, uri_list
from support.servers import FileServer, Reply

COUNT, BROKEN = 200, 10
UNIT_ROWS = 10


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``list.txt`` with 200 relative references into ``photos/``, 10 of them broken in five ways."""
    directory = tmp_path_factory.mktemp("flink-images")
    paths = photos(directory / "photos", COUNT)
    for number in range(BROKEN):
        path = paths[number * (COUNT // BROKEN) + 3]
        content = path.read_bytes()
        broken = [b"", b"<html>", content[: len(content) // 2], content[:40], None][number % 5]
        path.unlink() if broken is None else path.write_bytes(broken)
    uri_list(directory / "list.txt", [f"photos/{path.name}" for path in paths])
    return directory


ARGUMENTS = ("--module", TINY, "--shard_rows", UNIT_ROWS, "--max_error_rate", 0.1)


@pytest.fixture(scope="module")
def expected(directory: Path, tmp_path_factory: pytest.TempPathFactory) -> FinishedJob:
    """The result of the in-memory runner."""
    output = tmp_path_factory.mktemp("flink-expected") / "out"
    job = label(output, "--input", directory / "list.txt", "--base_dir", directory, *ARGUMENTS[2:])
    assert job.code == 0
    return job


def check_same(job: FinishedJob, expected: FinishedJob) -> None:
    """Checks equality bit for bit: Arrow's ``equals`` compares floats, and -0.0 or the last bit shows in the bytes."""
    assert job.code == 0 and job.succeeded
    ours, theirs = (found.table.sort_by("ref_id").combine_chunks() for found in (job, expected))
    assert ours.schema.equals(theirs.schema)
    assert ours.equals(theirs)
    for name in ("scores", "embedding"):
        one, other = (np.array(table[name].combine_chunks().flatten()) for table in (ours, theirs))
        assert one.tobytes() == other.tobytes()
    by_row = [sorted(found.failures, key=lambda failure: failure["ref_id"]) for found in (job, expected)]
    assert by_row[0] == by_row[1]
    rows = job.manifest["rows"]
    assert rows == {"input": COUNT, "predicted": COUNT - BROKEN, "failed": BROKEN, "skipped": 0}
    assert job.manifest["conserved"] is True
    assert job.manifest["units"] == COUNT // UNIT_ROWS


def check_both_worked(cluster: FlinkCluster, job: str) -> None:
    read = cluster.records_by_task_manager(job)
    assert len(read) == 2 and all(read.values()), read


def test_relative_paths_mean_the_launch_directory(
    flink_cluster: FlinkCluster, directory: Path, expected: FinishedJob
) -> None:
    """A worker has another working directory without these files, so it would find no images."""
    before = flink_cluster.jobs()
    launched = label_on_flink(flink_cluster, "out", "--input", "list.txt", *ARGUMENTS, cwd=directory)
    assert launched.finished.code == 0, launched.stderr
    check_same(launched.finished, expected)
    assert f"--parallelism {len(flink_cluster.names)}" in launched.stderr
    (job,) = flink_cluster.jobs().keys() - before.keys()
    check_both_worked(flink_cluster, job)


@pytest.mark.long
def test_a_job_server_that_runs_already(
    flink_cluster: FlinkCluster, directory: Path, expected: FinishedJob, tmp_path: Path
) -> None:
    before = flink_cluster.jobs()
    inputs = ("--input", directory / "list.txt", "--base_dir", directory)
    launched = label_on_flink(flink_cluster, tmp_path / "out", *inputs, *ARGUMENTS, runner="PortableRunner")
    assert launched.finished.code == 0, launched.stderr
    check_same(launched.finished, expected)
    (job,) = flink_cluster.jobs().keys() - before.keys()
    check_both_worked(flink_cluster, job)


@pytest.fixture
def slow_images(http_server: FileServer, directory: Path, tmp_path: Path) -> list[object]:
    """Options of a job that takes minutes."""
    photo = (directory / "photos" / "photo 000.png").read_bytes()
    http_server.files["/slow.png"] = Reply(body=photo, delay=1.0)
    uris = uri_list(tmp_path / "slow.txt", [http_server.url_of("/slow.png")] * 400)
    # One by one, so that each image reaches the sink.
    fetching = ("--allow_http", "--allow_private_hosts", "--load_threads", 1, "--batch_size", 1)
    return ["--input", uris, *ARGUMENTS, *fetching]


@pytest.mark.parametrize(
    ("runner", "number"),
    [
        pytest.param("FlinkRunner", signal.SIGINT, marks=pytest.mark.long),
        ("PortableRunner", signal.SIGTERM),
    ],
)
def test_a_signal_cancels_the_job_on_flink(
    runner: str,
    number: signal.Signals,
    flink_cluster: FlinkCluster,
    slow_images: list[object],
    http_server: FileServer,
    tmp_path: Path,
) -> None:
    before = flink_cluster.jobs()
    launcher = Launcher(tmp_path / "out", *slow_images, *flink_cluster.runner_options(runner))
    job = flink_cluster.wait_for_job(before)
    wait_for(lambda: http_server.count("/slow.png"), 60, "a worker at work")
    (staged,) = tmp_path.glob("_beamlabel-*/staging/*")
    progress = StagingDirectory(str(staged))
    wait_for(lambda: progress.look().predicted, 60, "progress, as a bar or a line would show it")
    launcher.interrupt(number)
    launched = launcher.wait(60)
    assert launched.finished.code == 128 + number, launched.stderr
    assert flink_cluster.jobs()[job] == "CANCELED", launched.stderr
    assert not (tmp_path / "out" / "_MANIFEST.json").exists()
    wait_for(lambda: not any(map(flink_cluster.workers, flink_cluster.names)), 60, "workers that are gone")


def test_a_detached_job_is_published_later(
    flink_cluster: FlinkCluster, directory: Path, expected: FinishedJob, tmp_path: Path
) -> None:
    """With only ``--flink_master`` beside the jar; other settings come from the cluster."""
    if not Path(choose_worker()).exists():
        needs.lacking("beamlabel-worker is not installed in this environment")
    before = flink_cluster.jobs()
    output = tmp_path / "out"
    launched = Launcher(
        output, "--input", directory / "list.txt", "--base_dir", directory, *ARGUMENTS,
        "--runner=FlinkRunner", f"--flink_master={flink_cluster.address}",
        f"--flink_job_server_jar={JOB_SERVER_JAR}", "--attached_mode=false",
    ).wait()  # fmt: skip
    assert launched.finished.code == 0, launched.stderr
    assert f"beamlabel publish {output}" in launched.stderr
    assert "--environment_type PROCESS" in launched.stderr
    (job,) = flink_cluster.jobs().keys() - before.keys()
    wait_for(lambda: flink_cluster.jobs()[job] == "FINISHED", 120, "the end of the job")
    assert not (output / "_MANIFEST.json").exists()
    published = Launcher(output, command=("publish", output)).wait()
    assert published.finished.code == 0, published.stderr
    check_same(published.finished, expected)


def choose_worker() -> str:
    from beamlabel.pipeline.runners.flink_defaults import flink_defaults

    typed = ["--runner=PortableRunner", "--environment_type=PROCESS"]
    option, value = flink_defaults(choose(typed), typed)
    assert option == "--environment_config"
    return json.loads(value)["command"]


def test_what_was_typed_stays(flink_cluster: FlinkCluster) -> None:
    from beamlabel.pipeline.runners.flink_defaults import flink_defaults

    def added(*more: str) -> list[str]:
        typed = ["--runner=FlinkRunner", "--flink_master", flink_cluster.address, *more]
        return flink_defaults(choose(typed), typed)

    everything = added()
    assert everything[:4] == ["--parallelism", "2", "--flink_version", "1.19"]
    assert everything[4:7] == ["--environment_type", "PROCESS", "--environment_config"]
    typed = (
        "--parallelism=7",
        "--flink_version=1.20",
        "--environment_type=EXTERNAL",
    )
    assert added(*typed, "--environment_config=localhost:50000") == []
    assert added("--sdk_container_image=registry.example/beamlabel:1")[4:] == []


@pytest.mark.long
def test_mistakes_are_reported_before_the_submission(
    flink_cluster: FlinkCluster, directory: Path, tmp_path: Path
) -> None:
    jobs = flink_cluster.jobs()
    nobody = f"127.0.0.1:{free_port()}"
    inputs = ("--input", directory / "list.txt", "--base_dir", directory, *ARGUMENTS)
    jar = f"--flink_job_server_jar={JOB_SERVER_JAR}"
    flink = ("--runner=FlinkRunner", f"--flink_master={flink_cluster.address}")
    for options, message in [
        (("--runner=FlinkRunner", f"--flink_master={nobody}", jar), f"--flink_master '{nobody}' does not answer"),
        (("--runner=PortableRunner", f"--job_endpoint={nobody}"), f"--job_endpoint '{nobody}' does not answer"),
        (
            ("--runner=PortableRunner", f"--job_endpoint={flink_cluster.address}", "--environment_type=PROCESS"),
            "not a Beam job server",
        ),
        ((*flink, jar, "--environment_type=DOCKER"), "which has no beamlabel"),
        ((*flink, jar, "--environment_type=DOCKER", "--environment_config=i:1"), "--environment_type DOCKER"),
        ((*flink, "--flink_job_server_jar=server.jar"), "there is no such file"),
        ((*flink, jar, "--job_server_java_launcher=jawa"), "'jawa' is not on PATH"),
        (("--runner=FlinkRunner", jar, "--attached_mode"), "--attached_mode needs --flink_master"),
    ]:  # fmt: skip
        launched = Launcher(tmp_path / "out", *inputs, *options).wait(60)
        assert launched.finished.code == 2, launched.stderr
        assert message in launched.stderr
    assert not (tmp_path / "out").exists()
    assert flink_cluster.jobs() == jobs
