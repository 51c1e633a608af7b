"""Nights with own modules: rows of the same base are relabeled by the head alone; only new images are fetched."""

import importlib
import json
import os
import shutil
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from beamlabel.pipeline.commands import verify
from beamlabel.pipeline.errors import UsageError
from beamlabel.pipeline.job import plan as planning
from beamlabel.pipeline.options.command_table import COMMANDS
from beamlabel.transforms import storage
from beamlabel.transforms.loading import fetch as fetching
from beamlabel.transforms.rows.metadata_keys import FEATURES_ID
from support.jobs import TINY, TINY_FEATURES, label, photos, read_examples, uri_list
from support.nights import at_a_later_time
from support.own_modules import NAMES, save_own


@pytest.fixture(scope="module")
def heads(tmp_path_factory):
    """Two own modules on one base with different classes."""
    directory = tmp_path_factory.mktemp("models")
    names = {"one": NAMES, "two": (*NAMES, "green")}
    return {
        name: save_own(directory / name, TINY, directory / "cache", names=names[name])[0] for name in names
    }


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """Photos, and the night that labeled them by the base; tests must not change them."""
    directory = tmp_path_factory.mktemp("first")
    paths = photos(directory / "photos", 8)
    with at_a_later_time():
        job = label(directory / "base", "--input", uri_list(directory / "list.txt", paths), "--shard_rows", 5)
    assert job.code == 0
    return job, paths


def night(output, *arguments, skip, module):
    skips = ("--skip_labeled", *skip) if skip else ()
    with at_a_later_time():
        return label(output, *arguments, *skips, module=module)


def outcome(job):
    """The numbers of predicted, relabeled, failed and skipped images; relabeled ones are among the predicted."""
    rows = job.manifest["rows"]
    assert job.manifest["conserved"]
    return rows["predicted"], job.manifest["rows_relabeled"], rows["failed"], rows["skipped"]


@contextmanager
def fetched():
    """The names of the local images that are fetched during the test."""
    names, read = [], fetching._local

    def local(path, *arguments):
        names.append(Path(path).name)
        return read(path, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fetching, "_local", local)
        yield names


def same(job, whole):
    """Whether rows equal those of a run that fetched all images, in every column except the run's time."""
    expected = {row["uri"]: row for row in whole.rows}
    for row in job.rows:
        other = expected[row["uri"]]
        assert row.keys() == other.keys()
        for name in row.keys() - {"score", "scores", "embedding", "labeled_at", "ref_id"}:
            assert row[name] == other[name], name
        np.testing.assert_allclose(row["scores"], other["scores"], atol=1e-4)
        np.testing.assert_allclose(row["embedding"], other["embedding"], atol=1e-4)
    return True


@pytest.mark.long
def test_a_week_of_heads(tmp_path, heads, first):
    base, paths = first
    more = photos(tmp_path / "more", 10)[8:]
    labels = tmp_path / "labels"
    shutil.copytree(base.output, labels / "dt=1")
    whole = label(
        tmp_path / "whole", "--input", uri_list(tmp_path / "all.txt", [*paths, *more]), module=heads["one"]
    )
    list_ = ("--input", uri_list(tmp_path / "list.txt", [*paths, more[0]]), "--shard_rows", 4)
    with fetched() as names:
        two = night(labels / "dt=2", *list_, skip=[labels / "dt=*"], module=heads["one"])
    assert (outcome(two), two.code) == ((9, 8, 0, 0), 0)
    assert names == [more[0].name]
    assert same(two, whole)
    # In the order of the input, whichever run labeled them.
    assert [row["uri"] for row in two.rows] == list(map(str, [*paths, more[0]]))

    # Another head: it takes the newest rows of the base and the previous head.
    list_ = (
        "--input",
        uri_list(tmp_path / "list.txt", [more[1], *reversed(paths), more[0]]),
        "--shard_rows",
        4,
    )
    with fetched() as names:
        three = night(labels / "dt=3", *list_, skip=[labels / "dt=*"], module=heads["two"])
    assert (outcome(three), names) == ((10, 9, 0, 0), [more[1].name])
    assert {row["label"] for row in three.rows} <= {*NAMES, "green"}

    # The first head again: its rows exist.
    with fetched() as names:
        four = night(labels / "dt=4", *list_, skip=[labels / "dt=*"], module=heads["one"])
    assert (outcome(four), names) == ((1, 1, 0, 9), [])
    assert same(four, whole)
    for job in (two, three, four):
        assert verify.main([str(job.output)]) == 0
    run("compact", labels / "dt=2", labels / "dt=4", "--output", tmp_path / "compacted")
    with fetched() as names:
        five = night(labels / "dt=5", *list_, skip=[tmp_path / "compacted"], module=heads["two"])
    assert (outcome(five), names) == ((10, 10, 0, 0), [])
    assert same(five, three)


