"""Evaluation by directories, file names and several classes, of TFRecords, and the files of wrong images."""

import csv
import json
import random
from collections import Counter

import pyarrow.parquet as pq
import pytest

from beamlabel.pipeline.errors import UsageError
from beamlabel.pipeline.evaluate.evaluate import evaluate
from support.jobs import command, label, photos, uri_list

CLASSES = [f"kind {number}" for number in range(11)]


@pytest.fixture(scope="module")
def jobs(tmp_path_factory):
    """Photographs in class directories, labeled as Parquet and as gzipped TFRecords."""
    directory = tmp_path_factory.mktemp("jobs")
    names = uri_list(directory / "names.txt", CLASSES)
    images = photos(directory / "flat", 24)
    plain = label(directory / "plain", "--input", directory / "flat", "--labels", names)
    best = {row["uri"]: row["labels"] for row in plain.rows}
    drawn = random.Random(11)
    for path in images:
        parent = directory / "photos" / drawn.choice([best[str(path)][0], best[str(path)][1], CLASSES[0]])
        parent.mkdir(parents=True, exist_ok=True)
        path.rename(parent / path.name)
    (directory / "photos" / "broken.jpg").write_text("no image")
    arguments = ("--input", directory / "photos", "--labels", names, "--max_error_rate", 1)
    parquet = label(directory / "parquet", *arguments)
    label(directory / "tfrecord", *arguments, "--output_format", "tfrecord", "--tfrecord_compression", "gzip")
    return {
        "parquet": parquet,
        "rows": parquet.rows,
        "tfrecord": directory / "tfrecord",
        "directory": directory,
    }


def parent(row):
    return row["uri"].split("/")[-2]


def test_the_directory_of_each_image(jobs):
    found = evaluate(str(jobs["parquet"].output), "parent").to_json(worst=2)
    rows = jobs["rows"]
    right = sum(parent(row) == row["labels"][0] for row in rows)
    assert 0 < right < len(rows)
    assert (found["evaluated"], found["top_1"]) == (len(rows), right / len(rows))
    assert (found["truth_by"], found["failed"], found["failed_without_truth"]) == ("parent", 0, 1)
    interval = found["top_1_interval"]
    assert 0 < interval["low"] < found["top_1"] < interval["high"] < 1
    support = Counter(map(parent, rows))
    wrong = Counter((parent(row), row["labels"][0]) for row in rows if parent(row) != row["labels"][0])
    recall = {
        name: 1 - sum(n for (truth, _), n in wrong.items() if truth == name) / support[name]
        for name in support
    }
    order = sorted(support, key=lambda name: (recall[name], -support[name], name))
    assert [one["class"] for one in found["worst"]] == order[:2]
    for one in found["worst"]:
        pairs = {(one["class"], other["class"]): other["count"] for other in one["confusions"]}
        assert pairs == {pair: n for pair, n in wrong.items() if pair[0] == one["class"]}


def test_tfrecords_give_the_same(jobs, tmp_path):
    truth = tmp_path / "truth.csv"
    lines = [
        f"{row['uri'].rpartition('/')[2]},{CLASSES[number % 11]}" for number, row in enumerate(jobs["rows"])
    ]
    truth.write_text("\n".join(["file,class", *lines, "broken.jpg,kind 3", ""]))
    for name in ("parent", truth):
        parquet = evaluate(str(jobs["parquet"].output), str(name), errors=str(tmp_path / "a.jsonl"))
        records = evaluate(str(jobs["tfrecord"]), str(name), errors=str(tmp_path / "b.jsonl"))
        a, b = parquet.to_json(3), records.to_json(3)
        assert a.pop("errors")["images"] == b.pop("errors")["images"] > 0
        assert a == b
        assert (tmp_path / "a.jsonl").read_text() == (tmp_path / "b.jsonl").read_text()
        (tmp_path / "a.jsonl").unlink()
        (tmp_path / "b.jsonl").unlink()
    assert (a["evaluated"], a["failed"], a["truths_without_row"]) == (len(lines), 1, 0)


@pytest.mark.parametrize("ending", ["csv", "parquet", "jsonl"])
def test_the_file_of_wrong_images(jobs, tmp_path, ending):
    path = tmp_path / f"wrong.{ending}"
    found = evaluate(str(jobs["parquet"].output), "parent", errors=str(path)).to_json()
    if ending == "csv":
        with path.open(newline="") as file:
            wrong = [{**row, "score": float(row["score"])} for row in csv.DictReader(file)]
    elif ending == "jsonl":
        wrong = [json.loads(line) for line in path.read_text().splitlines()]
    else:
        wrong = pq.read_table(path).to_pylist()
    rows = {row["uri"]: row for row in jobs["rows"] if parent(row) != row["labels"][0]}
    assert found["errors"] == {"file": str(path), "images": len(rows)}
    assert {row["uri"] for row in wrong} == rows.keys()
    for row in wrong:
        told = rows[row["uri"]]
        assert (row["image_id"], row["truth"], row["prediction"]) == (
            told["image_id"],
            parent(told),
            told["labels"][0],
        )
        assert row["score"] == pytest.approx(told["score"], abs=1e-6)
    assert [row["score"] for row in wrong] == sorted((row["score"] for row in wrong), reverse=True)
    # The file is itself a truth, with only wrong images.
    again = evaluate(str(jobs["parquet"].output), str(path)).to_json()
    assert (again["evaluated"], again["top_1"], again["truth_by"]) == (len(rows), 0, "image_id")
    with pytest.raises(UsageError, match="exists"):
        evaluate(str(jobs["parquet"].output), "parent", errors=str(path))


