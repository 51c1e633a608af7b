"""The missing requirements of a Dataflow job are reported before the submission."""

import importlib.util
import sys
from pathlib import Path

import pytest
from apache_beam.options.pipeline_options import SetupOptions

from beamlabel.pipeline.errors import UsageError
from beamlabel.pipeline.runners.check_runner import check_runner
from beamlabel.pipeline.runners.choose import choose, prepare_options
from support.gcs_server import Bucket

IMAGE = "--sdk_container_image=registry.example/beamlabel:1"


@pytest.fixture
def cloud(gcs: Bucket) -> list[str]:
    """All options that a Dataflow job requires, except its image."""
    return [
        "--runner=DataflowRunner",
        "--project=a-project-1",
        "--region=us-central1",
        f"--temp_location={gcs.uri('temp')}",
    ]


def check(*arguments: str, **paths: object) -> None:
    given = {"output": "gs://b/out", "inputs": ("gs://b/in.txt",), **paths}
    check_runner(choose(arguments), **given)


def refusal(*arguments: str, **paths: object) -> str:
    with pytest.raises(UsageError) as caught:
        check(*arguments, **paths)
    return str(caught.value)


def test_nothing_is_missing(cloud: list[str], gcs: Bucket) -> None:
    check(*cloud, IMAGE)
    check(*cloud, IMAGE, f"--staging_location={gcs.uri('staging')}", f"--template_location={gcs.uri('t/j')}")
    assert gcs.server.count("POST") == 4
    assert gcs.list() == [], "the trial object is deleted"


@pytest.mark.parametrize("missing", ["--project", "--region", "--temp_location"])
def test_an_option_is_missing(missing: str, cloud: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CLOUDSDK_COMPUTE_REGION", raising=False)
    left = [argument for argument in cloud if not argument.startswith(missing)]
    assert f"needs {missing}" in refusal(*left, IMAGE)


def test_beamlabel_is_missing(cloud: list[str], tmp_path: Path) -> None:
    assert "--sdk_container_image" in refusal(*cloud)
    assert "--setup_file './there/setup.py'" in refusal(*cloud, "--setup_file=./there/setup.py")
    (tmp_path / "setup.py").touch()
    check(*cloud, f"--setup_file={tmp_path}/setup.py")


def test_no_local_directory(cloud: list[str]) -> None:
    assert "--output '/out'" in refusal(*cloud, IMAGE, output="/out")
    assert "--input '/in.txt'" in refusal(*cloud, IMAGE, inputs=("gs://b/a.txt", "/in.txt"))
    assert "--base_dir 'photos'" in refusal(*cloud, IMAGE, base_dir="photos")
    check(*cloud, IMAGE, base_dir="gs://b/photos")
    assert "--temp_location '/tmp/t'" in refusal(*cloud[:-1], "--temp_location=/tmp/t", IMAGE)
    assert "--template_location 't.json'" in refusal(*cloud, IMAGE, "--template_location=t.json")


@pytest.mark.parametrize(
    ("argument", "told"),
    [
        ("--project=123456", "Project ID (123456)"),
        ("--project=A project", "Project ID (A project)"),
        ("--job_name=My Job", "job_name (My Job)"),
        ("--temp_location=gs://bucket-alone", "'gs://bucket-alone' given for option: temp_location"),
        ("--staging_location=gs://B/s", "(gs://B/s), given for the option: staging_location"),
        ("--num_workers=0", "Invalid value (0) for option: num_workers"),
    ],
)
def test_beams_own_rules(argument: str, told: str, cloud: list[str]) -> None:
    assert told in refusal(*cloud, IMAGE, argument)


def test_options_that_exclude_each_other(cloud: list[str]) -> None:
    told = refusal(*cloud, IMAGE, "--worker_region=us-east1", "--worker_zone=us-east1-b")
    assert "worker_region and worker_zone are mutually exclusive" in told
    assert "num_workers (9) cannot exceed max_num_workers (5)" in refusal(
        *cloud, IMAGE, "--num_workers=9", "--max_num_workers=5"
    )


@pytest.mark.parametrize("option", ["temp_location", "staging_location", "template_location"])
def test_a_bucket_that_is_not_there(option: str, cloud: list[str]) -> None:
    told = refusal(*cloud, IMAGE, f"--{option}=gs://no-such-bucket/x/y")
    assert told.startswith(f"--{option} 'gs://no-such-bucket/x")
    assert "cannot be written" in told


def test_a_bucket_that_may_not_be_written(cloud: list[str], gcs: Bucket) -> None:
    gcs.server.fail_next(1, 403, method="POST")
    assert "--temp_location" in refusal(*cloud, IMAGE)


def test_a_user_without_the_right_to_delete_may_submit(cloud: list[str], gcs: Bucket) -> None:
    gcs.server.fail_next(1, 403, method="DELETE")
    check(*cloud, IMAGE)


@pytest.mark.parametrize(
    "module", ["apache_beam.runners.dataflow.internal.apiclient", "google_auth_httplib2"]
)
def test_beams_client_is_missing(module: str, cloud: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == module else found(name))
    monkeypatch.setitem(sys.modules, module, None)
    told = refusal(*cloud, IMAGE)
    assert "pip install '.[dataflow]'" in told
    assert module.rpartition(".")[2] in told


def test_what_beam_is_told_beyond(cloud: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    runner = choose([*cloud, "--setup_file=setup.py"])
    prepare_options(runner, "20260102T030405Z-0a1b2c")
    setup = runner.options.view_as(SetupOptions)
    assert setup.setup_file == str(tmp_path / "setup.py"), "Beam changes into the directory of this name"
    assert setup.save_main_session is False
    asked = choose([*cloud, "--save_main_session"])
    prepare_options(asked, "20260102T030405Z-0a1b2c")
    assert asked.options.view_as(SetupOptions).save_main_session is True
