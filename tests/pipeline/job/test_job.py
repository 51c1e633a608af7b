"""The whole job on local files: every input row becomes a row or a failure."""

import hashlib
import json
import shutil

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from beamlabel.transforms.rows.times import iso_time
from beamlabel.transforms.storage.identity import image_id
from support.jobs import TINY, TINY_FEATURES, label, photos, uri_list


@pytest.fixture
def listed(tmp_path):
    paths = photos(tmp_path / "photos", 10)
    return paths, uri_list(tmp_path / "list.txt", paths)


def test_text_in_parquet_out(tmp_path, listed):
    paths, uris = listed
    job = label(tmp_path / "out", "--input", uris)
    assert job.code == 0 and job.succeeded
    table = job.table
    assert table.schema.names == [
        "uri", "ref_id", "image_id", "score", "class_ids", "scores", "embedding", "width", "height", "format",
        "source_bytes", "source_version", "content_hash", "module_handle", "module_fingerprint", "preprocessing_id",
        "labeled_at",
    ]  # fmt: skip
    rows = table.to_pylist()
    assert [row["uri"] for row in rows] == [str(path) for path in paths]
    assert [row["ref_id"] for row in rows] == [f"{uris}#{row}" for row in range(10)]
    assert {(row["width"], row["height"], row["format"]) for row in rows} == {(48, 40, "png")}
    assert [row["source_bytes"] for row in rows] == [path.stat().st_size for path in paths]
    assert all(len(row["class_ids"]) == 5 and len(row["embedding"]) == 64 for row in rows)
    assert table.schema.field("embedding").type == pa.list_(pa.float32(), 64)


def test_the_manifest_names_every_file_and_the_counts_are_conserved(tmp_path, listed):
    paths, uris = listed
    paths[3].write_bytes(b"<html>")
    job = label(tmp_path / "out", "--input", uris, "--max_error_rate", "0.2")
    manifest = job.manifest
    assert job.code == 0
    assert manifest["rows"] == {"input": 10, "predicted": 9, "failed": 1, "skipped": 0}
    assert manifest["conserved"] is True
    assert manifest["failed_by_reason"] == {"not_an_image": 1}
    assert manifest["error_rate"] == pytest.approx(0.1)
    there = {str(p.relative_to(job.output)) for p in job.output.rglob("*") if p.is_file()}
    assert there == {"_MANIFEST.json", "_SUCCESS", *(file["name"] for file in manifest["files"])}
    for file in manifest["files"]:
        content = (job.output / file["name"]).read_bytes()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (file["bytes"], file["sha256"])
    assert {file["kind"]: file["rows"] for file in manifest["files"]} == {"data": 9, "failures": 1}
    assert manifest["options"]["max_error_rate"] == 0.2
    assert manifest["versions"]["apache-beam"] and manifest["versions"]["beamlabel"]
    assert manifest["metrics"]["beamlabel.RunInference"]["num_inferences"] >= 9


def test_the_model_is_loaded_once_and_batches_have_one_size(tmp_path, listed):
    _, uris = listed
    job = label(tmp_path / "out", "--input", uris, "--shard_rows", 3, "--batch_size", 4)
    metrics = job.manifest["metrics"]["beamlabel.RunInference"]
    assert metrics["load_model_latency_milli_secs"]["count"] == 1
    assert job.manifest["units"] == 4
    assert metrics["inference_request_batch_size"]["max"] == 4


def test_beyond_the_error_rate_rows_and_manifest_are_there_but_no_success(tmp_path, listed):
    paths, uris = listed
    paths[0].unlink()
    job = label(tmp_path / "out", "--input", uris, "--min_failures", 1)
    assert job.code == 1
    assert not job.succeeded
    assert len(job.rows) == 9
    (failure,) = job.failures
    assert failure == {
        "uri": str(paths[0]), "ref_id": f"{uris}#0", "stage": "fetch", "reason": "not_found",
        "detail": failure["detail"], "image_id": image_id(str(paths[0])), "source_bytes": None, "source_version": None,
        "content_hash": None, "failed_at": iso_time(job.manifest["labeled_at"]),
    }  # fmt: skip
    assert str(paths[0]) in failure["detail"]
    assert job.manifest["within_error_rate"] is False


