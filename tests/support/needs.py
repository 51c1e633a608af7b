"""What a test needs that a machine may lack: skipped there, saying so, unless it has to be there."""

import os
from typing import NoReturn

import pytest

# `.ci/run` sets it: a test that is skipped for want of Java, Go or a browser then fails.
REQUIRED = "BEAMLABEL_TESTS_REQUIRE_ALL"


def lacking(reason: str) -> NoReturn:
    """Skips the test, or fails it where all that tests need is required."""
    if os.environ.get(REQUIRED):
        pytest.fail(f"{reason} ({REQUIRED} is set)")
    pytest.skip(reason)
