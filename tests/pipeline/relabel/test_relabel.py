"""Rows of earlier outputs get the classes of an own module: the same numbers as labeling again, without images."""

import hashlib
import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from beamlabel.pipeline.output.verify import verify
from support.jobs import read_examples, relabel

ROWS = 38
# Columns that belong to the run, not to the row.
CLOSE = ("score", "scores", "embedding")


def in_order(table):
    return table.sort_by([("ref_id", "ascending")]) if table.num_rows else table


def assert_same_rows(found, expected):
    """Checks that columns and their order are the same and values equal up to the last bits of floats."""
    assert found.schema.equals(expected.schema), f"{found.schema}\n{expected.schema}"
    found, expected = in_order(found), in_order(expected)
    for name in expected.schema.names:
        one, other = found[name].to_pylist(), expected[name].to_pylist()
        if name in CLOSE:
            np.testing.assert_allclose(np.array(one), np.array(other), atol=1e-4)
        else:
            assert one == other, name


@pytest.fixture(scope="module")
def relabeled(modules, labeled, tmp_path_factory):
    directory = tmp_path_factory.mktemp("relabeled")
    job = relabel(
        directory / "out",
        labeled.parquet.output,
        "--top_k",
        2,
        "--report",
        module=modules.own,
    )
    assert job.code == 0
    return job


def test_all_columns_are_those_of_labeling_anew(relabeled, labeled):
    assert_same_rows(relabeled.table, labeled.anew.table)


def test_the_output_is_one_like_any_other(relabeled, labeled):
    assert verify(str(relabeled.output)).problems == ()
    manifest = relabeled.manifest
    assert manifest["rows"] == {"input": ROWS, "predicted": ROWS, "failed": 0, "skipped": 0}
    anew = labeled.anew.manifest
    for key in (
        "preprocessing_id",
        "module_fingerprint",
        "module_handle",
        "scores",
        "labels_sha256",
        "top_k",
    ):
        assert manifest["metadata"][f"beamlabel.{key}"] == anew["metadata"][f"beamlabel.{key}"], key
    assert manifest["preprocessing"] == anew["preprocessing"]
    outputs = manifest["relabeled"]["outputs"]
    assert outputs == [{"output": str(labeled.parquet.output), "run_id": labeled.parquet.manifest["run_id"]}]
    report = (relabeled.output / "_report.html").read_text()
    assert all(name in report for name in set(relabeled.table["label"].to_pylist()))


def test_examples_in_and_out(modules, labeled, relabeled, tmp_path):
    """From gzipped TFRecords, whose types are in the manifest, and to TFRecords."""
    options = ("--top_k", 2)
    job = relabel(tmp_path / "a", labeled.tfrecord.output, *options, module=modules.own)
    assert job.code == 0
    assert_same_rows(job.table, relabeled.table)
    tfrecord = (*options, "--output_format", "tfrecord", "--limit", 20)
    job = relabel(tmp_path / "b", labeled.tfrecord.output, *tfrecord, module=modules.own)
    assert verify(str(job.output)).problems == ()
    rows = {row["ref_id"][0].decode(): row for row in read_examples(job.output)}
    assert len(rows) == 20
    for row in relabeled.rows:
        if (example := rows.get(row["ref_id"])) is not None:
            assert example["label"][0].decode() == row["label"]
            assert example.get("customer", [None])[0] == row["customer"]
            np.testing.assert_allclose(example["embedding"], row["embedding"], atol=1e-6)


def test_many_nights_are_one_input(modules, labeled, tmp_path):
    """Kept columns of one night are null in the other's rows and get the common type."""
    job = relabel(tmp_path / "out", labeled.nights, "--no_embeddings", module=modules.own)
    assert job.code == 0
    nights = [labeled.parquet, labeled.other_night]
    counts = [night.manifest["rows"]["predicted"] for night in nights]
    assert job.manifest["rows"]["input"] == sum(counts) == job.table.num_rows
    table = job.table
    assert "embedding" not in table.schema.names
    kinds = {name: table.schema.field(name).type for name in ("customer", "taken", "note")}
    assert kinds == {"customer": pa.int64(), "taken": pa.timestamp("ms", "UTC"), "note": pa.string()}
    by_id = {row["ref_id"]: row for row in job.rows}
    second = [row for id_, row in by_id.items() if "second.parquet" in id_]
    assert len(second) == counts[1]
    assert all(row["note"] == f"né {row['ref_id'].split('#')[1]}" and row["taken"] is None for row in second)
    for row in labeled.parquet.rows:
        again = by_id[row["ref_id"]]
        names = ("uri", "image_id", "customer", "taken", "tags", "width", "content_hash", "source_version")
        assert [again[name] for name in names] == [row[name] for name in names]
        assert again["note"] is None


