"""``beamlabel evaluate``: its counts equal those of a plain loop over the rows."""

import csv
import gzip
import json
import random
import shutil
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from beamlabel.pipeline.errors import UsageError
from beamlabel.pipeline.evaluate.evaluate import evaluate
from support.jobs import TINY_FEATURES, command, label, photos, uri_list

CLASSES = [f"class {number}" for number in range(11)]
COUNT = 40


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """The references of a job: photographs, one of them twice, and two that are missing."""
    directory = tmp_path_factory.mktemp("images")
    paths = photos(directory / "photos", COUNT)
    return [str(path) for path in [*paths, paths[0], directory / "gone 1.png", directory / "gone 2.png"]]


@pytest.fixture(scope="module")
def jobs(tmp_path_factory, images):
    """A result with class names and one without, both in several shards and with kept columns of the truth."""
    from support.tf_modules import save_colours

    directory = tmp_path_factory.mktemp("jobs")
    module = save_colours(directory / "module", len(CLASSES))
    names = uri_list(directory / "names.txt", CLASSES)
    uris = uri_list(directory / "in.txt", images)
    plain = label(directory / "plain", "--input", uris, "--max_error_rate", 1, module=module)
    assert len({row["class_ids"][0] for row in plain.rows}) > 3, "they have to differ"
    best = {row["uri"]: row["class_ids"] for row in plain.rows}
    drawn = random.Random(7)
    ids = [drawn.choice([*best.get(uri, [1])[:2], drawn.randrange(11), None]) for uri in images]
    table = pa.table(
        {
            "uri": images,
            "id": pa.array(ids, pa.int16()),
            "id_text": [None if i is None else f"{i:02d}" for i in ids],
            "species": ["" if i is None else CLASSES[i] for i in ids],
            "wrong": ["no such class"] * len(images),
            "price": [1.5] * len(images),
        }
    )
    pq.write_table(table, directory / "in.parquet")
    arguments = ("--input", directory / "in.parquet", "--max_error_rate", 1, "--shard_rows", 16)
    keep = ("--keep_columns", *table.schema.names[1:])
    named = label(directory / "named", *arguments, *keep, "--labels", names, module=module)
    unnamed = label(directory / "unnamed", *arguments, *keep, "--top_k", 3, module=module)
    assert len([file for file in named.manifest["files"] if file["kind"] == "data"]) > 2
    return {"named": named, "unnamed": unnamed}


def expected(rows, truth_of):
    """Counts in a plain loop: (evaluated, right, right among the best five, by class: support, predicted, right)."""
    evaluated = right = right_5 = 0
    support, predicted, both = Counter(), Counter(), Counter()
    for row in rows:
        truth = truth_of(row)
        if truth is None:
            continue
        evaluated += 1
        best = row["class_ids"][0]
        right += best == truth
        right_5 += truth in row["class_ids"][:5]
        support[truth] += 1
        predicted[best] += 1
        both[truth] += best == truth
    return evaluated, right, right_5, support, predicted, both


def check(found, rows, truth_of, name_of=str):
    evaluated, right, right_5, support, predicted, both = expected(rows, truth_of)
    assert 0 < right < right_5 < evaluated < len(rows), "the test could not distinguish these"
    assert (found["rows"], found["evaluated"]) == (len(rows), evaluated)
    assert found["rows_without_truth"] == len(rows) - evaluated
    assert found["top_1"] == right / evaluated
    assert found["top_k"]["accuracy"] == right_5 / evaluated
    assert found["top_1_failures_wrong"] == right / (evaluated + found["failed"])
    assert found["coverage"] == evaluated / (evaluated + found["failed"])
    classes = {one["class"]: one for one in found["classes"]}
    assert classes.keys() == {name_of(one) for one in support | predicted}
    for number in support | predicted:
        one = classes[name_of(number)]
        assert (one["support"], one["predicted"]) == (support[number], predicted[number])
        assert one["recall"] == (both[number] / support[number] if support[number] else None)
        assert one["precision"] == (both[number] / predicted[number] if predicted[number] else None)
    return classes


@pytest.mark.parametrize("result", ["named", "unnamed"])
@pytest.mark.parametrize("column", ["id", "id_text"])
def test_a_kept_column_of_class_ids(jobs, result, column):
    found = evaluate(str(jobs[result].output), column).to_json()
    classes = check(found, jobs[result].rows, lambda row: row["id"])
    assert found["top_k"]["k"] == (5 if result == "named" else 3)
    assert (found["failed"], found["truths_without_row"]) == (2, None)
    name = next(iter(classes.values()))
    assert name["name"] == (f"class {name['class']}" if result == "named" else None)


