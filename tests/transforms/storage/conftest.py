"""The storages on which the contract of ``storage`` is checked."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.places import ALL, DiskFolder, FileUris, LocalFolder, Place


def _place(kind: str, request: pytest.FixtureRequest) -> Place:
    if kind in ("emulator", "fake-gcs-server"):
        return request.getfixturevalue("gcs" if kind == "emulator" else "fake_gcs")
    if kind in ("s3", "azure"):
        return request.getfixturevalue(kind)
    # Not tmp_path itself, which is closed to others.
    folder = Path(request.getfixturevalue("open_folder"), "a folder #1 %20 é" if kind == "file" else "folder")
    folder.mkdir(mode=0o755)
    if kind == "beam-refusing":
        return DiskFolder(folder, refuses=True)
    return {"local": LocalFolder, "file": FileUris, "beam": DiskFolder}[kind](folder)


@pytest.fixture(params=ALL)
def place(request: pytest.FixtureRequest) -> Place:
    """Each of the storages, empty. A test of fewer says which: ``parametrize("place", ATOMIC, indirect=True)``."""
    return _place(request.param, request)


@pytest.fixture
def as_nobody() -> Iterator[None]:
    """Root may read everything: be somebody else while the test runs."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    yield
    os.seteuid(0)
