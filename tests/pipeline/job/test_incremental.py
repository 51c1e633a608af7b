"""``--skip_labeled``, ``--changed`` and ``--retry_failures``: only new, changed or failed images."""

import json
import os

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from beamlabel.pipeline import layout
from beamlabel.transforms import storage
from support.jobs import TINY_FEATURES, label, photos, uri_list


@pytest.fixture
def paths(tmp_path):
    return photos(tmp_path / "photos", 8)


@pytest.fixture
def images(tmp_path, paths):
    return ("--input", f"{tmp_path / 'photos'}/", "--input_format", "images")


@pytest.fixture
def first(tmp_path, images):
    return label(tmp_path / "labels" / "dt=2026-01-01", *images)


def rows_of(job):
    return job.manifest["rows"]


def names(job):
    return sorted(row["uri"].rpartition("/")[2] for row in job.rows)


@pytest.mark.parametrize(
    "pattern", ["labels/dt=*", "labels/dt=*/", "labels/", "labels/dt=2026-01-01", "labels/*/part-*.parquet"]
)
def test_only_the_new_is_labeled(tmp_path, images, first, pattern):
    photos(tmp_path / "photos" / "more", 2)
    second = label(tmp_path / "second", *images, "--skip_labeled", tmp_path / pattern)
    assert second.code == 0 and second.succeeded
    assert rows_of(second) == {"input": 10, "predicted": 2, "failed": 0, "skipped": 8}
    assert second.manifest["skipped_by_reason"] == {"labeled": 8}
    assert all("/more/" in row["uri"] for row in second.rows)


def test_a_night_with_nothing_new(tmp_path, images, first):
    second = label(tmp_path / "labels" / "dt=2026-01-02", *images, "--skip_labeled", tmp_path / "labels/dt=*")
    assert second.code == 0 and second.succeeded
    assert rows_of(second)["predicted"] == 0
    assert second.table.schema == first.table.schema
    both = ds.dataset(tmp_path / "labels", format="parquet", partitioning="hive").to_table()
    assert both.num_rows == 8


def test_the_first_night_has_nothing_to_skip(tmp_path, images, caplog):
    caplog.set_level("INFO", "beamlabel")
    job = label(tmp_path / "out", *images, "--skip_labeled", tmp_path / "labels/dt=*")
    assert rows_of(job)["predicted"] == 8
    assert any("--skip_labeled" in record.getMessage() for record in caplog.records)


def test_an_output_skips_nothing_for_its_own_rows_which_it_replaces(tmp_path, images, first):
    again = label(
        first.output, *images, "--skip_labeled", tmp_path / "labels/dt=*", "--if_exists", "overwrite"
    )
    assert rows_of(again)["predicted"] == 8


@pytest.mark.parametrize(
    "changes",
    [
        ("--crop", 0.5),
        ("--top_k", 2),
        ("--labels", "LABELS"),
        ("--keep_columns", "n"),
    ],
    ids=lambda changes: changes[0],
)
def test_other_rows_are_asked_for(tmp_path, paths, changes):
    pq.write_table(pa.table({"uri": list(map(str, paths)), "n": range(8)}), tmp_path / "in.parquet")
    (tmp_path / "names.txt").write_text("".join(f"class {n}\n" for n in range(11)))
    changes = [str(tmp_path / "names.txt") if word == "LABELS" else word for word in changes]
    source = ("--input", tmp_path / "in.parquet")
    earlier = label(tmp_path / "earlier", *source)
    assert rows_of(earlier)["predicted"] == 8
    assert rows_of(label(tmp_path / "same", *source, "--skip_labeled", earlier.output))["skipped"] == 8
    other = label(tmp_path / "other", *source, "--skip_labeled", earlier.output, *changes)
    assert rows_of(other)["predicted"] == 8


def test_fewer_columns_are_there_already(tmp_path, images, first):
    job = label(tmp_path / "out", *images, "--skip_labeled", first.output, "--no_embeddings")
    assert rows_of(job)["skipped"] == 8


