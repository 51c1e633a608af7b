"""``beamlabel train``: from labeled outputs to a module, like a user."""

import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from support.jobs import TINY_FEATURES, FinishedJob, label, relabel

pytest.importorskip("tensorflow")

from beamlabel.pipeline.commands.train import main
from beamlabel.pipeline.errors import UsageError
from beamlabel.pipeline.output.verify import verify
from beamlabel.transforms.hub.files import fingerprint, scan

CLASSES = ("blue", "green", "red")
EACH = 24
FAST = ("--epochs", "15")


def picture(kind, number):
    """A noisy, uniform image that is brighter in one channel."""
    rng = np.random.default_rng([CLASSES.index(kind), number])
    pixels = rng.normal(90, 40, (32, 32, 3))
    pixels[..., 2 - CLASSES.index(kind)] += rng.uniform(20, 90)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """Photographs in class directories, one of them twice."""
    photos = tmp_path_factory.mktemp("photos")
    for kind in CLASSES:
        (photos / kind).mkdir()
        for number in range(EACH):
            picture(kind, number).save(photos / kind / f"{number}.png")
    shutil.copy(photos / "red" / "0.png", photos / "red" / "copy.png")
    return photos


@pytest.fixture(scope="module")
def labels(directory, tmp_path_factory) -> FinishedJob:
    return label(tmp_path_factory.mktemp("labels") / "out", "--input", directory, "--shard_rows", 10)


@pytest.fixture(scope="module")
def mine(labels, tmp_path_factory):
    """A module trained with ``--truth parent``."""
    output = tmp_path_factory.mktemp("models") / "mine"
    assert train(labels.output, output, "--truth", "parent") == 0
    return output


def train(labels, output, *arguments):
    return main([str(labels), *map(str, arguments), "--output", str(output), *FAST])


def record(module):
    return json.loads((module / "_TRAINING.json").read_text())


def modules_fingerprint(module):
    return fingerprint(one for one in scan(module) if not one.path.startswith("_"))


def refused(labels, output, *arguments):
    with pytest.raises(UsageError) as error:
        train(labels, output, *arguments)
    assert not output.exists()
    return str(error.value)


def test_the_record_and_the_report(labels, mine):
    found = record(mine)
    images = len(CLASSES) * EACH + 1
    assert found["classes"] == list(CLASSES)
    assert sum(one["images"] for one in found["accuracy"].values()) == images
    assert found["accuracy"]["train"]["value"] > 0.8, "chance is 0.33"
    base, split = found["facts"]["base"], found["facts"]["split"]
    assert base["fingerprint"] == labels.manifest["module"]["fingerprint"]
    assert split["seed"] == 0 and split["train"] + split["validation"] + split["test"] == images
    assert len(found["facts"]["truth"]["sha256"]) == 64
    assert {"tensorflow", "keras", "cleanlab", "beamlabel"} <= found["facts"]["versions"].keys()
    assert [one["images"] for one in found["curve"]] == sorted(one["images"] for one in found["curve"])
    page = (mine / "_report.html").read_text()
    assert all(name in page for name in CLASSES) and "http-equiv" in page


def test_relabeling_is_labeling_anew(directory, labels, mine, tmp_path):
    """A nightly job that skips labeled images agrees: it has nothing left to do."""
    there = relabel(tmp_path / "relabeled", labels.output, module=mine)
    anew = label(tmp_path / "anew", "--input", directory, module=mine)
    assert there.code == anew.code == 0 and not verify(str(there.output)).problems
    for one, other in zip(
        there.table.sort_by("uri").to_pylist(), anew.table.sort_by("uri").to_pylist(), strict=True
    ):
        for name in one.keys() - {"labeled_at"}:
            if name in ("score", "scores", "embedding"):
                np.testing.assert_allclose(one[name], other[name], rtol=0, atol=1e-4)
            else:
                assert one[name] == other[name], name
    night = label(tmp_path / "night", "--input", directory, "--skip_labeled", there.output, module=mine)
    assert night.manifest["rows"]["skipped"] == len(there.rows)


@pytest.mark.long
def test_the_same_from_other_shards_and_from_tfrecords(directory, labels, mine, tmp_path):
    """The order, number and format of the shards change no bit of the module."""
    listing = tmp_path / "list.txt"
    uris = sorted(labels.table.column("uri").to_pylist(), key=lambda uri: uri[::-1])
    listing.write_text("".join(f"{uri}\n" for uri in uris))
    other = label(
        tmp_path / "tf", "--input", listing, "--shard_rows", 31, "--output_format", "tfrecord",
        "--tfrecord_compression", "gzip",
    )  # fmt: skip
    assert train(other.output, tmp_path / "again", "--truth", "parent") == 0
    assert modules_fingerprint(tmp_path / "again") == modules_fingerprint(mine)
    assert record(tmp_path / "again")["accuracy"] == record(mine)["accuracy"]


