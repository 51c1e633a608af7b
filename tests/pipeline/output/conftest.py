"""Fixtures of this directory."""

import pytest

from support.locks import start_holder


@pytest.fixture
def hold():
    """Starts processes that hold the lock of an output, and kills them at the end."""
    processes = []

    def start(output):
        processes.append(start_holder(output))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.wait()
