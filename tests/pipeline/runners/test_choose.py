"""The choice of the runner, and the missing requirements that each reports before a submission."""

import os
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from apache_beam.runners.portability.prism_runner import PrismJobServer

from beamlabel.pipeline.errors import UsageError
from beamlabel.pipeline.runners.check_runner import check_runner
from beamlabel.pipeline.runners.choose import choose, prepare_options
from support.jobs import label, photos, uri_list


def refusal(*arguments: str, output: str = "gs://b/out", inputs: tuple[str, ...] = ("gs://b/in.txt",)) -> str:
    with pytest.raises(UsageError) as caught:
        check_runner(choose(arguments), output, inputs)
    return str(caught.value)


@pytest.fixture
def listening() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def serving() -> Iterator[str]:
    """The address of a gRPC server."""
    server = grpc.server(ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None)


@pytest.fixture
def silent_port() -> str:
    """An address without a server."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    return f"127.0.0.1:{port}"


@pytest.mark.parametrize(
    "name", [[], ["--runner=DirectRunner"], ["--runner=direct"], ["--runner=FnApiRunner"]]
)
def test_the_local_runner(name: list[str]) -> None:
    runner = choose(name)
    assert runner.is_local
    assert type(runner.make()).__name__ == "FnApiRunner"
    assert not runner.detached


@pytest.mark.parametrize("name", ["FlinkRunner", "PortableRunner", "DataflowRunner"])
def test_a_remote_runner_is_made_by_beam(name: str) -> None:
    runner = choose([f"--runner={name}"])
    assert not runner.is_local
    assert runner.make() == name


@pytest.mark.parametrize("name", ["DirectRunner", "PrismRunner"])
def test_an_option_that_nobody_knows(name: str) -> None:
    with pytest.raises(UsageError, match="--shard_rwos_of_flink is not an option"):
        choose([f"--runner={name}", "--shard_rwos_of_flink=1"])


@pytest.mark.parametrize("hint", ["accelerator", "acelerator=type:nvidia-l4", "min_ram=lots"])
def test_a_hint_that_beam_does_not_know(hint: str) -> None:
    with pytest.raises(UsageError, match=f"--resource_hints: .*{hint.partition('=')[0]}"):
        choose(["--runner=DataflowRunner", "--resource_hints", hint])


def test_options_of_a_job_server_are_its_own() -> None:
    assert choose(["--runner=FlinkRunner", "--object_reuse", "--execution_mode_for_batch=PIPELINED"])


def test_portable_lacks_a_job_server(silent_port: str) -> None:
    assert "needs --job_endpoint" in refusal("--runner=PortableRunner")
    assert f"--job_endpoint '{silent_port}' does not answer" in refusal(
        "--runner=PortableRunner", f"--job_endpoint={silent_port}"
    )
    assert "is not host:port" in refusal("--runner=PortableRunner", "--job_endpoint=localhost")
    assert "is not host:port" in refusal("--runner=PortableRunner", "--job_endpoint=localhost:http")


def test_flink_lacks_java(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, listening: str, serving: str
) -> None:
    monkeypatch.setenv("PATH", os.fspath(tmp_path))
    flink = ["--runner=FlinkRunner", f"--flink_master={listening}", "--environment_type=PROCESS"]
    assert "'java' is not on PATH" in refusal(*flink)
    with_server = [*flink, f"--job_endpoint={serving}"]
    check_runner(choose(with_server), "/out", ["/in.txt"])


def test_flink_lacks_a_cluster(silent_port: str) -> None:
    assert f"--flink_master '{silent_port}' does not answer" in refusal(
        "--runner=FlinkRunner", f"--flink_master={silent_port}"
    )


def test_flink_lacks_its_jar(listening: str) -> None:
    assert "--flink_job_server_jar 'server.jar': there is no such file" in refusal(
        "--runner=FlinkRunner", f"--flink_master=http://{listening}", "--flink_job_server_jar=server.jar"
    )


def test_containers_see_no_local_directory(serving: str) -> None:
    beams_image = ["--runner=PortableRunner", f"--job_endpoint={serving}"]
    assert "which has no beamlabel" in refusal(*beams_image)
    portable = [*beams_image, "--environment_config=registry.example/beamlabel:1"]
    assert "--environment_type DOCKER" in refusal(*portable, output="/out")
    check_runner(choose(portable), "gs://b/out", ["gs://b/in.txt"])
    check_runner(choose([*portable, "--environment_type=EXTERNAL"]), "/out", ["/in.txt"])


def test_prism_cannot_be_downloaded(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, silent_port: str
) -> None:
    monkeypatch.setenv("https_proxy", f"http://{silent_port}")
    monkeypatch.setattr(PrismJobServer, "BIN_CACHE", os.fspath(tmp_path))
    said = refusal("--runner=PrismRunner")
    assert "--prism_location" in said and "Unable to fetch" in said


def test_prism_of_a_server_that_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, listening: str) -> None:
    monkeypatch.setattr(PrismJobServer, "BIN_CACHE", os.fspath(tmp_path))
    check_runner(choose(["--runner=PrismRunner", f"--job_endpoint={listening}"]), "/out", ["/in.txt"])


def test_prism_lacks_its_binary() -> None:
    assert "--prism_location 'prism'" in refusal("--runner=PrismRunner", "--prism_location=prism")


@pytest.mark.parametrize(
    "option",
    [
        "--template_location=gs://b/t.json",
        "--dry_run=True",
        "--output_executable_path=j.jar",
        "--attached_mode",
    ],
)
def test_detached(option: str) -> None:
    assert choose(["--runner=FlinkRunner", option]).detached.startswith(option.split("=")[0])


@pytest.mark.parametrize("value", [["=true"], ["", "True"], ["=false"], ["", "False"], [""]])
@pytest.mark.parametrize("option", ["--attached_mode", "--attachedMode"])
def test_attached_mode_takes_a_value_or_none(option: str, value: list[str]) -> None:
    words = [option + value[0], *value[1:], "--parallelism=2"]
    detached = choose(["--runner=FlinkRunner", *words]).detached
    assert bool(detached) == ("true" not in "".join(value).lower())


def test_a_remote_job_has_a_name() -> None:
    from apache_beam.options.pipeline_options import GoogleCloudOptions

    named, unnamed = choose(["--runner=PrismRunner", "--job_name=mine"]), choose(["--runner=PrismRunner"])
    for runner, name in [(named, "mine"), (unnamed, "beamlabel-20260102t030405z-0a1b2c")]:
        prepare_options(runner, "20260102T030405Z-0a1b2c")
        assert runner.options.view_as(GoogleCloudOptions).job_name == name


def test_the_command_says_it_before_the_run(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    uris = uri_list(tmp_path / "in.txt", photos(tmp_path / "photos", 1))
    job = label(tmp_path / "out", "--input", uris, "--runner", "PortableRunner")
    assert job.code == 2
    assert "needs --job_endpoint" in capfd.readouterr().err
    assert not job.output.exists()