def test_a_kept_column_of_names(jobs):
    found = evaluate(str(jobs["named"].output), "species").to_json()
    check(found, jobs["named"].rows, lambda row: row["id"], CLASSES.__getitem__)
    assert evaluate(str(jobs["named"].output), "wrong").to_json()["truths_in_no_row"] == ["no such class"]


def test_kinds_of_truth_of_a_class(jobs):
    found = evaluate(str(jobs["named"].output), "id").to_json()
    pairs = Counter(
        (row["id"], row["class_ids"][0])
        for row in jobs["named"].rows
        if row["id"] is not None and row["id"] != row["class_ids"][0]
    )
    for one in found["classes"]:
        wrong = {best: count for (truth, best), count in pairs.items() if str(truth) == one["class"]}
        assert one["confused"] == max(wrong.values(), default=0)
        if wrong:
            assert wrong[int(one["most_confused_with"])] == one["confused"]
        else:
            assert one["most_confused_with"] is None
    supports = [one["support"] for one in found["classes"]]
    assert supports == sorted(supports, reverse=True)


def truths(images, rows):
    """Classes of some images, of a missing image, and of one that was never an input."""
    drawn = random.Random(3)
    best = {row["uri"]: row["class_ids"] for row in rows}
    known = {uri: drawn.choice([*best[uri][:2], drawn.randrange(11)]) for uri in images[: COUNT - 5]}
    return {**known, images[-1]: 3, "/never/asked for.png": 4}


def write_text(path, pairs):
    lines = [f"{uri} {number}" if number % 2 else f"{uri}\t{number}" for uri, number in pairs]
    path.write_text("# image and class\n\n" + "\r\n".join(lines) + "\n")


def write_gzip(path, pairs):
    path.write_bytes(gzip.compress("".join(f"{uri} {number}\n" for uri, number in pairs).encode()))


def write_csv(path, pairs):
    with path.open("w", newline="", encoding="utf-8-sig") as file:
        csv.writer(file, delimiter="\t" if path.suffix == ".tsv" else ",").writerows(
            [("split", "uri", "label"), *(("val, or not", uri, number) for uri, number in pairs)]
        )


def write_names(path, pairs):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("path", "species"), *((uri, CLASSES[number]) for uri, number in pairs)])


def write_parquet(path, pairs):
    uris, numbers = zip(*pairs, strict=True)
    pq.write_table(pa.table({"url": uris, "class_id": numbers, "note": [0.5] * len(uris)}), path)


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("truth.txt", write_text),
        ("truth.gz", write_gzip),
        ("truth.csv", write_csv),
        ("truth.tsv", write_csv),
        ("names.csv", write_names),
        ("truth.parquet", write_parquet),
    ],
)
def test_files_of_every_format(jobs, images, tmp_path, name, write):
    known = truths(images, jobs["named"].rows)
    write(tmp_path / name, list(known.items()))
    found = evaluate(str(jobs["named"].output), str(tmp_path / name)).to_json()
    check(
        found,
        jobs["named"].rows,
        lambda row: known.get(row["uri"]),
        CLASSES.__getitem__ if write is write_names else str,
    )
    assert (found["failed"], found["failed_without_truth"], found["truths_without_row"]) == (1, 1, 1)
    assert found["truth_by"] == "uri"


def test_a_file_by_ref_id_tells_two_rows_of_one_image_apart(jobs, tmp_path):
    rows = jobs["unnamed"].rows
    known = {row["ref_id"]: number % 11 for number, row in enumerate(rows[:-2])}
    pq.write_table(
        pa.table({"ref_id": list(known), "mine": [f"{n}" for n in known.values()], "x": [0] * len(known)}),
        tmp_path / "truth.parquet",
    )
    found = evaluate(str(jobs["unnamed"].output), str(tmp_path / "truth.parquet"), "mine").to_json()
    assert found["truth_by"] == "ref_id"
    right = sum(row["class_ids"][0] == known.get(row["ref_id"]) for row in rows)
    assert (found["evaluated"], found["top_1"]) == (len(known), right / len(known))


def test_results_and_truths_on_gs(gcs, jobs, images):
    output = jobs["named"].output
    for path in output.rglob("*"):
        if path.is_file():
            gcs.put(f"out/{path.relative_to(output)}", path.read_bytes())
    known = truths(images, jobs["named"].rows)
    truth = gcs.put("truth.csv", b"uri,class\n" + b"".join(f"{u},{n}\n".encode() for u, n in known.items()))
    found = evaluate(gcs.uri("out"), truth).to_json()
    check(found, jobs["named"].rows, lambda row: known.get(row["uri"]))


