"""Fixtures that many test files share.

There is one server of each kind for the session. Each test gets it empty, with its counts at zero.
"""

from __future__ import annotations

import os
import signal
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadFileScheduling

import beamlabel.transforms.units.open_unit
import beamlabel.transforms.writing.write_unit
import support.flink_cluster as flink
from beamlabel.transforms.records import UnitRecord, WorkUnit
from support.fake_gcs import FakeBucket, FakeGcsServer
from support.gcs_proxy import GcsProxy
from support.gcs_server import Bucket, GcsServer
from support.http_site import Site, serving
from support.jobs import FinishedJob, label
from support.module_children import kept_children
from support.paths import ROOT
from support.servers import FileServer

# A shell starts its background processes with SIGINT ignored. Every process that the tests interrupt would inherit
# that.
signal.signal(signal.SIGINT, signal.default_int_handler)


class WorkerGoneError(Exception):
    """Raised at the point where a worker is killed."""


@pytest.fixture(scope="session")
def gcs_server() -> Iterator[GcsServer]:
    """The GCS server of the session; tests use ``gcs``."""
    server = GcsServer()
    yield server
    server.close()


@pytest.fixture
def gcs(gcs_server: GcsServer, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """A fresh bucket on a GCS server; ``STORAGE_EMULATOR_HOST`` names the server while the test runs."""
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs_server.url)
    return Bucket(gcs_server, f"bucket-{uuid.uuid4().hex[:12]}")


@pytest.fixture(scope="session")
def fake_gcs_server() -> Iterator[FakeGcsServer]:
    """The fake-gcs-server of the session; tests use ``fake_gcs``."""
    server = FakeGcsServer()
    yield server
    server.close()


@pytest.fixture
def fake_gcs(fake_gcs_server: FakeGcsServer, monkeypatch: pytest.MonkeyPatch) -> FakeBucket:
    """Like ``gcs``, but on a third-party server that neither counts requests nor injects faults."""
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", fake_gcs_server.url)
    return FakeBucket(fake_gcs_server, f"bucket-{uuid.uuid4().hex[:12]}")


@pytest.fixture(scope="session")
def fake_gcs_proxy(fake_gcs_server: FakeGcsServer) -> Iterator[GcsProxy]:
    """A proxy in front of the session's fake-gcs-server; tests use ``gs``."""
    proxy = GcsProxy(fake_gcs_server.address)
    yield proxy
    proxy.close()


