"""A classic template that Beam's own Dataflow client writes to a GCS server for the service.

The staged package then runs the staged graph, like a worker without other files of beamlabel.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from apache_beam.portability.api import beam_runner_api_pb2
from google.cloud.dataflow_v1beta3.types import FlexResourceSchedulingGoal, Job

from support.gcs_server import Bucket, GcsServer
from support.google_cloud import google_cloud
from support.graphs import STEPS, fused, names
from support.jobs import TINY, photos
from support.paths import ROOT
from support.servers import FileServer

T4 = "type:nvidia-tesla-t4;count:1;install-nvidia-driver"
BEAM_OPTIONS = (
    "--runner=DataflowRunner", "--project=a-project-1", "--region=us-central1",
    f"--resource_hints=accelerator={T4}", "--resource_hints=min_ram=8GB",
    f"--dataflow_service_options=worker_accelerator={T4}", "--machine_type=n1-standard-4",
    "--num_workers=2", "--max_num_workers=20", "--autoscaling_algorithm=THROUGHPUT_BASED",
    "--number_of_worker_harness_threads=2", "--experiments=no_use_multiple_sdk_containers",
    "--flexrs_goal=COST_OPTIMIZED", "--label=team=photos",
)  # fmt: skip
WORKER = """
import json, sys
from pathlib import Path
import beamlabel, beamlabel.pipeline, beamlabel.transforms
from apache_beam.coders.coder_impl import create_InputStream
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.portability import python_urns
from apache_beam.portability.api import beam_runner_api_pb2
from apache_beam.runners.pipeline_context import PipelineContext
from apache_beam.runners.portability.fn_api_runner import FnApiRunner, execution

graph = beam_runner_api_pb2.Pipeline.FromString(Path(sys.argv[1]).read_bytes())
components = graph.components
for environment in components.environments.values():
    environment.urn, environment.payload = python_urns.EMBEDDED_PYTHON, b""
    del environment.dependencies[:]
coders = PipelineContext(components).coders
# The elements of the two shuffles; their keys are random numbers in the one, and one text in the other.
of_units, of_records = (
    coders.get_by_id(components.pcollections[next(iter(transform.inputs.values()))].coder_id).value_coder()
    for transform in sorted(components.transforms.values(), key=lambda t: t.unique_name, reverse=True)
    if transform.spec.urn == "beam:transform:group_by_key:v1"
)

def leaves(value):
    if isinstance(value, tuple):
        return [leaf for item in value for leaf in leaves(item)]
    return [f"{type(value).__module__}.{type(value).__qualname__}"]

shuffled = []
append = execution.GroupingBuffer.append
def append_and_note(self, data):
    stream, coder = create_InputStream(data), self._pre_grouped_coder.get_impl()
    while stream.size() > 0:
        key, value = coder.decode_from_stream(stream, True).value
        shuffled.append(leaves((of_units if isinstance(key, int) else of_records).decode(value)))
    append(self, data)
execution.GroupingBuffer.append = append_and_note

result = FnApiRunner().run_via_runner_api(graph, PipelineOptions())
json.dump({"state": result.wait_until_finish(), "shuffled": shuffled,
           "packages": [beamlabel.__file__, beamlabel.pipeline.__file__, beamlabel.transforms.__file__]}, sys.stdout)
