"""Nights after only a compacted output: they skip, retry and find deleted the same images."""

import json
import os
import shutil

import pytest

from beamlabel.pipeline.compact.compact import compact
from beamlabel.pipeline.errors import UsageError
from beamlabel.pipeline.output.verify import verify
from beamlabel.transforms.loading import fetch as fetching
from support.current_view import current_view
from support.jobs import command, label, photos, uri_list
from support.nights import at_a_later_time


class Lives:
    """A directory of photographs and the nights over it."""

    def __init__(self, directory):
        self.directory = directory
        self.photos = photos(directory / "photos", 12)

    def night(self, output, *arguments, skip=("labels/*/",), source=None):
        known = [word for one in skip for word in ("--skip_labeled", self.directory / one)]
        known += ["--changed", "--tombstones"] if skip else []
        source = source or ("--input", f"{self.directory / 'photos'}/", "--input_format", "images")
        with at_a_later_time():
            job = label(self.directory / output, *source, *known, *arguments)
        assert verify(str(job.output)).problems == ()
        return job

    def compacted(self, output, *inputs):
        manifest = compact(
            [str(self.directory / one) for one in inputs], str(self.directory / output), shard_rows=5
        )
        assert verify(str(self.directory / output)).problems == ()
        return manifest


def touch(path):
    os.utime(path, (path.stat().st_atime, path.stat().st_mtime + 100))


def cut(path):
    path.write_bytes(path.read_bytes()[:300])


@pytest.fixture(scope="module")
def lives(tmp_path_factory):
    """Two nights and their table; two of twelve photos are broken, and one of these and three others are touched."""
    lives = Lives(tmp_path_factory.mktemp("lives"))
    cut(lives.photos[0])
    cut(lives.photos[1])
    assert lives.night("labels/1").code == 0
    for path in (lives.photos[1], *lives.photos[4:7]):
        touch(path)
    two = lives.night("labels/2")
    assert two.manifest["skipped_by_reason"] == {"known_failure": 2, "labeled": 7, "unchanged": 3}
    lives.compacted("current/1", "labels")
    return lives


@pytest.fixture
def later(lives, tmp_path):
    """The lives; changes of the photos are undone after the test."""
    kept = tmp_path / "kept"
    shutil.copytree(lives.directory / "photos", kept, copy_function=shutil.copy2)
    yield lives
    shutil.rmtree(lives.directory / "photos")
    shutil.copytree(kept, lives.directory / "photos", copy_function=shutil.copy2)


ONLY = ("current/1",)


def test_a_quiet_night_fetches_nothing(lives, tmp_path, monkeypatch):
    monkeypatch.setattr(fetching, "_local", None)
    for name in ("current/1",):
        job = lives.night(tmp_path / "quiet", skip=(name,))
        assert job.manifest["skipped_by_reason"] == {"known_failure": 2, "labeled": 10}
        assert job.code == 0 and job.succeeded and job.manifest["deleted"] == 0


def test_a_table_of_a_table_is_as_good(lives, tmp_path, monkeypatch):
    monkeypatch.setattr(fetching, "_local", None)
    told = lives.compacted(tmp_path / "again", "current/1", "labels")
    assert (told["rows"]["predicted"], told["rows"]["failed"]) == (10, 2)
    lines = [
        [
            json.loads(line)
            for path in directory.glob("_unchanged/*.jsonl")
            for line in path.read_text().splitlines()
        ]
        for directory in (lives.directory / "current/1", tmp_path / "again")
    ]
    assert lines[0] == lines[1] and len(lines[0]) == 4
    job = lives.night(tmp_path / "night", skip=(tmp_path / "again",))
    assert job.manifest["skipped_by_reason"] == {"known_failure": 2, "labeled": 10}


def test_new_gone_mended_and_broken_images_are_found(later, tmp_path):
    paths = later.photos
    paths[2].unlink()
    paths[0].unlink()  # has only failures
    cut(paths[3])
    shutil.copy(paths[8], paths[1])
    job = later.night(tmp_path / "night", "--max_error_rate", 1, skip=ONLY)
    assert job.manifest["rows"] == {"input": 10, "predicted": 1, "failed": 1, "skipped": 8}
    assert [row["uri"] for row in job.rows] == [str(paths[1])]
    assert job.manifest["deleted"] == 2 and job.manifest["tombstones"] == {"live": 12, "gone": 2}
    told = later.compacted(tmp_path / "table", "current/1", tmp_path / "night")
    assert (told["rows"]["predicted"], told["rows"]["failed"]) == (9, 1)
    view = current_view([later.directory / "current/1", tmp_path / "night"])
    shown = {uri for (uri,) in view.execute("SELECT uri FROM current_labels").fetchall()}
    assert shown == {str(path) for path in paths if path not in (paths[0], paths[2], paths[3])}