def test_another_module_labels_all(tmp_path, images, first):
    job = label(tmp_path / "out", *images, "--skip_labeled", first.output, module=TINY_FEATURES)
    assert rows_of(job)["predicted"] == 8


def test_files_that_no_manifest_names_do_not_count(tmp_path, images, first):
    """For example, files that a killed publisher has moved but not yet listed."""
    shard = next(first.output.glob("part-*"))
    shard.rename(shard.with_name("part-of-another-run.parquet"))
    job = label(tmp_path / "out", *images, "--skip_labeled", first.output)
    assert rows_of(job)["predicted"] == 8


def test_broken_shards_are_refused(tmp_path, images, first, capfd):
    shard = next(first.output.glob("part-*"))
    shard.write_bytes(b"PAR1")
    assert label(tmp_path / "out", *images, "--skip_labeled", first.output).code == 2
    assert "not a readable Parquet file" in capfd.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_earlier_tfrecords(tmp_path, images, paths, compression, capfd):
    written = ("--output_format", "tfrecord", "--tfrecord_compression", compression)
    earlier = label(tmp_path / "earlier", *images, *written, "--no_embeddings")
    paths[2].write_bytes(paths[3].read_bytes() + b"more")
    again = ("--skip_labeled", earlier.output, "--no_embeddings")
    assert rows_of(label(tmp_path / "same", *images, *again))["skipped"] == 8
    assert names(label(tmp_path / "changed", *images, *again, "--changed")) == [paths[2].name]
    assert rows_of(label(tmp_path / "cropped", *images, *again, "--crop", 0.5))["predicted"] == 8
    assert rows_of(label(tmp_path / "more", *images, "--skip_labeled", earlier.output))["predicted"] == 8
    (earlier.output / "_MANIFEST.json").unlink()
    assert label(tmp_path / "out", *images, *again).code == 2
    assert "TFRecords without their _MANIFEST.json" in capfd.readouterr().err


@pytest.mark.parametrize("kind", ["images", "text", "parquet"])
def test_changed_images_are_labeled_again(tmp_path, paths, kind):
    if kind == "images":
        source = ("--input", f"{tmp_path / 'photos'}/", "--input_format", "images")
    elif kind == "text":
        source = ("--input", uri_list(tmp_path / "list.txt", [*paths, tmp_path / "missing.png"]))
    else:
        pq.write_table(pa.table({"uri": list(map(str, paths))}), tmp_path / "in.parquet")
        source = ("--input", tmp_path / "in.parquet")
    source = (*source, "--max_error_rate", 1)
    earlier = label(tmp_path / "earlier", *source)
    # The same size at another time; the same time with another size; both the same.
    changed, longer, touched = paths[1], paths[2], paths[5]
    changed.write_bytes(paths[3].read_bytes().ljust(changed.stat().st_size))
    state = longer.stat()
    longer.write_bytes(longer.read_bytes() + b"more")
    os.utime(longer, ns=(state.st_atime_ns, state.st_mtime_ns))
    state = touched.stat()
    touched.write_bytes(touched.read_bytes())
    os.utime(touched, ns=(state.st_atime_ns, state.st_mtime_ns))
    unaware = label(tmp_path / "unaware", *source, "--skip_labeled", earlier.output)
    assert rows_of(unaware)["predicted"] == 0
    job = label(tmp_path / "out", *source, "--skip_labeled", earlier.output, "--changed")
    assert names(job) == [changed.name, longer.name]
    assert rows_of(job)["skipped"] == 6
    assert rows_of(job)["failed"] == (kind == "text")


def test_changed_inline_images(tmp_path, paths):
    def source(name, images):
        pq.write_table(pa.table({"uri": [p.name for p in paths], "image": images}), tmp_path / name)
        return ("--input", tmp_path / name, "--image_column", "image", "--uri_column", "uri")

    images = [path.read_bytes() for path in paths]
    earlier = label(tmp_path / "earlier", *source("in.parquet", images))
    images[3] += b"more"
    job = label(
        tmp_path / "out", *source("in.parquet", images), "--skip_labeled", earlier.output, "--changed"
    )
    assert names(job) == [paths[3].name]


