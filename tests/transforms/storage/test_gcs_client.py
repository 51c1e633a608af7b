"""The single google-cloud-storage client of a process."""

from __future__ import annotations

import logging
import multiprocessing
import subprocess
import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest

from beamlabel.transforms import storage
from beamlabel.transforms.storage import gcs_client as clients
from support.gcs_server import Bucket


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("gs://bucket/a/b.jpg", ("bucket", "a/b.jpg")),
        ("gs://bucket", ("bucket", "")),
        ("gs://bucket/", ("bucket", "")),
        ("gs://b.example.com/50%20#1?x", ("b.example.com", "50%20#1?x")),
        ("gs://bucket//a", ("bucket", "/a")),
    ],
)
def test_parse(uri: str, expected: tuple[str, str]) -> None:
    assert clients.parse(uri) == expected


@pytest.mark.parametrize("uri", ["gs://", "gs:///a", "gs://*/a", "s3://bucket/a", "bucket/a", "gs:bucket/a"])
def test_parse_of_something_else(uri: str) -> None:
    with pytest.raises(ValueError, match="gs://bucket/name"):
        clients.parse(uri)


def test_importing_is_free() -> None:
    program = (
        "import sys; before = set(sys.modules); import beamlabel.transforms.storage.gcs_client;"
        "print([m for m in set(sys.modules) - before if m.startswith(('google.', 'requests'))])"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_threads_share_one_client(gcs: Bucket) -> None:
    start = threading.Barrier(16)

    def client(_: int) -> int:
        start.wait()
        return id(clients.client())

    with ThreadPoolExecutor(16) as threads:
        assert set(threads.map(client, range(16))) == {id(clients.client())}


def test_connections_are_kept(gcs: Bucket) -> None:
    path = gcs.put("a", b"x" * 1000)
    start = threading.Barrier(48)

    def read(_: int) -> None:
        start.wait()
        for _ in range(4):
            storage.read_bytes(path)

    gcs.server.delay(0.02)
    records: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = records.append  # type: ignore[method-assign]
    logging.getLogger("urllib3.connectionpool").addHandler(handler)
    try:
        with warnings.catch_warnings(), ThreadPoolExecutor(48) as threads:
            warnings.simplefilter("error")
            list(threads.map(read, range(48)))
    finally:
        logging.getLogger("urllib3.connectionpool").removeHandler(handler)
    assert len(gcs.server.requests) == 48 * 4
    assert len({request.connection for request in gcs.server.requests}) <= 48
    assert [record.getMessage() for record in records if record.levelno >= logging.WARNING] == []


def test_another_endpoint_gets_another_client(gcs: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    first = clients.client()
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:9")
    assert clients.client() is not first
    assert clients.client().api_endpoint == "http://127.0.0.1:9"
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs.server.url)
    assert clients.client().api_endpoint == gcs.server.url


def _in_child(path: str, parent: int, answers: object) -> None:
    answers.put((storage.read_bytes(path), id(clients.client()) == parent))  # type: ignore[attr-defined]


def test_a_forked_child_has_a_client_of_its_own(gcs: Bucket) -> None:
    path = gcs.put("a", b"x")
    storage.read_bytes(path)
    fork = multiprocessing.get_context("fork")
    answers = fork.Queue()
    with clients._lock:  # as if another thread were making a client right now
        child = fork.Process(target=_in_child, args=(path, id(clients.client()), answers))
        child.start()
    assert answers.get(timeout=30) == (b"x", False)
    child.join()
    assert storage.read_bytes(path) == b"x"


def test_without_credentials_access_is_anonymous(
    gcs: Bucket, monkeypatch: pytest.MonkeyPatch, tmp_path: object, caplog: pytest.LogCaptureFixture
) -> None:
    path = gcs.put("public.jpg", b"x")
    # The same server, but not as an emulator, since the client never looks for credentials then.
    monkeypatch.delenv("STORAGE_EMULATOR_HOST")
    monkeypatch.setenv("API_ENDPOINT_OVERRIDE", gcs.server.url)
    for name in ("GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_CLOUD_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HOME", "CLOUDSDK_CONFIG"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    for _ in range(3):
        assert storage.read_bytes(path) == b"x"
    assert "Authorization" not in gcs.server.requests[-1].headers
    assert len([record for record in caplog.records if "anonymous" in record.getMessage()]) == 1


def test_the_retry_policy() -> None:
    from beamlabel.transforms.storage.gcs_client import RETRY

    assert RETRY is clients.RETRY
    assert RETRY.timeout == 120
    with pytest.raises(AttributeError, match="NOTHING"):
        _ = clients.NOTHING
