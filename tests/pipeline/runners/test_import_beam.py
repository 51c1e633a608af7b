"""Beam without its connectors: only in the command's own process, and only if the run is local."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from support.jobs import TINY, label, photos
from support.paths import ROOT

CONNECTORS = {
    "apitools",
    "google.cloud.bigquery",
    "google.cloud.dataflow",
    "google.cloud.pubsub",
    "pandas",
    "pymongo",
}
LEFT_OUT = (
    "from beamlabel.pipeline.runners.import_beam import leave_out_connectors\nleave_out_connectors({})\n"
)
WHOLE = """
import pandas, google.cloud.bigquery, google.cloud.pubsub, google.cloud.storage
from beamlabel.transforms.storage.beam_setup import filesystems
FileSystems = filesystems()
for path in ("gs://bucket/name", "s3://bucket/name", "azfs://account/container/name"):
    assert FileSystems.get_filesystem(path).scheme() == path.partition(":")[0]
"""
WITH_CONNECTORS = """
from apache_beam.io.gcp import bigquery_tools, pubsub
from apache_beam.typehints import pandas_type_compatibility
from apache_beam.utils import retry
assert bigquery_tools.bigquery and pubsub.pubsub and retry.HttpError
"""


def imported(code: str, *arguments: object) -> set[str]:
    """The modules in a new process after this code; Beam was not imported before."""
    code += "\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True, text=True, timeout=300, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    """A job's arguments; the module's artifact is in the cache, so that TensorFlow is not needed."""
    rows = "".join(f"{path},{place}\n" for place, path in enumerate(photos(tmp_path / "photos", 2)))
    table = tmp_path / "list.csv"
    table.write_text(f"uri,number\n{rows}")
    assert label(tmp_path / "before", "--input", table).code == 0
    # Kept columns are Arrow arrays before Beam is imported.
    return [
        "--input",
        str(table),
        "--keep_columns",
        "number",
        "--module",
        TINY,
        "--output",
        str(tmp_path / "out"),
    ]


def test_a_local_run_does_without_connectors():
    modules = imported(LEFT_OUT.format(["--direct_num_workers=2"]) + "import apache_beam")
    assert "apache_beam" in modules
    assert not modules & CONNECTORS


@pytest.mark.parametrize("runner", [["--runner", "FlinkRunner"], ["--runner=DataflowRunner"]])
def test_other_runners_get_all_of_beam(runner):
    assert imported(LEFT_OUT.format(runner) + "import apache_beam" + WITH_CONNECTORS) >= CONNECTORS


def test_nothing_is_left_out_if_beam_is_already_imported():
    assert imported("import apache_beam\n" + LEFT_OUT.format([]) + "import apache_beam.io" + WITH_CONNECTORS)


def test_what_was_left_out_can_be_imported_afterwards_and_gs_works():
    found = "import importlib.util, inspect\nassert 'class' in inspect.getsource(apache_beam.Pipeline)\n"
    reloaded = (
        "importlib.reload(apache_beam)\nassert apache_beam.__spec__.loader.__class__.__name__[0] != '_'\n"
    )
    assert imported(LEFT_OUT.format([]) + "import apache_beam" + WHOLE + found + reloaded)


def test_other_threads_may_import_hidden_modules(tmp_path):
    """For example, the thread that renews the lock of an output on ``gs://``."""
    (tmp_path / "apache_beam.py").write_text(
        """
import threading
try:
    import bson
except ImportError as error:
    hidden = error.name
thread = threading.Thread(target=__import__, args=("bson",))
thread.start()
thread.join()
"""
    )
    code = f"import sys\nsys.path.insert(0, {str(tmp_path)!r})\n{LEFT_OUT.format([])}import apache_beam\n"
    assert "bson" in imported(code + "assert apache_beam.hidden == 'bson'")


def test_the_command_starts_without_connectors(words):
    """The test checks the imports at the end of the job, since the command's process ends without returning."""
    code = """
from beamlabel.pipeline import __main__, run
def exit_process(code):
    assert code == 0
run.exit_process = exit_process
__main__.console()
"""
    modules = imported(code, *words)
    assert not modules & CONNECTORS
    # Modules that no path here needs are not imported either.
    assert not modules & {"azure.storage.blob", "boto3", "google.cloud.storage", "hdfs"}
    assert not {name for name in modules if name.partition(".")[0] == "tensorflow"}


def test_a_library_call_leaves_python_as_it_was(words):
    code = """
import sys
finders = [*sys.meta_path]
import beamlabel
from beamlabel.pipeline.options.parser import parse
from beamlabel.pipeline.run import run
assert "apache_beam" not in sys.modules
assert run(*parse(sys.argv[1:])) == 0
assert sys.meta_path[: len(finders)] == finders
"""
    assert imported(code + WHOLE + WITH_CONNECTORS, *words)