"""


@dataclass(frozen=True)
class Built:
    """The results of the launcher: its exit and every object of the bucket."""

    code: int
    told: str
    bucket: Bucket
    objects: dict[str, bytes]
    environment: dict[str, str]

    @property
    def output(self) -> str:
        return self.bucket.uri("labels")

    def staged(self, name: str) -> bytes:
        (found,) = [n for n in self.objects if n.startswith("temp/") and n.endswith("/" + name)]
        return self.objects[found]

    @property
    def job(self) -> Job:
        return Job.from_json(self.objects["templates/label.json"].decode(), ignore_unknown_fields=False)

    @property
    def graph(self) -> beam_runner_api_pb2.Pipeline:
        return beam_runner_api_pb2.Pipeline.FromString(self.staged("pipeline.pb"))

    def run(self, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
        environment = {**self.environment, **more}
        return subprocess.run(
            [sys.executable, *words], cwd=ROOT, env=environment, capture_output=True, text=True
        )

    def publish(self) -> subprocess.CompletedProcess[str]:
        return self.run("-m", "beamlabel", "publish", self.output)


@pytest.fixture(scope="module")
def built(
    gcs_server: GcsServer, file_server: FileServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Built]:
    directory = tmp_path_factory.mktemp("template")
    bucket = Bucket(gcs_server, "a-bucket")
    uris = [bucket.put(f"photos/{p.name}", p.read_bytes()) for p in photos(directory / "photos", 6)]
    bucket.put("in.txt", "\n".join([*uris, bucket.uri("photos/missing.png")]).encode())
    environment = google_cloud(directory, gcs_server, file_server)
    yield launched(
        Built(-1, "", bucket, {}, environment), "-m", "beamlabel", *BEAM_OPTIONS, "--shard_rows=3",
        f"--template_location={bucket.uri('templates/label.json')}", "--setup_file=./setup.py",
    )  # fmt: skip
    file_server.reset()


def launched(by: Built, *words: str, output: str = "labels") -> Built:
    """The results of a launch with ``words`` plus input, module and output."""
    before = set(by.bucket.list())
    done = by.run(
        *words, f"--input={by.bucket.uri('in.txt')}", f"--module={TINY}", f"--output={by.bucket.uri(output)}",
        "--max_error_rate=1", f"--temp_location={by.bucket.uri('temp')}",
    )  # fmt: skip
    objects = {name: by.bucket.get(name) for name in by.bucket.list() if name not in before}
    return Built(done.returncode, done.stderr, by.bucket, objects, by.environment)


def test_the_launcher_names_the_submitted_job_and_publishes_nothing(built: Built) -> None:
    assert built.code == 0, built.told
    template = built.bucket.uri("templates/label.json")
    assert f"--template_location: {template} holds the job" in built.told
    assert f"beamlabel publish {built.output}" in built.told
    left = {name.rpartition("/")[2] for name in built.objects if name.startswith("labels/")}
    assert left == {"job.json", "module.beamlabel"}, (
        "the artifact lies beside the output, and no run is committed"
    )
    assert all("/_beamlabel/staging/" in name for name in built.objects if name.startswith("labels/"))


def test_the_job_names_the_staged_files(built: Built) -> None:
    environment = built.job.environment
    options = dict(environment.sdk_pipeline_options["options"])
    assert options["pipelineUrl"].startswith(built.bucket.uri("temp/"))
    assert options["pipelineProtoHash"] == hashlib.sha256(built.staged("pipeline.pb")).hexdigest()
    packages = {package.name for package in environment.worker_pools[0].packages}
    assert packages == {"workflow.tar.gz", "submission_environment_dependencies.txt"}
    assert "beamlabel" in built.job.name


def test_the_options_are_there(built: Built) -> None:
    job = built.job
    (pool,) = job.environment.worker_pools
    assert pool.machine_type == "n1-standard-4"
    assert (pool.num_workers, pool.autoscaling_settings.max_num_workers) == (2, 20)
    assert pool.num_threads_per_worker == 2
    assert list(job.environment.service_options) == [f"worker_accelerator={T4}"]
    experiments = set(job.environment.experiments)
    assert {"use_runner_v2", "no_use_multiple_sdk_containers"} <= experiments
    assert "use_multiple_sdk_containers" not in experiments
    assert job.environment.flex_resource_scheduling_goal == FlexResourceSchedulingGoal.FLEXRS_COST_OPTIMIZED
    assert dict(job.labels) == {"team": "photos"}
    assert dict(job.environment.sdk_pipeline_options["options"])["region"] == "us-central1"


def test_the_graph_has_its_steps(built: Built) -> None:
    steps = {
        transform.unique_name.partition("/")[0] for transform in built.graph.components.transforms.values()
    }
    wanted = {"PlanUnits", "Reshuffle", "OpenUnit", "Label", "WriteUnit", "UnitRecords", "Commit"}
    assert wanted <= steps
    urns = {t.unique_name: t.spec.urn for t in built.graph.components.transforms.values()}
    assert sorted(name for name, urn in urns.items() if urn == "beam:transform:group_by_key:v1") == [
        "Commit/Gather",
        "Reshuffle/ReshufflePerKey/GroupByKey",
    ]


def test_the_hints_hold_for_every_step_and_split_none(built: Built) -> None:
    components = built.graph.components
    used = {t.environment_id for t in components.transforms.values() if t.environment_id}
    assert len(used) == 1, "Beam does not fuse across environments"
    hints = dict(components.environments[used.pop()].resource_hints)
    assert hints == {
        "beam:resources:accelerator:v1": T4.encode(),
        "beam:resources:min_ram_bytes:v1": b"8000000000",
    }
    (stage,) = [stage for stage in fused(built.graph) if any(step in names(stage) for step in STEPS)]
    for step in STEPS:
        assert step in names(stage), step


def test_the_package_holds_exactly_the_imports_of_a_worker(built: Built) -> None:
    with tarfile.open(fileobj=io.BytesIO(built.staged("workflow.tar.gz"))) as tar:
        members = [member.name.split("/", 1)[1] for member in tar.getmembers() if "/" in member.name]
    directories = {name.partition("/")[0] for name in members if "/" in name}
    assert directories == {"beamlabel", "beamlabel.egg-info"}
    alone = {name for name in members if "/" not in name} - directories
    described = {"LICENSE", "MANIFEST.in", "NOTICE", "PKG-INFO", "README.md"}
    assert alone == described | {"pyproject.toml", "setup.cfg", "setup.py"}
    sources = {
        f"beamlabel/{path.relative_to(ROOT)}"
        for name in ("pipeline", "transforms")
        for path in (ROOT / name).rglob("*.*")
        if path.suffix != ".pyc"
    } | {f"beamlabel/{name}" for name in ("__init__.py", "__main__.py", "py.typed")}
    assert sources == {name for name in members if name.startswith("beamlabel/") and "." in name}


@dataclass(frozen=True)
class Ran:
    """The results of the staged package with the staged graph, and of ``publish`` before and after it."""

    before: subprocess.CompletedProcess[str]
    result: dict
    after: subprocess.CompletedProcess[str]
    packages: Path


@pytest.fixture(scope="module")
def ran(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    before = built.publish()
    directory = tmp_path_factory.mktemp("worker")
    package, graph, packages = (
        directory / "workflow.tar.gz",
        directory / "pipeline.pb",
        directory / "packages",
    )
    package.write_bytes(built.staged("workflow.tar.gz"))
    graph.write_bytes(built.staged("pipeline.pb"))
    # Like the worker's boot program, except for the dependencies, which are installed here.
    installed = built.run(
        "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--target", str(packages), str(package)
    )  # fmt: skip
    assert installed.returncode == 0, installed.stderr
    offline = built.environment["PYTHONPATH"].partition(os.pathsep)[0]
    (directory / "worker.py").write_text(WORKER)
    done = subprocess.run(
        [sys.executable, str(directory / "worker.py"), str(graph)],
        cwd=directory,
        env={**built.environment, "PYTHONPATH": os.pathsep.join([offline, str(packages)])},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return Ran(before, json.loads(done.stdout), built.publish(), packages)


def test_nothing_is_published_before_the_job_ran(ran: Ran) -> None:
    assert ran.before.returncode == 75
    assert "nothing is committed yet" in ran.before.stderr


def test_the_staged_package_runs_the_staged_graph(ran: Ran, built: Built) -> None:
    assert all(file.startswith(str(ran.packages)) for file in ran.result["packages"])
    assert ran.result["state"] == "DONE"
    assert ran.after.returncode == 0, ran.after.stderr
    assert "7 input = 6 predicted + 1 failed + 0 skipped" in ran.after.stderr
    shards = [name for name in built.bucket.list("labels/part-") if name.endswith(".parquet")]
    rows = [row for name in shards for row in pq.read_table(io.BytesIO(built.bucket.get(name))).to_pylist()]
    assert len(rows) == 6
    assert built.bucket.list("labels/_beamlabel") == []


def test_nothing_but_units_crosses_a_shuffle(ran: Ran) -> None:
    carried = {leaf for leaves in ran.result["shuffled"] for leaf in leaves}
    ours = {name for name in carried if name.startswith("beamlabel.")}
    assert ours == {"beamlabel.transforms.records.WorkUnit", "beamlabel.transforms.records.UnitRecord"}
    assert carried - ours <= {"builtins.NoneType", "apache_beam.utils.timestamp.Timestamp",
                              "apache_beam.utils.windowed_value.PaneInfo"}  # fmt: skip


def test_the_flex_templates_launcher_leaves_a_job_for_google_to_start(built: Built) -> None:
    """As Google's launcher calls it: parameters in its syntax, and the path for the job object."""
    image = "us-central1-docker.pkg.dev/a-project-1/beamlabel/worker:1"
    location = built.bucket.uri("staging/template_launches/1/job_object")
    flex = launched(
        built, "deploy/dataflow/launch.py", "--project=a-project-1", "--region=us-central1",
        f"--template_location={location}", f"--staging_location={built.bucket.uri('staging')}",
        "--job_name=beamlabel-flex", '--labels={"team": "photos"}', f"--sdk_container_image={image}",
        "--no_embeddings=true", "--normalize_embeddings=false", "--limit=", "--machine_type=e2-standard-4",
        output="flex",
    )  # fmt: skip
    assert flex.code == 0, flex.told
    assert f"beamlabel publish {built.bucket.uri('flex')}" in flex.told
    job = Job.from_json(
        flex.objects["staging/template_launches/1/job_object"].decode(), ignore_unknown_fields=False
    )
    assert (job.name, dict(job.labels)) == ("beamlabel-flex", {"team": "photos"})
    (pool,) = job.environment.worker_pools
    assert (pool.worker_harness_container_image, pool.machine_type) == (image, "e2-standard-4")
    assert {package.name for package in pool.packages} == {"submission_environment_dependencies.txt"}
    (facts,) = [json.loads(data) for name, data in flex.objects.items() if name.endswith("/job.json")]
    assert facts["manifest"]["options"]["no_embeddings"] is True