def run(name, *words):
    assert importlib.import_module(COMMANDS[name].module).main(list(map(str, words))) == 0


def test_changed_images_are_fetched(tmp_path, heads):
    paths = photos(tmp_path / "photos", 8)
    source = ("--input", f"{tmp_path / 'photos'}/", "--input_format", "images", "--changed")
    labels = tmp_path / "labels"
    night(labels / "dt=1", *source, skip=[labels], module=TINY)
    os.utime(paths[1], (1e9, 1e9))
    assert (
        night(labels / "dt=2", *source, skip=[labels], module=TINY).manifest["skipped_by_reason"]["unchanged"]
        == 1
    )
    paths[3].write_bytes(paths[4].read_bytes() + b"more")
    os.utime(paths[5], (1e9, 1e9))  # which no run has seen yet
    new = shutil.copy(paths[0], tmp_path / "photos" / "new.png")
    with fetched() as names:
        three = night(labels / "dt=3", *source, skip=[labels], module=heads["one"])
    assert outcome(three) == (9, 6, 0, 0)
    assert sorted(names) == sorted([Path(new).name, paths[3].name, paths[5].name])
    assert same(three, label(tmp_path / "whole", *source[:-1], module=heads["one"]))
    # The touched one is recognized by its current version and not fetched again.
    with fetched() as names:
        four = night(labels / "dt=4", *source, skip=[labels], module=heads["one"])
        five = night(labels / "dt=5", *source, skip=[labels], module=heads["two"])
    assert (outcome(four), outcome(five), names) == ((0, 0, 0, 9), (9, 9, 0, 0), [])
    # An image that is deleted and returns counts as another one.
    content = paths[6].read_bytes()
    paths[6].unlink()
    night(labels / "dt=6", *source, "--tombstones", skip=[labels], module=heads["two"])
    paths[6].write_bytes(content)
    with fetched() as names:
        seven = night(labels / "dt=7", *source, skip=[labels], module=heads["one"])
    assert names == [paths[6].name]
    assert seven.manifest["rows_relabeled"] == 0


@pytest.mark.parametrize("trouble", ["gone", "replaced", "damaged"])
def test_a_file_that_is_another_by_now_costs_a_fetch(tmp_path, heads, first, monkeypatch, trouble, caplog):
    base, paths = first
    shutil.copytree(base.output, tmp_path / "base")
    shards = sorted((tmp_path / "base").glob("part-*.parquet"))
    head_of = planning.head_of

    def meanwhile(*arguments):
        if trouble == "gone":
            shards[0].unlink()
        elif trouble == "replaced":
            shutil.copy(shards[1], shards[0])
        else:
            state = shards[0].stat()
            shards[0].write_bytes(shards[0].read_bytes()[:1000].ljust(state.st_size))
            os.utime(shards[0], ns=(state.st_atime_ns, state.st_mtime_ns))
        return head_of(*arguments)

    monkeypatch.setattr(planning, "head_of", meanwhile)
    with fetched() as names:
        job = night(
            tmp_path / "out", "--input", base.manifest["options"]["input"][0],
            skip=[tmp_path / "base"], module=heads["one"],
        )  # fmt: skip
    assert (outcome(job), job.code) == ((8, 3, 0, 0), 0)
    assert sorted(names) == [path.name for path in paths[:5]]
    assert str(shards[0]) in caplog.text