def test_a_relative_reference_is_relative_to_base_dir(tmp_path):
    photos(tmp_path / "photos", 2)
    uris = uri_list(tmp_path / "list.txt", ["photo 000.png", "photo 001.png"])
    job = label(tmp_path / "out", "--input", uris, "--base_dir", tmp_path / "photos")
    assert [row["uri"] for row in job.rows] == ["photo 000.png", "photo 001.png"]


def test_relative_options_mean_the_launch_directory(tmp_path, monkeypatch):
    photos(tmp_path / "photos", 2)
    uri_list(tmp_path / "list.txt", ["photos/photo 000.png", "photos/photo 001.png"])
    monkeypatch.chdir(tmp_path)
    job = label("out", "--input", "list.txt")
    assert job.code == 0
    assert [row["ref_id"] for row in job.rows] == [f"{tmp_path}/list.txt#0", f"{tmp_path}/list.txt#1"]


def test_images_named_directly(tmp_path):
    paths = photos(tmp_path / "photos" / "deep", 3) + photos(tmp_path / "photos", 2)
    job = label(tmp_path / "out", "--input", f"{tmp_path}/photos/", "--input_format", "images")
    assert sorted(row["uri"] for row in job.rows) == sorted(map(str, paths))
    assert sorted(row["ref_id"] for row in job.rows) == sorted(f"{path}#0" for path in paths)


def test_parquet_in_nested_directories_with_kept_columns(tmp_path):
    paths = photos(tmp_path / "photos", 6)
    for half in range(2):
        directory = tmp_path / "in" / f"day={half}"
        directory.mkdir(parents=True)
        uris = [str(path) for path in paths[3 * half : 3 * half + 3]]
        kept = {
            "id": pa.array([1, None, 3], pa.int16()),
            "when": pa.array([1000, 2000, 3000], pa.timestamp("ns", "UTC")),
        }
        pq.write_table(pa.table({"uri": uris, **kept}), directory / "part.parquet", row_group_size=1)
    job = label(tmp_path / "out", "--input", f"{tmp_path}/in/", "--keep_columns", "id", "when")
    table = job.table
    assert table.schema.names[:4] == ["uri", "ref_id", "id", "when"]
    assert table.schema.field("id").type == pa.int16()
    assert table.schema.field("when").type == pa.timestamp("us", "UTC")
    assert table["id"].to_pylist() == [1, None, 3, 1, None, 3]


def test_kept_values_that_python_has_no_counterpart_for_are_kept(tmp_path):
    (path,) = photos(tmp_path / "photos", 1)
    far = {
        "when": pa.array([10**12], pa.timestamp("s")),
        "day": pa.array([2 * 10**9], pa.int32()).cast(pa.date32()),
    }
    pq.write_table(pa.table({"uri": [str(path)], **far}), tmp_path / "in.parquet")
    job = label(tmp_path / "out", "--input", tmp_path / "in.parquet", "--keep_columns", "when", "day")
    assert job.code == 0
    assert job.table["when"].cast(pa.int64()).to_pylist() == [
        10**15
    ]  # Parquet stores no seconds: milliseconds
    assert job.table["day"].cast(pa.int32()).to_pylist() == [2 * 10**9]


def test_inline_images_of_a_hugging_face_dataset(tmp_path):
    paths = photos(tmp_path / "photos", 3)
    images = [{"bytes": path.read_bytes(), "path": None} for path in paths]
    images.append({"bytes": None, "path": None})
    struct = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    pq.write_table(pa.table({"image": pa.array(images, struct)}), tmp_path / "in.parquet")
    arguments = ("--input", tmp_path / "in.parquet", "--image_column", "image", "--max_error_rate", 1)
    job = label(tmp_path / "out", *arguments)
    assert [row["uri"] for row in job.rows] == [f"{tmp_path}/in.parquet#{row}" for row in range(3)]
    assert [failure["reason"] for failure in job.failures] == ["null_uri"]
    same = label(tmp_path / "out2", "--input", uri_list(tmp_path / "l.txt", paths))
    assert [row["embedding"] for row in job.rows] == [row["embedding"] for row in same.rows]


