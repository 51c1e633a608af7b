"""A job's whole life on ``gs://`` with a third-party server: run, kill, resume, skip, verify, and the lock."""

import io
import json
import subprocess
import sys

import pyarrow.parquet as pq
import pytest

from beamlabel.pipeline import layout
from beamlabel.pipeline.output.lock import locked
from beamlabel.pipeline.output.verify import verify
from beamlabel.transforms import storage
from support.jobs import label, photos

IMAGES, UNIT = 12, 3
OPTIONS = ("--shard_rows", UNIT, "--max_error_rate", 1)


@pytest.fixture
def listed(fake_gcs, tmp_path):
    """A list in a bucket of its photographs, one of them broken and one missing."""
    for path in photos(tmp_path / "photos", IMAGES - 1):
        fake_gcs.put(f"in/é/{path.name}", path.read_bytes())
    fake_gcs.put("in/é/photo 004.png", b"no image")
    names = [f"photo {number:03d}.png" for number in range(IMAGES)]
    return fake_gcs.put("in/list.txt", "".join(fake_gcs.uri(f"in/é/{name}\n") for name in names).encode())


@pytest.fixture
def expected(listed, tmp_path):
    """The result of a run into a local directory."""
    output = str(tmp_path / "expected")
    assert label(output, "--input", listed, *OPTIONS).code == 0
    return result(output)


def result(output):
    """Rows and failures without their times."""
    rows, failures = [], []
    for file in manifest(output)["files"]:
        content = storage.read_bytes(storage.join(output, file["name"]))
        if file["kind"] == "data":
            rows += pq.read_table(io.BytesIO(content)).to_pylist()
        else:
            failures += [json.loads(line) for line in content.splitlines()]
    return [{**row, "labeled_at": None} for row in rows], failures


def manifest(output):
    return json.loads(storage.read_bytes(storage.join(output, layout.MANIFEST)))


def published(output):
    """The names of the files of a published run; checks that there are no others."""
    return {layout.MANIFEST, layout.SUCCESS, *(file["name"] for file in manifest(output)["files"])}


def test_a_run(fake_gcs, listed, expected):
    output = fake_gcs.uri("out")
    assert label(output, "--input", listed, *OPTIONS).code == 0
    assert result(output) == expected
    assert len(expected[0]) == IMAGES - 2
    assert [failure["reason"] for failure in expected[1]] == ["not_an_image", "not_found"]
    assert {name.removeprefix("out/") for name in fake_gcs.list("out")} == published(output)
    assert verify(output).problems == ()
    assert label(output, "--input", listed, *OPTIONS).code == 2, "it is there"
    assert label(output, "--input", listed, *OPTIONS, "--limit", 3, "--if_exists", "overwrite").code == 0
    assert len(result(output)[0]) == 3
    assert verify(output).problems == ()


def test_a_run_that_was_cut_off_is_finished(fake_gcs, listed, expected, cut_off, opened):
    output = fake_gcs.uri("out")
    assert cut_off(output, "--input", listed, *OPTIONS).code == 3
    left = fake_gcs.list("out")
    assert len([name for name in left if f"/{layout.UNIT_RECORDS}/" in name]) == 2
    assert all(name.startswith(f"out/{layout.OWN}/{layout.STAGING}/") for name in left), (
        "the run is not published, and the lock is free"
    )
    opened.clear()
    assert label(output, "--input", listed, *OPTIONS, "--if_exists", "resume").code == 0
    assert len(opened) == IMAGES // UNIT - 2
    assert manifest(output)["resumed_units"] == 2
    assert result(output) == expected
    assert {name.removeprefix("out/") for name in fake_gcs.list("out")} == published(output)
    assert verify(output).problems == ()


def test_labeled_images_are_skipped(fake_gcs, listed, expected):
    first, second = fake_gcs.uri("labels/dt=1"), fake_gcs.uri("labels/dt=2")
    assert label(first, "--input", listed, *OPTIONS, "--limit", 5).code == 0
    assert label(second, "--input", listed, *OPTIONS, "--skip_labeled", fake_gcs.uri("labels/dt=*")).code == 0
    assert manifest(second)["rows"] == {"input": IMAGES, "predicted": 6, "failed": 1, "skipped": 5}
    rows = result(first)[0] + result(second)[0]
    assert sorted(row["uri"] for row in rows) == sorted(row["uri"] for row in expected[0])
    for output in (first, second):
        assert verify(output).problems == ()


def test_damage_is_reported(fake_gcs, listed):
    output = fake_gcs.uri("out")
    assert label(output, "--input", listed, *OPTIONS).code == 0
    cut, gone = [file["name"] for file in manifest(output)["files"] if file["kind"] == "data"][:2]
    fake_gcs.put(f"out/{cut}", fake_gcs.get(f"out/{cut}")[:-1])
    storage.delete(f"{output}/{gone}")
    fake_gcs.put("out/stranger", b"")
    done = subprocess.run(
        [sys.executable, "-m", "beamlabel", "verify", output], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    for name in (cut, gone, "stranger"):
        assert name in done.stdout


def test_one_run_at_a_time(fake_gcs, listed):
    output = fake_gcs.uri("out")
    run = ("--input", listed, *OPTIONS)
    with locked(output):
        command = [sys.executable, "-m", "beamlabel", "--module", "demo", "--output", output, *map(str, run)]
        assert subprocess.run(command, capture_output=True, check=False).returncode == 75
        assert label(output, *run).code == 75, "nor in the same process"
        assert fake_gcs.list("out") == [f"out/{layout.OWN}/{layout.LOCK}"]
    assert label(output, *run).code == 0
    assert {name.removeprefix("out/") for name in fake_gcs.list("out")} == published(output)
