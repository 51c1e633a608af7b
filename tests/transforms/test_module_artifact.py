"""The place of the compiled module: local on this machine, otherwise below the pipeline's ``temp_location``."""

import hashlib
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.testing.util import assert_that, equal_to

from beamlabel import LabelImages, ModelHandler
from beamlabel.transforms import storage
from beamlabel.transforms.inference.artifact import ModuleError
from beamlabel.transforms.module_artifact import artifact_of, has_local_workers, staged
from support.gcs_server import Bucket
from support.jobs import TINY, photos
from support.paths import ROOT
from support.read_only import contents, with_read_only

POOL = "--environment_options=external_service_address=pool:1"


def pipeline(*options: str) -> beam.Pipeline:
    return beam.Pipeline(options=PipelineOptions(list(options)))


@pytest.mark.parametrize(
    ("options", "local"),
    [
        ([], True),
        (["--runner=DirectRunner", "--direct_running_mode=multi_processing"], True),
        (["--runner=apache_beam.runners.portability.fn_api_runner.FnApiRunner"], True),
        (["--runner=PrismRunner"], True),
        (["--runner=PrismRunner", "--environment_type=DOCKER"], False),
        (["--runner=FlinkRunner"], True),
        (["--runner=FlinkRunner", "--flink_master=flink:8081"], False),
        (["--runner=FlinkRunner", "--flink_master=flink:8081", "--environment_type=LOOPBACK"], True),
        (["--runner=PortableRunner", "--job_endpoint=jobs:8099"], False),
        (["--runner=PortableRunner", "--job_endpoint=jobs:8099", "--environment_type=loopback"], True),
        (
            [
                "--runner=PortableRunner",
                "--job_endpoint=jobs:8099",
                "--environment_type=EXTERNAL",
                "--environment_options=external_service_address=pool:1",
            ],
            False,
        ),
    ],
    ids=lambda value: " ".join(value) or "none" if isinstance(value, list) else "",
)
def test_which_workers_see_the_files_of_this_machine(options, local, tmp_path):
    artifact = artifact_of(TINY)
    made = pipeline(*options)
    assert has_local_workers(made) is local
    if local:
        assert staged(artifact, made, None) == artifact.path
    else:
        with pytest.raises(ValueError, match=r"temp_location.*artifact_dir"):
            staged(artifact, made, None)
    for path in (
        staged(artifact, made, str(tmp_path)),
        staged(artifact, pipeline(*options, f"--temp_location={tmp_path}"), None),
    ):
        assert storage.read_bytes(path) == Path(artifact.path).read_bytes()
        assert artifact.sha256 in path or local


def test_a_cache_that_may_only_be_read_is_used_as_it_is(tmp_path, monkeypatch):
    monkeypatch.setenv("BEAMLABEL_CACHE", str(tmp_path / "cache"))
    artifact = artifact_of(TINY)
    code = (
        "import sys; from beamlabel.transforms.module_artifact import artifact_of\n"
        "print(artifact_of(sys.argv[1]).sha256)\n"
        "try: artifact_of(sys.argv[1], features_output='none')\n"
        "except ValueError as error: print(error)"
    )
    before = contents(tmp_path / "cache")
    argv = [*with_read_only(tmp_path / "cache"), sys.executable, "-c", code, TINY]
    said = subprocess.run(argv, capture_output=True, text=True, check=True, cwd=ROOT).stdout.splitlines()
    assert said[0] == artifact.sha256
    assert "BEAMLABEL_CACHE" in said[1]
    assert contents(tmp_path / "cache") == before


@pytest.mark.parametrize(
    ("name", "value"), [("module_deadline", 0), ("module_deadline", -1.0), ("module_memory", 0)]
)
def test_limits_of_the_process_that_make_no_sense(name, value):
    with pytest.raises(ValueError, match=name):
        artifact_of(TINY, **{name: value})


def test_dataflow_reads_buckets_only(gcs: Bucket, tmp_path):
    dataflow = pytest.importorskip("apache_beam.runners.dataflow.dataflow_runner")
    # A whole pipeline would ask Google for credentials.
    options = PipelineOptions([f"--temp_location={tmp_path}"])
    made: Any = SimpleNamespace(runner=dataflow.DataflowRunner(), options=options)
    artifact = artifact_of(TINY)
    assert not has_local_workers(made)
    with pytest.raises(ValueError, match=r"artifact_dir.*gs://"):
        staged(artifact, made, None)
    assert staged(artifact, made, gcs.uri("models")).startswith("gs://")


def test_it_is_copied_once_and_opened_from_a_bucket(gcs: Bucket, tmp_path):
    (path,) = photos(tmp_path, 1)
    directory = gcs.uri("models")
    for _ in range(2):
        with beam.Pipeline(runner=FnApiRunner()) as p:
            labeled = p | beam.Create([str(path)]) | LabelImages(TINY, artifact_dir=directory)
            assert_that(labeled.predictions | beam.Map(lambda row: row.uri), equal_to([str(path)]))
    (found,) = storage.match(f"{directory}/**")
    content = storage.read_bytes(found.path)
    assert hashlib.sha256(content).hexdigest() in found.path
    assert found.path.endswith(".beamlabel")


def test_an_artifact_is_a_module_too(gcs: Bucket, tmp_path):
    handler = ModelHandler(TINY)
    remote = gcs.uri("models/v1.beamlabel")
    handler.save_artifact(remote)
    local = tmp_path / "v1.beamlabel"
    handler.save_artifact(str(local))
    assert artifact_of(remote).spec == artifact_of(local).spec == artifact_of(TINY).spec
    local.write_bytes(local.read_bytes()[:-1])
    with pytest.raises(ModuleError, match=r"module.*v1\.beamlabel"):
        artifact_of(local)


def test_a_directory_that_cannot_be_written_is_reported():
    with pytest.raises(ValueError, match=r"artifact_dir '/proc/none'"):
        ModelHandler(TINY, artifact_dir="/proc/none")


def test_a_warm_cache_needs_no_tensorflow(tmp_path):
    artifact_of(TINY)
    code = (
        f"import sys; from beamlabel import LabelImages, ModelHandler; LabelImages({str(TINY)!r}); "
        f"ModelHandler({str(TINY)!r}); assert 'tensorflow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