def test_the_file_of_wrong_images_in_a_bucket(jobs, gcs):
    uri = gcs.uri("wrong.csv")
    found = evaluate(str(jobs["parquet"].output), "parent", errors=uri).to_json()
    assert evaluate(str(jobs["parquet"].output), uri).to_json()["evaluated"] == found["errors"]["images"]
    with pytest.raises(UsageError, match="end in one of"):
        evaluate(str(jobs["parquet"].output), "parent", errors=gcs.uri("wrong.xlsx"))


def test_several_classes_an_image(jobs, tmp_path):
    drawn = random.Random(5)
    known = {row["image_id"]: set(drawn.sample(CLASSES, 3)) | {row["labels"][3]} for row in jobs["rows"]}
    truth = tmp_path / "truth.csv"
    truth.write_text(
        "image_id,tags\n" + "".join(f"{one},{'; '.join(names)}\n" for one, names in known.items())
    )
    errors = tmp_path / "wrong.csv"
    found = evaluate(str(jobs["parquet"].output), str(truth), separator=";", errors=str(errors)).to_json()
    assert found["multi_label"]
    right = [row for row in jobs["rows"] if row["labels"][0] in known[row["image_id"]]]
    assert 0 < len(right) < len(known)
    assert found["top_1"] == len(right) / len(known)
    assert found["top_k"]["accuracy"] == 1
    support = Counter(name for names in known.values() for name in names)
    classes = {one["class"]: one for one in found["classes"]}
    for name, count in support.items():
        hit = sum(row["labels"][0] == name for row in right)
        assert (classes[name]["support"], classes[name]["recall"]) == (count, hit / count)
    again = evaluate(str(jobs["parquet"].output), str(errors)).to_json()
    assert (again["multi_label"], again["top_1"]) == (True, 0)
    assert again["evaluated"] == len(known) - len(right)


def test_corrections_over_directories(jobs, tmp_path):
    wrong = next(row for row in jobs["rows"] if parent(row) != row["labels"][0])
    path = tmp_path / "corrections.csv"
    path.write_text(f"image_id,uri,verdict,label\n{wrong['image_id']},x,right,{wrong['labels'][0]}\n")
    before = evaluate(str(jobs["parquet"].output), "parent").counts
    after = evaluate(str(jobs["parquet"].output), ["parent", str(path)])
    assert (after.counts.correct, after.by) == (before.correct + 1, "several")


def test_corrections_have_names_and_no_class_ids(jobs, tmp_path):
    row = jobs["rows"][0]
    corrections, ids = tmp_path / "corrections.csv", tmp_path / "ids.csv"
    corrections.write_text(f"image_id,uri,verdict,label\n{row['image_id']},x,wrong,7\n")
    ids.write_text(f"uri,class\n{row['uri']},7\n")
    found = evaluate(str(jobs["parquet"].output), str(corrections)).to_json()
    assert (found["evaluated"], found["truths_in_no_row"]) == (1, ["7"])
    with pytest.raises(UsageError, match="names"):
        evaluate(str(jobs["parquet"].output), [str(ids), str(corrections)])


def test_corrections_of_classes_without_names(jobs, tmp_path):
    """A report calls them ``class 3``, and the class ids are numbers."""
    images = jobs["directory"] / "photos"
    unnamed = label(tmp_path / "unnamed", "--input", images, "--max_error_rate", 1)
    row = unnamed.rows[0]
    path = tmp_path / "corrections.csv"
    path.write_text(f"image_id,uri,verdict,label\n{row['image_id']},x,right,class {row['class_ids'][0]}\n")
    found = evaluate(str(unnamed.output), str(path)).to_json()
    assert (found["evaluated"], found["top_1"]) == (1, 1)


def test_the_command(jobs, tmp_path):
    output, errors = jobs["parquet"].output, tmp_path / "wrong.parquet"
    done = command("evaluate", "--truth", "parent", "--worst", "1", "--errors", errors, output)
    assert done.returncode == 0, done.stderr
    summary, worst = done.stdout.split("\n\n")
    assert "precision" not in summary
    assert f"{pq.read_table(errors).num_rows} wrong images are in {errors}" in summary
    assert len(worst.splitlines()) == 2
