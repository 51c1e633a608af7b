"""Fixtures of this folder."""

import pytest


@pytest.fixture
def holder():
    """An object to hang functions and variables on."""
    pytest.importorskip("tensorflow")
    from support.tf_modules import Holder

    return Holder()


@pytest.fixture(scope="session")
def cache_dir(tmp_path_factory):
    """Where the modules of these tests are unpacked and compiled."""
    return tmp_path_factory.mktemp("cache")