@pytest.mark.parametrize("kind", ["text", "parquet"])
def test_files_without_a_reference_give_an_empty_output_with_the_full_schema(tmp_path, listed, kind):
    if kind == "text":
        (tmp_path / "empty.txt").write_text("# nothing today\n")
    else:
        pq.write_table(pa.table({"uri": pa.array([], pa.string())}), tmp_path / "empty.parquet")
    job = label(tmp_path / "out", "--input", next(tmp_path.glob("empty.*")))
    full = label(tmp_path / "full", "--input", listed[1])
    assert job.code == 0 and job.succeeded
    assert job.table.num_rows == 0
    assert job.table.schema.equals(full.table.schema)
    assert job.manifest["rows"] == {"input": 0, "predicted": 0, "failed": 0, "skipped": 0}


def test_sample_and_limit_are_input_and_the_rest_is_not(tmp_path, listed):
    # The hash covers the text in the list, so relative names are equal in every directory.
    uris = uri_list(tmp_path / "names.txt", [path.name for path in listed[0]])
    inputs = ("--input", uris, "--base_dir", tmp_path / "photos")
    half = label(tmp_path / "half", *inputs, "--sample", "0.5")
    three = label(tmp_path / "three", *inputs, "--limit", 3)
    again = label(tmp_path / "again", *inputs, "--sample", "0.5", "--shard_rows", 1)
    assert 0 < half.manifest["rows"]["input"] < 10
    assert sorted(row["uri"] for row in half.rows) == sorted(row["uri"] for row in again.rows)
    assert three.manifest["rows"]["input"] == 3


def test_shards_do_not_depend_on_how_they_were_computed(tmp_path, listed):
    _, uris = listed
    first = label(tmp_path / "a", "--input", uris, "--shard_rows", 4, "--batch_size", 3, "--load_threads", 1)
    second = label(tmp_path / "b", "--input", uris, "--shard_rows", 4, "--batch_size", 7, "--load_threads", 8)
    digests = [[file["sha256"] for file in job.manifest["files"]] for job in (first, second)]
    assert digests[0] == digests[1]
    assert len(digests[0]) == 3


def test_a_module_with_features_only(tmp_path, listed):
    job = label(tmp_path / "out", "--input", listed[1], module=TINY_FEATURES)
    assert "scores" not in job.table.schema.names and "class_ids" not in job.table.schema.names
    assert len(job.rows[0]["embedding"]) == 64


def test_labels_top_k_no_embeddings(tmp_path, listed):
    names = uri_list(tmp_path / "names.txt", [f"class {i}" for i in range(11)])
    arguments = ("--labels", names, "--top_k", 2, "--no_embeddings")
    job = label(tmp_path / "out", "--input", listed[1], *arguments)
    for row in job.rows:
        assert row["labels"] == [f"class {i}" for i in row["class_ids"]]
        assert (row["label"], row["score"]) == (row["labels"][0], row["scores"][0])
        assert len(row["scores"]) == 2
    assert "embedding" not in job.table.schema.names


def test_normalized_embeddings_have_length_one(tmp_path, listed):
    job = label(tmp_path / "out", "--input", listed[1], "--normalize_embeddings")
    lengths = [np.linalg.norm(row["embedding"]) for row in job.rows]
    np.testing.assert_allclose(lengths, 1, rtol=1e-5)


def test_pandas_duckdb_and_pyarrow_read_the_directory_as_one_table(tmp_path, listed):
    paths, uris = listed
    paths[0].unlink()
    job = label(tmp_path / "out", "--input", uris, "--shard_rows", 3, "--max_error_rate", 1)
    assert len(pd.read_parquet(job.output)) == 9
    assert pq.read_table(job.output).num_rows == 9
    query = f"SELECT count(*), min(array_length(embedding::FLOAT[64])) FROM '{job.output}/*.parquet'"
    assert duckdb.connect().execute(query).fetchall() == [(9, 64)]


