"""The storages for the contract tests of ``storage``."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.places import ALL, DiskDirectory, FileUris, LocalDirectory, Place


def _place(kind: str, request: pytest.FixtureRequest) -> Place:
    if kind in ("emulator", "fake-gcs-server"):
        return request.getfixturevalue("gcs" if kind == "emulator" else "fake_gcs")
    if kind in ("s3", "azure"):
        return request.getfixturevalue(kind)
    # Not tmp_path itself, which other users cannot enter.
    directory = Path(
        request.getfixturevalue("open_directory"), "a directory #1 %20 é" if kind == "file" else "directory"
    )
    directory.mkdir(mode=0o755)
    if kind == "beam-refusing":
        return DiskDirectory(directory, refuses=True)
    return {"local": LocalDirectory, "file": FileUris, "beam": DiskDirectory}[kind](directory)


@pytest.fixture(params=ALL)
def place(request: pytest.FixtureRequest) -> Place:
    """Each storage, empty. A test may select some: ``parametrize("place", ATOMIC, indirect=True)``."""
    return _place(request.param, request)


@pytest.fixture
def as_nobody() -> Iterator[None]:
    """Switches to another user during the test, since root can read everything."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    yield
    os.seteuid(0)