def test_http_images_are_fetched_to_see_whether_they_have_changed(tmp_path, paths, http_server):
    http_server.files["/a.png"] = paths[0].read_bytes()
    source = ("--input", uri_list(tmp_path / "list.txt", [http_server.url_of("/a.png")]))
    source = (*source, "--allow_http", "--allow_private_hosts")
    earlier = label(tmp_path / "earlier", *source)
    assert rows_of(label(tmp_path / "skip", *source, "--skip_labeled", earlier.output))["skipped"] == 1
    same = label(tmp_path / "same", *source, "--skip_labeled", earlier.output, "--changed")
    assert same.manifest["skipped_by_reason"] == {"unchanged": 1}
    http_server.files["/a.png"] = paths[1].read_bytes()
    job = label(tmp_path / "out", *source, "--skip_labeled", earlier.output, "--changed")
    assert rows_of(job)["predicted"] == 1


# --- three nights ---


def night(bucket, date, module, *arguments):
    job = label(
        f"{bucket}/labels/dt={{date}}", "--run_date", date, "--input", f"{bucket}/photos/", "--input_format", "images",
        "--skip_labeled", f"{bucket}/labels/dt=*/", "--changed", "--shard_rows", 3, *arguments, module=module,
    )  # fmt: skip
    assert job.code == 0
    directory = f"{bucket}/labels/dt={date}"
    manifest = json.loads(storage.read_bytes(f"{directory}/{layout.MANIFEST}"))
    rows = []
    for file in manifest["files"]:
        if file["kind"] == "data":
            rows += pq.read_table(
                pa.BufferReader(storage.read_bytes(f"{directory}/{file['name']}"))
            ).to_pylist()
    return manifest, rows


def test_three_nights_over_a_bucket(gcs, paths):
    for path in paths:
        gcs.put(f"photos/{path.name}", path.read_bytes())
    url = f"{gcs.url}/photos"
    tiny = str(TINY_FEATURES).replace("feature_vector", "classification")
    manifest, one = night(gcs.url, "2026-11-23", tiny)
    assert manifest["rows"] == {"input": 8, "predicted": 8, "failed": 0, "skipped": 0}
    assert manifest["output"] == f"{gcs.url}/labels/dt=2026-11-23"

    gcs.put("photos/new.png", paths[0].read_bytes())
    gcs.put(f"photos/{paths[2].name}", paths[3].read_bytes())
    gcs.server.requests.clear()
    manifest, two = night(gcs.url, "2026-11-24", tiny)
    assert manifest["rows"] == {"input": 9, "predicted": 2, "failed": 0, "skipped": 7}
    assert sorted(row["uri"] for row in two) == [f"{url}/new.png", f"{url}/{paths[2].name}"]
    # The listing has sizes and generations, so only images to label are requested.
    assert gcs.server.count(contains="/photos/") == 2

    manifest, three = night(gcs.url, "2026-11-25", TINY_FEATURES)
    assert manifest["rows"] == {"input": 9, "predicted": 9, "failed": 0, "skipped": 0}

    latest = {
        (row["uri"], row["module_fingerprint"], row["source_version"]): row for row in one + two + three
    }
    assert len(latest) == len(one + two + three) == 19
    pairs = [(row["uri"], row["module_fingerprint"]) for row in two + three]
    assert len(set(pairs)) == len(pairs)


# --- failed images ---


@pytest.fixture
def failed(tmp_path, paths):
    """A run of 8 images, two broken and one missing, and of a relative reference from another directory."""
    broken = {path: path.read_bytes() for path in (paths[1], paths[4])}
    for path in broken:
        path.write_bytes(b"no image")
    uris = uri_list(tmp_path / "list.txt", [*paths, tmp_path / "late.png"])
    job = label(tmp_path / "failed", "--input", uris, "--shard_rows", 3, "--max_error_rate", 1)
    assert rows_of(job)["failed"] == 3
    for path, content in broken.items():
        path.write_bytes(content)
    return job