def test_parquet_metadata_names_the_module_and_preprocessing_of_the_shard(tmp_path, listed):
    job = label(tmp_path / "out", "--input", listed[1])
    metadata = pq.read_schema(next(job.output.glob("part-*.parquet"))).metadata
    found = {key.decode(): value.decode() for key, value in metadata.items()}
    for name in (
        "schema_version", "version", "plan_id", "module_handle", "module_fingerprint", "preprocessing",
        "preprocessing_id", "engine", "scores", "embedding_dim", "embedding_normalized", "num_classes",
    ):  # fmt: skip
        assert found[f"beamlabel.{name}"], name
    assert found["beamlabel.module_fingerprint"] == job.rows[0]["module_fingerprint"]
    assert json.loads(found["beamlabel.preprocessing"])["height"] == 32
    assert found.items() >= job.manifest["metadata"].items()


def test_an_output_that_exists_is_refused_or_overwritten(tmp_path, listed):
    _, uris = listed
    first = label(tmp_path / "out", "--input", uris)
    refused = label(tmp_path / "out", "--input", uris)
    assert refused.code == 2
    assert refused.manifest == first.manifest
    before = {file["name"] for file in first.manifest["files"]}
    second = label(tmp_path / "out", "--input", uris, "--limit", 4, "--if_exists", "overwrite")
    assert second.code == 0
    assert len(second.rows) == 4
    assert not any((tmp_path / "out" / name).exists() for name in before)


def test_overwriting_with_another_format_leaves_nothing_of_the_first(tmp_path, listed):
    paths, uris = listed
    first = label(tmp_path / "out", "--input", uris, "--output_format", "tfrecord")
    assert (first.output / "_schema.pbtxt").exists()
    for path in paths:
        path.write_bytes(b"")
    second = label(tmp_path / "out", "--input", uris, "--if_exists", "overwrite")
    assert second.code == 1
    there = {path.name for path in second.output.iterdir()}
    assert there == {"_MANIFEST.json", "_failures", next(second.output.glob("part-*.parquet")).name}


def test_an_output_inside_the_input_is_refused(tmp_path, listed, capsys):
    assert label(tmp_path / "out", "--input", f"{tmp_path}/*.txt").code == 0
    again = label(
        tmp_path / "out", "--input", f"{tmp_path}/", "--if_exists", "overwrite", "--input_format", "parquet"
    )
    assert again.code == 2
    assert "is among the files that --input" in capsys.readouterr().err
    assert len(again.rows) == 10


def test_images_may_be_labeled_beside_their_output_where_the_pattern_cannot_reach_it(tmp_path):
    photos(tmp_path, 2)
    job = label(tmp_path / "out", "--input", f"{tmp_path}/*.png", "--input_format", "images")
    assert len(job.rows) == 2
    assert label(tmp_path / "deep", "--input", f"{tmp_path}/**", "--input_format", "images").code == 2


def test_overwriting_foreign_files_is_refused(tmp_path, listed):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.doc").write_text("years of work")
    job = label(tmp_path / "out", "--input", listed[1], "--if_exists", "overwrite")
    assert job.code == 2
    assert (tmp_path / "out" / "thesis.doc").read_text() == "years of work"


def test_the_same_module_as_directory_and_tarball_has_one_fingerprint(tmp_path, listed):
    directory = tmp_path / "module"
    shutil.unpack_archive(TINY, directory)
    a = label(tmp_path / "a", "--input", listed[1], module=directory)
    b = label(tmp_path / "b", "--input", listed[1])
    assert {row["module_fingerprint"] for row in a.rows} == {row["module_fingerprint"] for row in b.rows}


def test_each_row_of_a_parquet_file_that_cannot_be_read_fails(tmp_path, listed):
    path = tmp_path / "in.parquet"
    pq.write_table(
        pa.table({"uri": [str(p) for p in listed[0]] * 50}), path, compression="none", use_dictionary=False
    )
    content = bytearray(path.read_bytes())
    content[4:40] = b"\xff" * 36
    path.write_bytes(content)
    job = label(tmp_path / "out", "--input", path)
    assert job.code == 1
    assert job.manifest["failed_by_reason"] == {"corrupt": 50 * len(listed[0])}