def with_bad_rows(output, target, bad):
    """A copy of an output with some NaN embeddings, which still passes verify."""
    shutil.copytree(output, target)
    manifest = json.loads((target / "_MANIFEST.json").read_text())
    for file in manifest["files"]:
        if file["kind"] == "data":
            path = target / file["name"]
            table = pq.read_table(path)
            kind = table.schema.field("embedding").type
            values = [
                [float("nan")] * kind.list_size if id_ in bad else row
                for id_, row in zip(table["ref_id"].to_pylist(), table["embedding"].to_pylist(), strict=True)
            ]
            place = table.schema.get_field_index("embedding")
            column = pa.array(values, kind)
            pq.write_table(table.set_column(place, table.schema.field("embedding"), column), path)
            content = path.read_bytes()
            file |= {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    (target / "_MANIFEST.json").write_text(json.dumps(manifest))
    return target


def test_bad_rows_are_failures_and_nothing_is_lost(modules, labeled, tmp_path):
    ids = [row["ref_id"] for row in labeled.parquet.rows]
    bad = {ids[0], ids[17], ids[-1]}
    earlier = with_bad_rows(labeled.parquet.output, tmp_path / "earlier", bad)
    job = relabel(tmp_path / "out", earlier, "--max_error_rate", 1, module=modules.own)
    assert job.code == 0
    assert job.manifest["rows"] == {"input": ROWS, "predicted": ROWS - 3, "failed": 3, "skipped": 0}
    assert {failure["ref_id"] for failure in job.failures} == bad
    assert {failure["reason"] for failure in job.failures} == {"inference_error"}
    by_id = {row["ref_id"]: row for row in labeled.parquet.rows}
    assert all(one["content_hash"] == by_id[one["ref_id"]]["content_hash"] for one in job.failures)
    assert {row["ref_id"] for row in job.rows} == set(ids) - bad
    assert verify(str(job.output)).problems == ()


def test_a_killed_run_continues(modules, labeled, relabeled, cut_off, opened, tmp_path):
    options = (labeled.parquet.output, "--top_k", 2, "--shard_rows", 9)
    assert cut_off(tmp_path / "out", *options, job=relabel, module=modules.own).code == 3
    opened.clear()
    job = relabel(tmp_path / "out", *options, "--if_exists", "resume", module=modules.own)
    assert job.code == 0
    assert job.manifest["resumed_units"] == 2
    assert len(opened) == job.manifest["units"] - 2
    assert in_order(job.table).equals(in_order(relabeled.table))


def test_units_are_cut_and_their_rows_are_in_order(modules, labeled, tmp_path):
    job = relabel(tmp_path / "out", labeled.parquet.output, "--shard_rows", 5, module=modules.own)
    shards = sorted(job.output.glob("part-*.parquet"))
    rows = [pq.read_table(shard)["ref_id"].to_pylist() for shard in shards]
    earlier = sorted(labeled.parquet.output.glob("part-*.parquet"))
    assert [id_ for shard in rows for id_ in shard] == [
        id_ for shard in earlier for id_ in pq.read_table(shard)["ref_id"].to_pylist()
    ]
    assert max(map(len, rows)) == 5


def test_a_head_that_normalizes(modules, labeled, tmp_path):
    """The head takes raw embeddings; the rows keep theirs."""
    import tensorflow as tf

    job = relabel(tmp_path / "raw", labeled.parquet.output, "--scores", "none", module=modules.normalizing)
    rows = in_order(labeled.parquet.table)
    table = in_order(job.table)
    assert table["embedding"].to_pylist() == rows["embedding"].to_pylist()
    loaded = tf.saved_model.load(str(modules.normalizing))
    features = tf.constant(rows["embedding"].to_pylist(), tf.float32)
    logits = np.sort(loaded.signatures["head"](features=features)["logits"].numpy())[:, ::-1]
    np.testing.assert_allclose(np.array(table["scores"].to_pylist()), logits, atol=1e-4)
