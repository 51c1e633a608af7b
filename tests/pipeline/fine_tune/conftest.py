"""The tiny module and a task for it, shared by all tests here."""

import pytest

from support.fine_tuning import broken, patterns, unpacked_tiny
from support.jobs import label

pytest.importorskip("tensorflow")


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """The tiny module, unpacked into a directory."""
    return unpacked_tiny(tmp_path_factory.mktemp("modules") / "tiny")


@pytest.fixture(scope="session")
def broken_tiny(tiny, tmp_path_factory):
    """The tiny module without a collection of update ops."""
    return broken(tiny, tmp_path_factory.mktemp("modules") / "broken", "no collection")


@pytest.fixture(scope="session")
def labels(broken_tiny, tmp_path_factory):
    """Labels 240 images of four classes with the broken module."""
    directory = tmp_path_factory.mktemp("patterns")
    job = label(directory / "labels", "--input", patterns(directory / "images", 240), module=broken_tiny)
    assert job.code == 0
    return job.output