def test_the_other_commands_take_it(lives, tmp_path):
    current = lives.directory / "current/1"
    shutil.copytree(current, tmp_path / "copy")
    done = command("report", tmp_path / "copy")
    assert done.returncode == 0 and (tmp_path / "copy/_report.html").exists(), done.stderr
    done = command("diff", lives.directory / "labels", current, "--json")
    told = json.loads(done.stdout)
    assert done.returncode == 0 and told["labels"]["same"] == 10 and told["failures"]["same_reason"] == 2
    assert told["images"] == {
        "in_both": 12, "added": 0, "removed": 0, "replaced": 0, "replaced_same_label": 0
    }  # fmt: skip
    assert verify(str(tmp_path / "copy")).problems == ()
    (file,) = (tmp_path / "copy/_unchanged").iterdir()
    file.write_text(file.read_text().replace("seen_at", "seen"))
    assert "does not describe an image" in "\n".join(verify(str(tmp_path / "copy")).problems)


def test_failures_of_several_limits_are_tried_by_the_lowest(later, tmp_path):
    """Each night's own limit refused one; both are retried as soon as either could succeed."""

    def refused(name, limit, skip=()):
        return later.night(tmp_path / name, "--max_bytes", limit, "--max_error_rate", 1, skip=skip)

    sizes = sorted(path.stat().st_size for path in later.photos[2:])
    refused("labels/1", sizes[0] - 1)
    refused("labels/2", sizes[5], skip=(tmp_path / "labels/*/",))
    manifest = later.compacted(tmp_path / "table", tmp_path / "labels")
    assert manifest["compacted"]["tried_with"]["options"]["max_bytes"] == sizes[0] - 1
    job = refused("night", sizes[5], skip=(tmp_path / "table",))
    assert job.manifest["skipped_by_reason"].get("known_failure", 0) == 2, "those that are broken"


def test_tables_of_several_inputs_tell_of_no_deletion(lives, tmp_path):
    """Two lists with one night each: both cover both; inputs of another kind are not listed."""
    lists = [uri_list(tmp_path / f"{n}.txt", lives.photos[n * 4 + 2 : n * 4 + 6]) for n in range(2)]
    for number, one in enumerate(lists):
        lives.night(tmp_path / f"labels/{number}", source=("--input", one), skip=())
    manifest = lives.compacted(tmp_path / "table", tmp_path / "labels")
    assert sorted(manifest["options"]["input"]) == sorted(map(str, lists))
    skip = (tmp_path / "table",)
    assert lives.night(tmp_path / "a", source=("--input", lists[0]), skip=skip).manifest["deleted"] == 0
    uri_list(lists[0], lives.photos[2:4])
    both = ("--input", lists[0], "--input", lists[1])
    assert lives.night(tmp_path / "b", source=both, skip=skip).manifest["deleted"] == 2
    mixed = lives.compacted(tmp_path / "mixed", tmp_path / "labels", "labels")
    assert mixed["options"]["input"] == []
    directory = lives.night(tmp_path / "c", skip=(tmp_path / "mixed",))
    assert directory.manifest["deleted"] == 0 and directory.manifest["tombstones"] == {"live": 0, "gone": 0}


@pytest.mark.parametrize("damage", [b"{", b'{"run_id": "x", "plan_id": "y"}', None])
def test_a_damaged_night_is_not_passed_over(lives, tmp_path, damage):
    shutil.copytree(lives.directory / "labels", tmp_path / "labels")
    manifest = tmp_path / "labels/2/_MANIFEST.json"
    if damage is None:
        told = json.loads(manifest.read_text())
        told["files"][0]["name"] = "../part.parquet"
        damage = json.dumps(told).encode()
    manifest.write_bytes(damage)
    with pytest.raises(UsageError, match="damaged"):
        compact([str(tmp_path / "labels")], str(tmp_path / "out"), shard_rows=5)
    assert not (tmp_path / "out").exists()
    source = ("--input", f"{lives.directory / 'photos'}/", "--skip_labeled", tmp_path / "labels/*/")
    assert label(tmp_path / "night", *source).code == 2
