"""Permanent failures are not retried every night; failures that could succeed now are."""

import json
import os
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from beamlabel.transforms.loading import fetch as fetching
from support.jobs import label, photos, uri_list
from support.nights import at_a_later_time

LIMITS = ("--max_bytes", 20_000, "--max_pixels", 10_000)
BROKEN = ("cut.png", "empty.png", "heavy.png", "text.png", "wide.png")


def break_photos(directory):
    """Breaks one photo for each permanent reason; two of them fail only by the limits."""
    good = photos(directory, 3)
    (directory / "cut.png").write_bytes(good[0].read_bytes()[:-400])
    (directory / "empty.png").write_bytes(b"")
    shutil.copy(photos(directory.parent / "larger", 1, size=(90, 100))[0], directory / "heavy.png")
    assert (directory / "heavy.png").stat().st_size > 20_000
    (directory / "text.png").write_text("no image at all")
    Image.new("RGB", (11_000, 1)).save(directory / "wide.png")


@pytest.fixture(scope="module")
def week(tmp_path_factory):
    """The directory of a first night over a listing with failures for five reasons."""
    directory = tmp_path_factory.mktemp("week")
    break_photos(directory / "photos")
    first = night(directory, "one", "--max_error_rate", 1)
    assert {failure["uri"].rpartition("/")[2] for failure in first.failures} == set(BROKEN)
    assert first.manifest["failed_by_reason"] == {
        "empty_file": 1, "not_an_image": 1, "too_many_bytes": 1, "too_many_pixels": 1, "truncated": 1,
    }  # fmt: skip
    return directory


@pytest.fixture
def later(week, tmp_path):
    """That directory on another night; changes of its photos are undone after the test."""
    kept = tmp_path / "kept"
    shutil.copytree(week / "photos", kept, copy_function=shutil.copy2)
    yield week
    shutil.rmtree(week / "photos")
    shutil.copytree(kept, week / "photos", copy_function=shutil.copy2)


def night(directory, name, *arguments, skip=None):
    limits = () if "--max_bytes" in arguments else LIMITS
    skip = (
        "--skip_labeled",
        skip or directory / "labels",
        *(("--changed",) if "--changed" in arguments else ()),
    )
    arguments = [argument for argument in arguments if argument != "--changed"]
    source = ("--input", f"{directory / 'photos'}/", "--input_format", "images")
    with at_a_later_time():
        return label(directory / "labels" / name, *source, *limits, *skip, *arguments)


def outcome(job):
    rows = job.manifest["rows"]
    return rows["predicted"], rows["failed"], job.manifest["skipped_by_reason"]


@pytest.mark.parametrize("changed", [(), ("--changed",)], ids=["all", "changed"])
def test_a_night_with_nothing_new_is_quiet(week, tmp_path, changed, monkeypatch):
    monkeypatch.setattr(fetching, "_local", None)  # no image is fetched
    job = night(week, tmp_path / "quiet", *changed, skip=week / "labels" / "one")
    assert outcome(job) == (0, 0, {"labeled": 3, "known_failure": 5})
    assert job.code == 0 and job.succeeded


def test_they_are_tried_if_that_is_asked_for(week, tmp_path):
    job = night(week, tmp_path / "out", "--retry_known_failures", skip=week / "labels" / "one")
    assert outcome(job) == (0, 5, {"labeled": 3})
    assert job.code == 1, "no image was predicted"


def test_a_higher_limit_tries_images_that_the_lower_one_refused(week, tmp_path):
    raised = ("--max_bytes", 30_000, "--max_pixels", 20_000)
    job = night(week, tmp_path / "out", *raised, skip=week / "labels" / "one")
    assert outcome(job) == (2, 0, {"labeled": 3, "known_failure": 3})
    lower = night(week, tmp_path / "lower", "--max_bytes", 19_999, skip=week / "labels" / "one")
    assert outcome(lower) == (1, 0, {"labeled": 3, "known_failure": 4}), (
        "pixels are not limited to 10,000 here"
    )


@pytest.mark.parametrize("change", ["pillow", "beamlabel", "preprocessing"])
def test_another_decoder_tries_them_all(week, tmp_path, change):
    shutil.copytree(week / "labels" / "one", tmp_path / "one")
    path = tmp_path / "one" / "_MANIFEST.json"
    manifest = json.loads(path.read_text())
    if change == "preprocessing":
        manifest["metadata"]["beamlabel.preprocessing_id"] = "0" * 64
    else:
        manifest["versions"][change] = "0.1"
    path.write_text(json.dumps(manifest))
    job = night(week, tmp_path / "out", skip=tmp_path / "one")
    assert outcome(job) == (0, 5, {"labeled": 3})


