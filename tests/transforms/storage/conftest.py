"""The storages on which the contract of ``storage`` is checked."""

from __future__ import annotations

import os
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.fake_gcs import FakeBucket, FakeGcsServer
from support.gcs_proxy import GcsProxy
from support.gcs_server import Bucket
from support.places import ALL, DiskFolder, FileUris, LocalFolder, Place


def _place(kind: str, request: pytest.FixtureRequest) -> Place:
    if kind in ("emulator", "fake-gcs-server"):
        return request.getfixturevalue("gcs" if kind == "emulator" else "fake_gcs")
    # Not tmp_path itself, which is closed to others.
    folder = Path(request.getfixturevalue("open_folder"), "a folder #1 %20 é" if kind == "file" else "folder")
    folder.mkdir(mode=0o755)
    return {"local": LocalFolder, "file": FileUris, "beam": DiskFolder}[kind](folder)


@pytest.fixture(params=ALL)
def place(request: pytest.FixtureRequest) -> Place:
    """Each of the storages, empty. A test of fewer says which: ``parametrize("place", ATOMIC, indirect=True)``."""
    return _place(request.param, request)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A temporary folder that others may read; ``tmp_path`` is all closed to them."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture
def as_nobody() -> Iterator[None]:
    """Root may read everything: be somebody else while the test runs."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    yield
    os.seteuid(0)


@pytest.fixture(scope="session")
def fake_gcs_proxy(fake_gcs_server: FakeGcsServer) -> Iterator[GcsProxy]:
    """A proxy before the fake-gcs-server of the session; tests want ``gs``."""
    proxy = GcsProxy(fake_gcs_server.address)
    yield proxy
    proxy.close()


@pytest.fixture(params=["emulator", "fake-gcs-server"])
def gs(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Bucket | FakeBucket:
    """A fresh bucket on each server, whose ``server`` counts requests, and fails on order."""
    if request.param == "emulator":
        return request.getfixturevalue("gcs")
    proxy: GcsProxy = request.getfixturevalue("fake_gcs_proxy")
    proxy.forget()
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", proxy.url)
    name = f"bucket-{uuid.uuid4().hex[:12]}"
    return FakeBucket(request.getfixturevalue("fake_gcs_server"), name, proxy)