def test_nights_of_tfrecords(tmp_path, heads, first):
    base, _ = first
    source = ("--input", base.manifest["options"]["input"][0])
    written = ("--output_format", "tfrecord", "--tfrecord_compression", "gzip")
    night(tmp_path / "one", *source, *written, skip=[tmp_path / "none"], module=TINY)
    with fetched() as names:
        two = night(tmp_path / "two", *source, *written, skip=[tmp_path / "one"], module=heads["one"])
        three = night(tmp_path / "three", *source, skip=[tmp_path / "two"], module=heads["two"])
        # From one row format to the other, and with fewer columns.
        four = night(
            tmp_path / "four", *source, *written, "--no_embeddings", skip=[base.output], module=heads["one"]
        )
    assert names == [] and {outcome(job) for job in (two, three, four)} == {(8, 8, 0, 0)}
    whole = label(tmp_path / "whole", *source, module=heads["two"])
    assert same(three, whole)
    found = {row["uri"][0].decode(): row for row in read_examples(tmp_path / "two", "gzip")}
    without = {row["uri"][0].decode(): row for row in read_examples(tmp_path / "four", "gzip")}
    for row in label(tmp_path / "whole one", *source, module=heads["one"]).rows:
        for examples in (found, without):
            assert examples[row["uri"]]["label"][0].decode() == row["label"]
            np.testing.assert_allclose(examples[row["uri"]]["scores"], row["scores"], atol=1e-4)
        assert "embedding" not in without[row["uri"]]


def test_other_features_are_computed(tmp_path, heads, first):
    """With another base, decoding or length; only the scores' function may differ."""
    base, _ = first
    source = ("--input", base.manifest["options"]["input"][0])
    another = night(tmp_path / "another", *source, skip=[], module=TINY_FEATURES)
    other = night(tmp_path / "other", *source, skip=[another.output], module=heads["one"])
    assert outcome(other) == (8, 0, 0, 0)
    for number, option in enumerate([("--crop", 0.5), ("--normalize_embeddings",)]):
        earlier = night(tmp_path / f"base {number}", *source, *option, skip=[], module=TINY)
        job = night(tmp_path / str(number), *source, skip=[earlier.output], module=heads["one"])
        assert outcome(job) == (8, 0, 0, 0), option
    # The head does not apply to embeddings of length 1.
    length_1 = ("--normalize_embeddings", "--skip_labeled", earlier.output)
    assert outcome(label(tmp_path / "length 1", *source, *length_1, module=heads["one"])) == (8, 0, 0, 0)
    with fetched() as names:
        job = night(
            tmp_path / "none",
            *source,
            "--scores",
            "none",
            "--top_k",
            2,
            skip=[base.output],
            module=heads["one"],
        )
    assert (outcome(job), names) == ((8, 8, 0, 0), [])
    assert {len(scores) for scores in job.table.column("scores").to_pylist()} == {2}


def test_a_module_without_a_head_fetches_all(tmp_path, heads, first):
    """Rows of the own module have the features of its base, but the base's own head is unknown."""
    base, _ = first
    source = ("--input", base.manifest["options"]["input"][0])
    mine = night(tmp_path / "mine", *source, skip=[base.output], module=heads["one"])
    assert outcome(mine) == (8, 8, 0, 0)
    assert outcome(night(tmp_path / "again", *source, skip=[mine.output], module=TINY)) == (8, 0, 0, 0)
    staged = tmp_path / "again" / "_beamlabel"
    assert not staged.exists() or not list(staged.rglob("features.*"))


