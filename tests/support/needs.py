"""Requirements that a machine may lack: a test is then skipped, or fails if they are mandatory."""

import os
from typing import NoReturn

import pytest

# `.ci/run` sets it, so that a test without Java, Go or a browser fails instead of being skipped.
REQUIRED = "BEAMLABEL_TESTS_REQUIRE_ALL"


def lacking(reason: str) -> NoReturn:
    """Skips the test, or fails it if all requirements are mandatory."""
    if os.environ.get(REQUIRED):
        pytest.fail(f"{reason} ({REQUIRED} is set)")
    pytest.skip(reason)