@pytest.fixture(params=["emulator", "fake-gcs-server"])
def gs(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Bucket | FakeBucket:
    """A fresh bucket on each GCS server; its ``server`` counts requests and injects faults."""
    if request.param == "emulator":
        return request.getfixturevalue("gcs")
    proxy: GcsProxy = request.getfixturevalue("fake_gcs_proxy")
    proxy.forget()
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", proxy.url)
    name = f"bucket-{uuid.uuid4().hex[:12]}"
    return FakeBucket(request.getfixturevalue("fake_gcs_server"), name, proxy)


@pytest.fixture(scope="session")
def s3_server() -> Iterator[Any]:
    """The S3 server of the session; tests use ``s3``."""
    from support.s3_server import S3Server

    server = S3Server()
    yield server
    server.close()


@pytest.fixture
def s3(s3_server: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A fresh bucket on an S3 server; ``AWS_ENDPOINT_URL_S3`` names the server while the test runs."""
    from support.s3_server import KEYS, S3Bucket

    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", s3_server.url)
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    return S3Bucket(s3_server, f"bucket-{uuid.uuid4().hex[:12]}")


@pytest.fixture(scope="session")
def azurite() -> Iterator[Any]:
    """The Azure Blob Storage server of the session; tests use ``azure``."""
    from support.azurite import Azurite

    server = Azurite()
    yield server
    server.close()


@pytest.fixture
def azure(azurite: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A fresh container; ``AZURE_STORAGE_CONNECTION_STRING`` names its server while the test runs."""
    from support.azurite import AzureContainer

    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", azurite.connection)
    return AzureContainer(azurite, f"container-{uuid.uuid4().hex[:12]}")


@pytest.fixture(scope="session")
def file_server() -> Iterator[FileServer]:
    """The HTTP server of the session; tests use ``http_server``."""
    server = FileServer()
    yield server
    server.close()


@pytest.fixture
def http_server(file_server: FileServer) -> FileServer:
    """An HTTP server without files; the test fills ``files``."""
    file_server.reset()
    return file_server


@pytest.fixture
def http_site() -> Iterator[Site]:
    """An HTTP server whose answers the test sets."""
    with serving() as site:
        yield site


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """A temporary directory that other users may read; ``tmp_path`` is closed to them."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Sets ``BEAMLABEL_CACHE`` to a directory of the session, so that tests never use the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BEAMLABEL_CACHE", str(tmp_path_factory.mktemp("cache")))
        # Rows hold the start time of their run, so without this no two runs would write equal bytes.
        patch.setenv("SOURCE_DATE_EPOCH", "1700000000")
        yield


@pytest.fixture(scope="session", autouse=True)
def module_children() -> Iterator[None]:
    """Keeps the process that loads modules for the next test: importing TensorFlow takes seconds."""
    with kept_children():
        yield


@pytest.fixture(scope="session")
def flink_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[flink.FlinkCluster]:
    """The Flink cluster of the session; tests use ``flink_cluster``."""
    with flink.cluster(tmp_path_factory.mktemp("flink")) as cluster:
        yield cluster


@pytest.fixture
def flink_cluster(
    flink_session: flink.FlinkCluster, request: pytest.FixtureRequest
) -> Iterator[flink.FlinkCluster]:
    """A Flink cluster with two free slots, one per TaskManager; its logs are shown if the test fails."""
    flink_session.wait_for_slots(len(flink_session.names))
    failed_before = request.session.testsfailed
    yield flink_session
    if request.session.testsfailed > failed_before:
        for name in ("jobmanager", "jobserver", *flink_session.names):
            print(f"--- {name}\n{flink_session.log(name)[-4000:]}")
    for job in flink_session.running_jobs():
        flink_session.cancel(job)


@pytest.fixture
def cut_off(monkeypatch: pytest.MonkeyPatch) -> Callable[..., FinishedJob]:
    """Runs a job whose worker is killed before it records its third unit."""

    def run(*arguments: Any, job: Callable[..., FinishedJob] = label, **options: Any) -> FinishedJob:
        real, staged = beamlabel.transforms.writing.write_unit.stage_record, []

        def stage_record(record: UnitRecord, staging_dir: str) -> UnitRecord:
            if len(staged) == 2:
                raise WorkerGoneError
            staged.append(record)
            return real(record, staging_dir)

        with monkeypatch.context() as patch:
            patch.setattr(beamlabel.transforms.writing.write_unit, "stage_record", stage_record)
            return job(*arguments, **options)

    return run


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[WorkUnit]:
    """The units that are opened during the test."""
    real, units = beamlabel.transforms.units.open_unit.open_unit, list[WorkUnit]()

    def open_unit(unit: WorkUnit, *arguments: Any) -> Any:
        units.append(unit)
        return real(unit, *arguments)

    monkeypatch.setattr(beamlabel.transforms.units.open_unit, "open_unit", open_unit)
    return units


# Files whose tests need Flink. One process runs them all, and first, so that one cluster serves them.
_WITH_FLINK = (
    "test_flink.py",
    "test_flink_faults.py",
    "test_flink_kills.py",
    "test_flink_pool.py",
    "test_pipelines_docs.py",
    "test_runners.py",
)


# Directories and files whose tests start programs, clusters or browsers, compile modules, or send many requests to
# servers. `-m "not slow"` leaves them out; the other tests take some minutes.
_SLOW = (
    "tests/pipeline/commands",
    "tests/pipeline/demo",
    "tests/pipeline/fine_tune/test_fine_tune.py",
    "tests/pipeline/output",
    "tests/pipeline/report",
    "tests/pipeline/runners",
    "tests/project",
    "tests/pipeline/options/test_cli.py",
    "tests/pipeline/job/test_archives.py",
    "tests/pipeline/job/test_faults.py",
    "tests/pipeline/job/test_incremental.py",
    "tests/pipeline/job/test_inference_timeout.py",
    "tests/pipeline/job/test_job_fake_gcs.py",
    "tests/pipeline/job/test_job_gcs.py",
    "tests/pipeline/job/test_job_azure.py",
    "tests/pipeline/job/test_job_s3.py",
    "tests/pipeline/job/test_kept_values.py",
    "tests/pipeline/job/test_progress.py",
    "tests/pipeline/job/test_relabeled_nights.py",
    "tests/pipeline/job/test_resume.py",
    "tests/pipeline/job/test_soak.py",
    "tests/transforms/decoding/test_fidelity.py",
    "tests/transforms/inputs/parquet/test_attacks.py",
    "tests/transforms/module",
    "tests/transforms/test_beam_yaml.py",
    "tests/transforms/test_dataframes.py",
    "tests/transforms/test_interactive.py",
    "tests/transforms/storage",
    "tests/transforms/test_cross_language.py",
    "tests/transforms/loading/test_http_fetch.py",
    "tests/transforms/loading/test_http_manners.py",
    "tests/transforms/loading/test_load_faults.py",
    "tests/transforms/worker/test_memory.py",
    "tests/transforms/worker/test_versions.py",
    "tests/transforms/writing/test_writer_faults.py",
)


@pytest.hookimpl(tryfirst=True)  # before pytest applies -m
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not os.environ.get("BEAMLABEL_TESTS_LONG"):
        items[:] = [item for item in items if item.get_closest_marker("long") is None]
    for item in items:
        if str(item.path.relative_to(ROOT)).startswith(_SLOW):
            item.add_marker(pytest.mark.slow)
    items.sort(key=lambda item: item.path.name not in _WITH_FLINK)


class _ByFile(LoadFileScheduling):
    """Runs all tests of a file in one process."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return "flink" if file.rpartition("/")[2] in _WITH_FLINK else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> _ByFile:
    return _ByFile(config, log)
