"""Fixtures of this directory."""

import pytest


@pytest.fixture
def holder():
    """An object for functions and variables."""
    pytest.importorskip("tensorflow")
    from support.tf_modules import Holder

    return Holder()


@pytest.fixture(scope="session")
def cache_dir(tmp_path_factory):
    """The directory where the modules of these tests are unpacked and compiled."""
    return tmp_path_factory.mktemp("cache")