def test_failed_images_are_tried_again(tmp_path, paths, failed):
    (tmp_path / "late.png").write_bytes(paths[0].read_bytes())
    job = label(tmp_path / "out", "--retry_failures", failed.output)
    assert job.code == 0
    assert rows_of(job) == {"input": 3, "predicted": 3, "failed": 0, "skipped": 0}
    assert names(job) == ["late.png", paths[1].name, paths[4].name]
    assert {row["ref_id"] for row in job.rows} == {failure["ref_id"] for failure in failed.failures}


def test_one_reason_only(tmp_path, failed):
    job = label(tmp_path / "out", "--retry_failures", failed.output, "--reasons", "not_an_image")
    assert rows_of(job) == {"input": 2, "predicted": 2, "failed": 0, "skipped": 0}
    job = label(tmp_path / "none", "--retry_failures", failed.output, "--reasons", "timeout,forbidden")
    assert job.code == 0
    assert rows_of(job)["input"] == 0


def test_the_inputs_are_found_from_another_directory(tmp_path, paths, monkeypatch):
    monkeypatch.chdir(tmp_path)
    paths[3].write_bytes(b"no image")
    uri_list(tmp_path / "list.txt", [f"photos/{path.name}" for path in paths])
    first = label("first", "--input", "list.txt", "--max_error_rate", 1)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    paths[3].write_bytes(paths[2].read_bytes())
    job = label(tmp_path / "out", "--retry_failures", tmp_path / first.output)
    assert names(job) == [paths[3].name]


def test_listed_images_are_recognized_by_their_names(tmp_path, images, paths):
    content = paths[3].read_bytes()
    paths[3].write_bytes(b"no image")
    first = label(tmp_path / "first", *images, "--max_error_rate", 1)
    paths[3].write_bytes(content)
    paths[0].rename(paths[0].with_name("later than all.png"))
    job = label(tmp_path / "out", "--retry_failures", first.output)
    assert names(job) == [paths[3].name]


def test_inline_images_and_kept_columns(tmp_path, paths):
    images = [path.read_bytes() for path in paths]
    images[2] = b"no image"
    pq.write_table(pa.table({"image": images, "n": range(8)}), tmp_path / "in.parquet")
    source = ("--input", tmp_path / "in.parquet", "--image_column", "image", "--keep_columns", "n")
    first = label(tmp_path / "first", *source, "--max_error_rate", 1)
    job = label(tmp_path / "out", "--retry_failures", first.output, "--max_error_rate", 1)
    assert rows_of(job) == {"input": 1, "predicted": 0, "failed": 1, "skipped": 0}
    assert job.failures[0]["ref_id"].endswith("in.parquet#2")
    assert "n" in job.table.schema.names


def test_missing_failures_are_reported(tmp_path, images, paths, caplog):
    paths[3].write_bytes(b"no image")
    first = label(tmp_path / "first", *images, "--max_error_rate", 1)
    paths[3].unlink()
    job = label(tmp_path / "out", "--retry_failures", first.output)
    assert job.code == 0
    assert "1 of the failed references are not in the input any more" in caplog.text


def test_what_cannot_be_tried_again(tmp_path, failed, capfd):
    def refused(*arguments):
        assert label(*arguments).code == 2
        return capfd.readouterr().err

    again = ("--retry_failures", failed.output)
    assert "is the output" in refused(failed.output, *again, "--if_exists", "overwrite")
    assert "no run of beamlabel" in refused(tmp_path / "out", "--retry_failures", tmp_path / "nowhere")
    assert "--reasons gone: no such reason" in refused(tmp_path / "out", *again, "--reasons", "gone")
    assert "needs --retry_failures" in refused(tmp_path / "out", "--input", "x", "--reasons", "timeout")
    assert "--changed needs --skip_labeled" in refused(tmp_path / "out", "--input", "x", "--changed")
    with (tmp_path / "list.txt").open("a") as file:
        file.write("one more line\n")
    assert "list.txt has changed since that run" in refused(tmp_path / "out", *again)
