"""Beam without its connectors, for runs on this machine alone."""

import json
import subprocess
import sys

import pytest

CONNECTORS = ("apitools", "google.auth", "google.cloud.storage", "pandas")


def imported(code):
    """Which modules there are in a new process after this code, in which Beam was not imported before."""
    prefix = "import json, sys; from beamlabel.pipeline.runners.import_beam import import_beam\n"
    suffix = "\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", prefix + code + suffix], capture_output=True, text=True, check=True
    )
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_a_local_run_does_without_connectors():
    modules = imported("import_beam(['--direct_num_workers=2'])")
    assert "apache_beam" in modules
    assert not modules & set(CONNECTORS)


@pytest.mark.parametrize("runner", [["--runner", "FlinkRunner"], ["--runner=DataflowRunner"]])
def test_other_runners_get_all_of_beam(runner):
    modules = imported(f"import_beam({runner!r})")
    assert {"apache_beam", "apitools", "google.cloud.storage"} <= modules


def test_what_was_left_out_can_be_imported_afterwards():
    modules = imported("import_beam([])\nimport pandas, google.auth, google.cloud.storage")
    assert {"pandas", "google.auth", "google.cloud.storage"} <= modules
