"""A worker, and a launcher with a warm cache, run without TensorFlow and other launcher-only packages."""

import os
import pickle
import subprocess
import sys

import pytest

from beamlabel.pipeline.output.publish import publish
from support.jobs import TINY, FinishedJob, label, photos, prepared, uri_list
from support.paths import ROOT

# The packages of the extra `launcher`. TFRecords need the last two, which do not need the others.
HEAVY = (
    "tensorflow",
    "tensorflow_hub",
    "tf_keras",
    "keras",
    "tensorflow_serving",
    "tensorboard",
    "pkg_resources",
)
CODER = ("tfx_bsl", "tensorflow_metadata")

BLOCK = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked}:
            raise ImportError(name + " is not on this machine")
sys.meta_path.insert(0, Blocked())
"""
COMMAND = "from beamlabel.pipeline.__main__ import console; console()"
WORKER = """
import pickle
import apache_beam as beam
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from beamlabel.pipeline.job.graph import build
from pathlib import Path
job = pickle.loads(Path(sys.argv[1]).read_bytes())
with beam.Pipeline(runner=FnApiRunner()) as pipeline:
    build(pipeline, job)
"""


def lean(code, *arguments, blocked, cache=None):
    """Runs Python code in a process that cannot import the blocked packages."""
    return subprocess.run(
        [sys.executable, "-c", BLOCK.format(blocked=repr(blocked)) + code, *map(str, arguments)],
        capture_output=True, text=True, timeout=300, cwd=ROOT,
        env=os.environ | ({"BEAMLABEL_CACHE": str(cache)} if cache else {}),
    )  # fmt: skip


def blocked_for(output_format):
    return HEAVY if output_format == "tfrecord" else HEAVY + CODER


def shards(manifest):
    """The content of the shards; names differ between runs, but content must not."""
    return [(file["rows"], file["bytes"], file["sha256"], file["computed_by"]) for file in manifest["files"]]


@pytest.fixture
def uris(tmp_path):
    return uri_list(tmp_path / "list.txt", photos(tmp_path / "photos", 20))


def arguments(uris, output, output_format="parquet"):
    return ["--input", uris, "--module", TINY, "--output", output, "--output_format", output_format]


@pytest.mark.parametrize("output_format", ["parquet", "tfrecord"])
def test_a_worker_needs_nothing_of_the_launchers(tmp_path, uris, output_format):
    normal = label(tmp_path / "normal", "--input", uris, "--output_format", output_format)
    job = prepared(*arguments(uris, tmp_path / "lean", output_format))
    (tmp_path / "job").write_bytes(pickle.dumps(job))
    empty = tmp_path / "no cache"
    done = lean(WORKER, tmp_path / "job", blocked=blocked_for(output_format), cache=empty)
    assert done.returncode == 0, done.stderr
    manifest = publish(job.output, job.staging_dir)
    assert manifest["rows"]["predicted"] == 20
    assert shards(manifest) == shards(normal.manifest)
    # Cached for the host's next worker: the engine's chunk and the hashes.
    left = [path for path in empty.rglob("*") if path.is_file()]
    assert left and all(path.stat().st_size < 1000 for path in left)


@pytest.mark.parametrize("output_format", ["parquet", "tfrecord"])
def test_the_command_with_a_warm_cache(tmp_path, uris, output_format):
    normal = label(tmp_path / "normal", "--input", uris, "--output_format", output_format)
    done = lean(
        COMMAND, *arguments(uris, tmp_path / "lean", output_format), blocked=blocked_for(output_format)
    )
    assert done.returncode == 0, done.stderr
    found = FinishedJob(0, tmp_path / "lean")
    assert found.succeeded
    assert shards(found.manifest) == shards(normal.manifest)


def test_a_cold_cache_names_the_extra(tmp_path, uris, monkeypatch):
    # Another process loads the module; it finds these files before the packages.
    missing = tmp_path / "missing"
    missing.mkdir()
    for name in HEAVY + CODER:
        (missing / f"{name}.py").write_text(f"raise ImportError('{name} is not on this machine')\n")
    monkeypatch.setenv("PYTHONPATH", str(missing))
    done = lean(COMMAND, *arguments(uris, tmp_path / "out"), blocked=HEAVY + CODER, cache=tmp_path / "cold")
    assert done.returncode == 2
    assert "TensorFlow cannot be imported" in done.stderr
    assert "pip install '.[launcher]'" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_tfrecords_without_their_coder_are_refused(tmp_path, uris):
    label(tmp_path / "warm", "--input", uris)
    done = lean(COMMAND, *arguments(uris, tmp_path / "out", "tfrecord"), blocked=HEAVY + CODER)
    assert done.returncode == 2
    assert "--output_format tfrecord" in done.stderr
    assert "pip install --no-deps tfx-bsl" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()