def test_nights_of_earlier_versions(tmp_path, heads, first):
    """Earlier versions do not record the id of their features."""
    base, _ = first
    shutil.copytree(base.output, tmp_path / "base")
    for path in (tmp_path / "base").glob("part-*.parquet"):
        table = pq.read_table(path)
        metadata = {
            name: value for name, value in table.schema.metadata.items() if name != FEATURES_ID.encode()
        }
        assert len(metadata) == len(table.schema.metadata) - 1
        pq.write_table(table.replace_schema_metadata(metadata), path)
    path = tmp_path / "base" / "_MANIFEST.json"
    manifest = json.loads(path.read_text())
    del manifest["metadata"][FEATURES_ID], manifest["module"]["features_of"]
    path.write_text(json.dumps(manifest))
    source = ("--input", base.manifest["options"]["input"][0])
    with fetched() as names:
        job = night(tmp_path / "out", *source, skip=[tmp_path / "base"], module=heads["one"])
    assert (outcome(job), names) == ((8, 8, 0, 0), [])


def test_inline_images_and_kept_columns(tmp_path, heads, first):
    """Columns that the earlier night did not keep come from this run."""
    _, paths = first
    images = [path.read_bytes() for path in paths]
    pq.write_table(pa.table({"image": images, "n": range(8)}), tmp_path / "in.parquet")
    source = ("--input", tmp_path / "in.parquet", "--image_column", "image")
    one = label(tmp_path / "one", *source)
    pq.write_table(
        pa.table({"image": [*images[::-1], images[2] + b"more"], "n": range(9)}), tmp_path / "in.parquet"
    )
    two = night(tmp_path / "two", *source, "--keep_columns", "n", skip=[one.output], module=heads["one"])
    assert outcome(two) == (9, 8, 0, 0)
    rows = {row["n"]: row for row in two.rows}
    assert [row["ref_id"].rpartition("#")[2] for row in two.rows] == [str(n) for n in range(9)]
    before = {row["image_id"]: row for row in one.rows}
    assert all(rows[n]["embedding"] == before[rows[n]["image_id"]]["embedding"] for n in range(8))
    assert [rows[7 - n]["image_id"] for n in range(8)] == [row["image_id"] for row in one.rows]


def test_rows_by_another_output_of_the_module_are_not_the_same(tmp_path, first):
    base, paths = first
    source = ("--input", base.manifest["options"]["input"][0])
    option = ("--features_output", "image_feature_vector:MobilenetV2/global_pool")
    job = night(tmp_path / "other", *source, *option, skip=[base.output], module=TINY)
    assert outcome(job) == (8, 0, 0, 0)
    assert outcome(night(tmp_path / "same", *source, *option, skip=[job.output], module=TINY)) == (0, 0, 0, 8)
    # A table also does not take the first night's rows for the second's, which lacks rows of some images.
    few = uri_list(tmp_path / "list.txt", paths[:3])
    partly = night(tmp_path / "partly", "--input", few, *option, skip=[], module=TINY)
    with pytest.raises(UsageError, match="5 images have neither a row of the module"):
        run("compact", base.output, partly.output, "--output", tmp_path / "compacted")


def test_only_new_objects_of_a_bucket_are_requested(heads, gcs, tmp_path):
    for path in photos(tmp_path / "photos", 8):
        gcs.put(f"photos/{path.name}", path.read_bytes())
    source = ("--input", f"{gcs.url}/photos/", "--input_format", "images", "--changed", "--shard_rows", 4)

    def counted(date, module):
        gcs.server.requests.clear()
        job = night(f"{gcs.url}/labels/dt={date}", *source, skip=[f"{gcs.url}/labels/dt=*/"], module=module)
        assert job.code == 0
        manifest = json.loads(storage.read_bytes(f"{gcs.url}/labels/dt={date}/_MANIFEST.json"))
        return (
            manifest["rows"]["predicted"],
            manifest["rows_relabeled"],
            gcs.server.count(contains="/photos/"),
        )

    assert counted("1", TINY) == (8, 0, 8)
    gcs.put("photos/new.png", (tmp_path / "photos" / "photo 000.png").read_bytes() + b"more")
    assert counted("2", heads["one"]) == (9, 8, 1)
    assert counted("3", heads["two"]) == (9, 9, 0)
    # No new images: neither images nor earlier features are read.
    assert counted("4", heads["two"]) == (0, 0, 0)
