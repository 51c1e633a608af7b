"""``beamlabel diff``: every change of a deliberately changed directory as JSON, text, CSV and page."""

import csv
import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from beamlabel.pipeline.commands.diff import main
from beamlabel.pipeline.diff.compare import compare
from beamlabel.pipeline.errors import UsageError
from beamlabel.pipeline.report.data import data_of_page
from beamlabel.pipeline.report.drift import embedding_drift, label_drift
from support.gcs_server import Bucket
from support.jobs import TINY_FEATURES, FinishedJob, label, photos

NAMES = [f"name {number}" for number in range(11)]


class Changed:
    """Two outputs of a directory that changed between them, and the changes."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.photos = photos(directory / "photos", 40)
        (directory / "names.txt").write_text("".join(f"{name}\n" for name in NAMES))
        self.photos[0].write_bytes(b"<html>")
        self.photos[1].write_bytes(b"<html>")
        self.a = self.run("a")
        more = photos(directory / "more", 45)
        shutil.copy(more[0], self.photos[0])
        self.photos[1].write_bytes(more[1].read_bytes()[:300])
        self.photos[2].write_bytes(more[2].read_bytes()[:300])
        for path in self.photos[3:6]:
            path.unlink()
        for number, path in enumerate(more[40:]):
            shutil.copy(path, directory / "photos" / f"new {number}.png")
        (directory / "photos" / "new broken.png").write_bytes(b"<html>")
        self.b = self.run("b")
        relabeled(self.b.output, [str(path) for path in self.photos[10:14]])

    def source(self) -> tuple[object, ...]:
        return "--input", self.directory / "photos/*.png", "--input_format", "images", "--max_error_rate", "1"

    def run(self, output: str) -> FinishedJob:
        named = ("--labels", self.directory / "names.txt", "--shard_rows", 64, "--report")
        job = label(self.directory / output, *self.source(), *named)
        assert job.code == 0
        return job


def relabeled(output: Path, uris) -> None:
    """Gives the images of an output another best label and the score 0.75."""
    (path,) = output.glob("part-*.parquet")
    there = pq.read_table(path)
    rows = there.to_pylist()
    for row in rows:
        if row["uri"] in uris:
            row["label"], row["score"] = "another", 0.75
    pq.write_table(pa.Table.from_pylist(rows, there.schema), path)


@pytest.fixture(scope="module")
def changed(tmp_path_factory) -> Changed:
    return Changed(tmp_path_factory.mktemp("diff"))


@pytest.fixture(scope="module")
def found(changed) -> dict:
    return compare(str(changed.a.output), str(changed.b.output), examples=24)


def names(rows) -> list[str]:
    return sorted(Path(row["uri"]).name for row in rows)


def test_images_that_came_and_went(changed, found):
    assert found["images"] == {
        "in_both": 37,
        "added": 6,
        "removed": 3,
        "replaced": 0,
        "replaced_same_label": 0,
    }
    assert names(found["examples"]["removed"]) == [path.name for path in changed.photos[3:6]]
    assert names(found["examples"]["added"]) == [*(f"new {n}.png" for n in range(5)), "new broken.png"]
    assert (found["a"]["labeled"], found["a"]["failed"]) == (38, 2)
    assert (found["b"]["labeled"], found["b"]["failed"]) == (40, 3)


def test_relabeled_images(changed, found):
    before = {row["uri"]: row for row in changed.a.rows}
    assert found["labels"]["relabeled"] == 4 and found["labels"]["compared"] == 34
    rows = found["examples"]["relabeled"]
    assert names(rows) == [path.name for path in changed.photos[10:14]]
    for row in rows:
        assert (row["a_label"], row["b_label"]) == (before[row["uri"]]["label"], "another")
        assert row["a_score"] == pytest.approx(before[row["uri"]]["score"], rel=1e-5)
        assert (row["b_score"], row["replaced"]) == (0.75, False)
    counted = Counter(before[row["uri"]]["label"] for row in rows)
    told = {(one["from"], one["to"]): one["images"] for one in found["labels"]["transitions"]}
    assert told == {(name, "another"): count for name, count in counted.items()}
    assert found["scores"] == {
        "compared": 30, "mean_change": 0, "mean_absolute_change": 0, "largest_absolute_change": 0
    }  # fmt: skip


def test_failures(changed, found):
    assert found["failures"] == {
        "came": 2, "came_of_known_images": 1, "went": 1, "went_and_labeled": 1, "same_reason": 0, "other_reason": 1,
        "by_reason": [{"reason": "not_an_image", "a": 2, "b": 1}, {"reason": "truncated", "a": 0, "b": 2}],
    }  # fmt: skip
    assert names(found["examples"]["failed"]) == [changed.photos[2].name]
    assert names(found["examples"]["recovered"]) == [changed.photos[0].name]
    (other,) = found["examples"]["other_reason"]
    assert (other["a_reason"], other["b_reason"]) == ("not_an_image", "truncated")
    assert other["detail"] and other["replaced"] is True


def test_drift(changed, found):
    counts = [Counter(row["label"] for row in job.rows) for job in (changed.a, changed.b)]
    shares = [{name: count / side.total() for name, count in side.items()} for side in counts]
    every = shares[0].keys() | shares[1].keys()
    distance = sum(abs(shares[0].get(name, 0) - shares[1].get(name, 0)) for name in every) / 2
    assert found["label_drift"]["total_variation"] == pytest.approx(distance, rel=1e-5)
    largest = max(every, key=lambda name: (abs(shares[0].get(name, 0) - shares[1].get(name, 0)), name))
    assert found["label_drift"]["labels"][0]["label"] == largest
    means = [np.mean([row["embedding"] for row in job.rows], axis=0) for job in (changed.a, changed.b)]
    assert found["embedding_drift"]["comparable"] is True
    assert found["embedding_drift"]["l2_distance"] == pytest.approx(
        np.linalg.norm(means[0] - means[1]), rel=1e-4
    )


def test_an_output_and_itself(changed, capsys):
    same = compare(str(changed.a.output), str(changed.a.output), examples=24)
    assert same["images"] == {
        "in_both": 40,
        "added": 0,
        "removed": 0,
        "replaced": 0,
        "replaced_same_label": 0,
    }
    assert same["labels"]["relabeled"] == same["failures"]["came"] == same["failures"]["went"] == 0
    assert same["label_drift"]["total_variation"] == same["label_drift"]["jensen_shannon"] == 0
    assert same["embedding_drift"]["l2_distance"] == 0
    assert not any(same["examples"].values())
    assert main([str(changed.a.output), str(changed.a.output), "--exit_code"]) == 0


def test_the_command(changed, found, tmp_path, capsys):
    sides = [str(changed.a.output), str(changed.b.output)]
    assert main([*sides, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == found
    assert main([*sides, "--list", str(tmp_path / "list.csv"), "--exit_code"]) == 1
    text = capsys.readouterr().out
    assert all(len(line) <= 80 for line in text.splitlines()), text
    assert "relabeled" in text
    with (tmp_path / "list.csv").open(newline="") as file:
        listed = Counter(row["change"] for row in csv.DictReader(file))
    assert listed == {
        "relabeled": 4,
        "added": 6,
        "removed": 3,
        "failed": 1,
        "recovered": 1,
        "other_reason": 1,
    }
    with pytest.raises(UsageError, match="--page"):
        main([*sides, "--fetch"])
    with pytest.raises(UsageError, match="no published output"):
        main([sides[0], str(tmp_path)])


def test_the_page(changed, found, tmp_path):
    sides = [str(changed.a.output), str(changed.b.output)]
    assert main([*sides, "--page", str(tmp_path / "page.html")]) == 0
    text = (tmp_path / "page.html").read_text()
    data = data_of_page(text)
    assert data is not None
    assert [len(rows) for rows in data["examples"].values()] == [4, 6, 3, 1, 1, 1, 0]
    # The reports of both runs hold all labeled images.
    assert all(row["thumbnail"] for row in data["examples"]["relabeled"] + data["examples"]["removed"])
    (changed.directory / "with.html").write_text(text)
    for side in sides:
        shutil.move(f"{side}/_report.html", f"{side}/_report.bak")
    try:
        main([*sides, "--page", str(tmp_path / "none.html")])
        main([*sides, "--page", str(tmp_path / "fetched.html"), "--fetch"])
    finally:
        for side in sides:
            shutil.move(f"{side}/_report.bak", f"{side}/_report.html")
    without, fetched = (data_of_page((tmp_path / f"{name}.html").read_text()) for name in ("none", "fetched"))
    assert without is not None and fetched is not None
    assert not any(row["thumbnail"] for rows in without["examples"].values() for row in rows)
    assert fetched["examples"]["relabeled"] == data["examples"]["relabeled"], (
        "the same pixels give the same thumbnail"
    )
    assert not any(row["thumbnail"] for row in fetched["examples"]["removed"]), "their files are gone"


def test_nights_are_compared_by_their_newest_rows(changed, tmp_path):
    """A side may be a directory of nights; an image that both nights labeled appears once."""
    shutil.copytree(changed.a.output, tmp_path / "nights" / "1")
    shutil.copytree(changed.b.output, tmp_path / "nights" / "2")
    both = compare(str(tmp_path / "nights"), str(changed.b.output), examples=0)
    assert both["a"]["labeled"] + both["a"]["failed"] == 40 + 6
    assert both["labels"]["relabeled"] == 0
    assert both["images"]["removed"] == 3


def test_tfrecords_and_parquet(changed, tmp_path):
    named = ("--labels", changed.directory / "names.txt", "--output_format", "tfrecord")
    job = label(tmp_path / "out", *changed.source(), *named)
    found = compare(str(job.output), str(changed.b.output), examples=3)
    assert found["images"]["in_both"] == 43 and not found["images"]["added"]
    assert found["labels"]["relabeled"] == 4
    assert found["embedding_drift"]["l2_distance"] == pytest.approx(0, abs=1e-4)


def test_embeddings_of_another_space_are_not_compared(changed, tmp_path):
    job = label(tmp_path / "out", *changed.source(), module=TINY_FEATURES)
    found = compare(str(changed.b.output), str(job.output), examples=3)
    assert found["embedding_drift"]["comparable"] is False
    assert found["label_drift"] is None and found["labels"]["compared"] == 40
    assert found["labels"]["relabeled"] == 0


def test_a_bucket(gcs: Bucket, changed, found):
    for name in ("a", "b"):
        directory = changed.directory / name
        for path in directory.rglob("*"):
            if path.is_file():
                gcs.put(f"{name}/{path.relative_to(directory)}", path.read_bytes())
    there = compare(gcs.uri("a"), gcs.uri("b"), examples=24)
    assert {**there, "a": 0, "b": 0, "examples": 0} == {**found, "a": 0, "b": 0, "examples": 0}


@pytest.mark.parametrize(("a", "b", "total", "jensen"), [
    ({"x": 1}, {"x": 5}, 0, 0),
    ({"x": 1}, {"y": 5}, 1, 1),
    ({"x": 1, "y": 1}, {"x": 3, "y": 1}, 0.25, 0.0487949),
])  # fmt: skip
def test_distances_of_distributions(a, b, total, jensen):
    drift = label_drift(a, b)
    assert drift is not None
    assert drift["total_variation"] == pytest.approx(total)
    assert drift["jensen_shannon"] == pytest.approx(jensen, rel=1e-5)
    assert label_drift(a, {}) is None


def test_distances_of_means():
    drift = embedding_drift(np.array([1.0, 0.0]), np.array([0.0, 2.0]))
    assert drift == {"cosine_distance": 1, "l2_distance": 2.23607, "length_a": 1, "length_b": 2}
    assert embedding_drift(np.zeros(2), np.ones(2))["cosine_distance"] is None


def test_an_image_with_another_content_and_the_same_label_is_listed(tmp_path):
    """A new text chunk changes the bytes but neither pixels nor label."""
    directory = tmp_path / "photos"
    photos(directory, 3)
    a = label(tmp_path / "a", "--input", directory, "--labels", "none")
    touched = directory / "photo 001.png"
    with Image.open(touched) as image:
        image.save(touched, pnginfo=_note())
    b = label(tmp_path / "b", "--input", directory, "--labels", "none")
    found = compare(str(a.output), str(b.output), examples=5, listed=tmp_path / "list.csv")
    assert (found["images"]["replaced"], found["images"]["replaced_same_label"]) == (1, 1)
    (example,) = found["examples"]["replaced"]
    assert (example["uri"], example["change"]) == (str(touched), "replaced")
    with (tmp_path / "list.csv").open(newline="") as file:
        assert [row["uri"] for row in csv.DictReader(file)] == [str(touched)]
    assert main([str(a.output), str(b.output), "--exit_code"]) == 1


def _note() -> PngInfo:
    note = PngInfo()
    note.add_text("note", "another")
    return note
