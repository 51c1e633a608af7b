"""Directories that tests read. ``../shared`` is not shipped: tests that need it skip if it is missing."""

from pathlib import Path

TESTS = Path(__file__).parents[1]
ROOT = TESTS.parent
DATA = TESTS / "data"
SHARED = ROOT.parent / "shared"
SHARED_MODULES = SHARED / "modules"
SHARED_CASES = SHARED / "cases"