def test_a_file_of_truth_corrections_and_an_image_of_two_nights(directory, labels, mine, tmp_path):
    nights = tmp_path / "nights"
    shutil.copytree(labels.output, nights / "dt=1")
    label(nights / "dt=2", "--input", directory / "red")
    truth = tmp_path / "truth.csv"
    rows = labels.rows
    truth.write_text("file,class\n" + "".join(f"{one['uri']},{one['uri'].split('/')[-2]}\n" for one in rows))
    first = next(one for one in rows if one["uri"].endswith("/blue/0.png"))
    corrections = tmp_path / "corrections.csv"
    corrections.write_text(f"image_id,uri,verdict,label\n{first['image_id']},{first['uri']},wrong,green\n")
    assert train(nights, tmp_path / "two", "--truth", truth, "--truth", corrections) == 0
    found, before = record(tmp_path / "two"), record(mine)
    assert found["facts"]["truth"]["images"] == before["facts"]["truth"]["images"]
    counts = {one["name"]: one["train"] + one["test"] for one in found["class_scores"]}
    assert found["facts"]["truth"]["sha256"] != before["facts"]["truth"]["sha256"]
    assert sum(counts.values()) <= found["facts"]["truth"]["images"]


def test_copies_with_different_truth_are_left_out_and_told(labels, tmp_path):
    truth = tmp_path / "truth.csv"
    lines = []
    for one in labels.rows:
        kind = "green" if one["uri"].endswith("copy.png") else one["uri"].split("/")[-2]
        lines.append(f"{one['uri']},{kind}\n")
    truth.write_text("uri,class\n" + "".join(lines[1:]) + "gone.png,red\n")
    assert train(labels.output, tmp_path / "out", "--truth", truth) == 0
    told = {one["what"]: one["count"] for one in record(tmp_path / "out")["problems"]}
    assert 2 in told.values(), "red/0.png and its copy"
    assert len(told) >= 3, "and the name of no row, and the row without a truth"


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("--truth", "nowhere.csv"), "nowhere.csv"),
        (("--truth", "parent", "--module", TINY_FEATURES), "--module"),
        (("--truth", "parent", "--min_images", 1000), "1000"),
        (("--truth", "parent", "--split_column", "uri"), "--split_column"),
        (("--truth", "parent", "--split_column", "fold"), "fold"),
        (("--truth", "parent", "--split_column", "embedding"), "--split_column"),
        (("--truth", "parent", "--split_column", "width"), "--split_column"),
    ],
)
def test_refusals(labels, tmp_path, arguments, named):
    assert named in refused(labels.output, tmp_path / "out", *arguments)


def test_an_output_that_is_there_is_left_alone(labels, mine):
    before = modules_fingerprint(mine)
    with pytest.raises(UsageError, match="exists"):
        train(labels.output, mine, "--truth", "parent")
    assert modules_fingerprint(mine) == before


def test_an_output_that_cannot_be_written_is_refused_before_the_training(labels, tmp_path):
    (tmp_path / "file").touch()
    assert "is a file, not a directory" in refused(
        "nowhere", tmp_path / "file" / "below" / "mine", "--truth", "parent"
    )


def test_a_module_is_not_written_into_the_output_of_a_run(labels):
    assert "inside" in refused(labels.output, labels.output / "models" / "mine", "--truth", "parent")
    assert not (labels.output / "models").exists()


def test_embeddings_that_cannot_be_used(directory, labels, tmp_path):
    without = label(tmp_path / "without", "--input", directory / "red", "--no_embeddings")
    assert "embeddings" in refused(without.output, tmp_path / "out", "--truth", "parent")
    other = tmp_path / "both"
    shutil.copytree(labels.output, other / "a")
    label(other / "b", "--input", directory / "red", "--crop", 0.875)
    assert "crop" in refused(other, tmp_path / "out", "--truth", "parent")
    scaled = label(tmp_path / "scaled", "--input", directory, "--normalize_embeddings")
    assert "--normalized" in refused(scaled.output, tmp_path / "out", "--truth", "parent")
    assert train(scaled.output, tmp_path / "out", "--truth", "parent", "--normalized") == 0
    there = relabel(tmp_path / "relabeled", scaled.output, module=tmp_path / "out")
    assert there.manifest["rows"]["predicted"] == len(CLASSES) * EACH + 1


@pytest.mark.long
def test_several_classes_an_image(labels, tmp_path):
    rows = labels.rows
    sets = [["odd"] * (len(one["uri"]) % 2) + [one["uri"].split("/")[-2]] for one in rows]
    truth = tmp_path / "truth.parquet"
    pq.write_table(pa.table({"uri": [one["uri"] for one in rows], "classes": sets}), truth)
    assert train(labels.output, tmp_path / "out", "--truth", truth, "--truth_column", "classes") == 0
    assert record(tmp_path / "out")["multi_label"] is True
    scored = label(tmp_path / "labeled", "--input", rows[0]["uri"].rsplit("/", 1)[0], module=tmp_path / "out")
    assert scored.manifest["metadata"]["beamlabel.scores"] == "sigmoid"