def test_the_command_prints_a_table_or_json(jobs):
    output = jobs["named"].output
    found = evaluate(str(output), "id").to_json()
    as_json = command("evaluate", output, "--truth", "id", "--json")
    assert as_json.returncode == 0, as_json.stderr
    assert json.loads(as_json.stdout) == found
    shown = command("evaluate", "--truth", "id", "--classes", output).stdout
    interval = found["top_1_interval"]
    assert (
        f"top-1     {found['top_1']:.4f}  of {found['evaluated']} images; at 95 % {interval['low']:.4f} to "
        f"{interval['high']:.4f}\n"
    ) in shown
    assert f"top-5     {found['top_k']['accuracy']:.4f}\n" in shown
    assert "2 images failed, with or without a truth" in shown
    table = shown.split("\n\n")[1].splitlines()
    assert table[0].split() == ["class", "images", "precision", "recall", "most", "confused", "with"]
    assert len(table) == 1 + len(found["classes"])
    first = found["classes"][0]
    assert table[1].startswith(f"{first['class']} class {first['class']} ")
    assert f" {first['support']} " in table[1]


def test_no_image_in_common_is_1(jobs, tmp_path):
    truth = uri_list(tmp_path / "truth.txt", ["/elsewhere/a.png 1"])
    done = command("evaluate", jobs["named"].output, "--truth", truth)
    assert done.returncode == 1
    assert "no image has both" in done.stderr
    assert "1 truths match no image of this result" in done.stdout


@pytest.mark.parametrize(
    ("result", "truth", "message"),
    [
        ("named", "label", "beamlabel wrote that column"),
        ("named", "price", "neither names nor whole numbers"),
        ("named", "nothing", "neither a kept column of the result (id, id_text, species, wrong, price) nor a file"),
        ("unnamed", "species", "the classes of the result have no names"),
        ("named", "two.txt", "two classes for 'a.png': '1' and '2'"),
        ("named", "bad.txt", "line 2 is not an image"),
        ("named", "empty.txt", "no image with a class"),
        ("unnamed", "names.txt", "'tench' is not a class id"),
        ("named", "nokey.csv", "no column is named ref_id, "),
        ("named", "many.csv", "name the column of classes with --truth_column; columns: uri, one, two"),
        ("named", "short.csv", "line 3 has 1 fields, but the first line has 2"),
        ("named", "broken.parquet", "not a readable Parquet file"),
        ("named", "image.png", "neither Parquet nor text"),
        ("named", "float.parquet", "neither names nor whole numbers"),
    ],
)  # fmt: skip
def test_mistakes_are_usage_errors(jobs, tmp_path, monkeypatch, result, truth, message):
    monkeypatch.chdir(tmp_path)
    Path("two.txt").write_text("a.png 1\na.png 2\n")
    Path("bad.txt").write_text("a.png 1\nb.png\n")
    Path("empty.txt").write_text("# nothing\n")
    Path("names.txt").write_text("a.png tench\n")
    Path("nokey.csv").write_text("name,class\na,1\n")
    Path("many.csv").write_text("uri,one,two\na,1,2\n")
    Path("short.csv").write_text("uri,class\na,1\nb\n")
    photos(tmp_path / "photos", 1)[0].rename("image.png")
    Path("broken.parquet").write_bytes(b"PAR1 and no more")
    pq.write_table(pa.table({"uri": ["a"], "class": [1.5]}), "float.parquet")
    with pytest.raises(UsageError) as caught:
        evaluate(str(jobs[result].output), truth)
    assert message in str(caught.value)


@pytest.mark.parametrize("damage", ["shard", "first shard", "failures", "manifest"])
def test_a_damaged_result_is_named(jobs, images, tmp_path, damage):
    output = Path(shutil.copytree(jobs["named"].output, tmp_path / "out"))
    truth = uri_list(tmp_path / "truth.txt", [f"{uri} 1" for uri in images])
    shards = [file["name"] for file in jobs["named"].manifest["files"] if file["kind"] == "data"]
    name = {"shard": shards[-1], "first shard": shards[0], "manifest": "_MANIFEST.json"}.get(damage)
    path = output / name if name else next((output / "_failures").iterdir())
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UsageError, match=path.name):
        evaluate(str(output), str(truth))


def test_results_that_cannot_be_evaluated(tmp_path):
    uris = uri_list(tmp_path / "in.txt", photos(tmp_path / "photos", 1))
    truth = str(uri_list(tmp_path / "truth.txt", ["a 1"]))
    label(tmp_path / "features", "--input", uris, module=TINY_FEATURES)
    for name, message in (
        ("features", "embeddings but no classes"),
        ("nothing", "not a result of beamlabel"),
    ):
        with pytest.raises(UsageError, match=message):
            evaluate(str(tmp_path / name), truth)