def test_the_failures_of_a_run_are_tried_by_name(week, tmp_path):
    one = week / "labels" / "one"
    job = label(tmp_path / "out", "--retry_failures", one, "--skip_labeled", one, *LIMITS)
    assert outcome(job) == (0, 5, {})


def test_a_mended_image_is_labeled_and_a_touched_one_is_reported_once(later, tmp_path, monkeypatch):
    directory = later / "photos"
    shutil.copy(directory / "photo 001.png", directory / "cut.png")
    (directory / "empty.png").write_text("still no image")
    touched = [directory / "text.png", directory / "photo 002.png"]
    for path in touched:
        os.utime(path, (1e9, 1e9))
    skips = tmp_path / "nights"
    shutil.copytree(later / "labels" / "one", skips / "one")
    two = night(later, skips / "two", "--changed", skip=skips)
    assert outcome(two) == (1, 1, {"labeled": 2, "unchanged": 1, "known_failure": 3})
    assert two.code == 0, "one failure is a handful"
    assert [failure["reason"] for failure in two.failures] == ["not_an_image"]
    told = [json.loads(line) for path in (skips / "two" / "_unchanged").iterdir() for line in path.open()]
    assert {line["source_version"] for line in told} == {str(10**18)} and len(told) == 2

    monkeypatch.setattr(fetching, "_local", None)
    three = night(later, skips / "three", "--changed", skip=skips)
    assert outcome(three) == (0, 0, {"labeled": 4, "known_failure": 4})
    assert three.code == 0


def test_the_newest_counts(later, tmp_path):
    """A photo is replaced by a broken one, which ends its row; then the old photo returns and gets a new row."""
    photo, skips = later / "photos" / "photo 001.png", tmp_path / "nights"
    shutil.copytree(later / "labels" / "one", skips / "one")
    shutil.copy2(photo, tmp_path / "before.png")
    photo.write_bytes(photo.read_bytes()[:-400])
    two = night(later, skips / "two", "--changed", skip=skips)
    assert outcome(two) == (0, 1, {"labeled": 2, "known_failure": 5})
    assert outcome(night(later, skips / "three", "--changed", skip=skips)) == (
        0, 0, {"labeled": 2, "known_failure": 6},
    )  # fmt: skip
    shutil.copy2(tmp_path / "before.png", photo)
    four = night(later, skips / "four", "--changed", skip=skips)
    assert outcome(four) == (1, 0, {"labeled": 2, "known_failure": 5})
    assert [row["uri"] for row in four.rows] == [str(photo)]
    assert outcome(night(later, skips / "five", "--changed", skip=skips)) == (
        0, 0, {"labeled": 3, "known_failure": 5},
    )  # fmt: skip


@pytest.mark.parametrize("kind", ["text", "inline", "tfrecord"])
def test_other_inputs_and_outputs(week, tmp_path, kind):
    paths = sorted((week / "photos").iterdir())
    written = ()
    source = ("--input", uri_list(tmp_path / "list.txt", [*paths, tmp_path / "missing.png"]))
    if kind == "inline":
        images = [path.read_bytes() for path in paths if path.name != "empty.png"]
        pq.write_table(pa.table({"image": images}), tmp_path / "in.parquet")
        source = ("--input", tmp_path / "in.parquet", "--image_column", "image")
    if kind == "tfrecord":
        written = ("--output_format", "tfrecord", "--no_embeddings")
    source = (*source, *LIMITS, *written, "--max_error_rate", 1)
    one = label(tmp_path / "one", *source)
    assert one.manifest["rows"]["predicted"] == 3
    missing = kind != "inline"
    broken = 4 if kind == "inline" else 5
    two = label(tmp_path / "two", *source, "--skip_labeled", one.output)
    assert outcome(two) == (0, missing, {"labeled": 3, "known_failure": broken})


def test_on_the_web_content_decides(week, tmp_path, http_server):
    http_server.files["/a.png"] = (week / "photos" / "text.png").read_bytes()
    source = ("--input", uri_list(tmp_path / "list.txt", [http_server.url_of("/a.png")]))
    source = (*source, "--allow_http", "--allow_private_hosts")
    one = label(tmp_path / "one", *source)
    assert outcome(one) == (0, 1, {}) and one.code == 1
    two = label(tmp_path / "two", *source, "--skip_labeled", one.output)
    assert outcome(two) == (0, 0, {"known_failure": 1}) and two.code == 0
    http_server.files["/a.png"] = photos(tmp_path / "photos", 1)[0].read_bytes()
    assert outcome(label(tmp_path / "three", *source, "--skip_labeled", one.output)) == (1, 0, {})
