"""Images that an earlier run has labeled are recognized by location or bytes, not by the text of their URIs."""

import dataclasses
import datetime as dt
import json
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from beamlabel.transforms.rows.schema import SINCE_VERSION_2
from beamlabel.transforms.storage.identity import content_hash, image_id, image_id_of_bytes
from support.jobs import FinishedJob, label, photos, uri_list


def counts(job):
    assert job.code == 0
    rows = job.manifest["rows"]
    return rows["predicted"], rows["skipped"]


def test_the_same_names_below_another_base_dir(tmp_path):
    photos(tmp_path / "a", 3)
    photos(tmp_path / "b", 3)
    uris = uri_list(tmp_path / "list.txt", [f"photo {n:03d}.png" for n in range(3)])
    first = label(tmp_path / "first", "--input", uris, "--base_dir", tmp_path / "a")
    skip = ("--skip_labeled", first.output)
    assert counts(label(tmp_path / "b-out", "--input", uris, "--base_dir", tmp_path / "b", *skip)) == (3, 0)
    assert counts(label(tmp_path / "a-out", "--input", uris, "--base_dir", tmp_path / "a", *skip)) == (0, 3)
    # The same images with other spellings.
    other = uri_list(tmp_path / "other.txt", [f"{tmp_path}/a/./photo {n:03d}.png" for n in range(3)])
    assert counts(label(tmp_path / "other", "--input", other, *skip)) == (0, 3)


def test_inline_images_whose_paths_repeat_from_file_to_file(tmp_path):
    paths = photos(tmp_path / "photos", 4)

    def parquet(name, chosen):
        images = [{"bytes": path.read_bytes(), "path": f"{place}.png"} for place, path in enumerate(chosen)]
        pq.write_table(pa.table({"image": images}), tmp_path / name)
        return "--input", tmp_path / name, "--image_column", "image"

    first = label(tmp_path / "first", *parquet("0.parquet", paths[:2]))
    assert [row["image_id"] for row in first.rows] == [image_id_of_bytes(p.read_bytes()) for p in paths[:2]]
    skip = ("--skip_labeled", first.output)
    assert counts(label(tmp_path / "second", *parquet("1.parquet", paths[2:]), *skip)) == (2, 0)
    assert counts(label(tmp_path / "third", *parquet("2.parquet", [paths[3], paths[0]]), *skip)) == (1, 1)


def test_urls_that_differ_in_a_parameter(tmp_path, http_server):
    for number, path in enumerate(photos(tmp_path / "photos", 3)):
        http_server.files[f"/image?id={number}&token=x"] = path.read_bytes()
        http_server.files[f"/image?id={number}&token=y"] = path.read_bytes()

    def run(output, *queries):
        uris = uri_list(
            tmp_path / f"{output}.txt", [http_server.url_of(f"/image?{query}") for query in queries]
        )
        skip = ("--skip_labeled", tmp_path / "first") if output != "first" else ()
        return label(tmp_path / output, "--input", uris, "--allow_http", "--allow_private_hosts", *skip)

    first = run("first", "id=0&token=x", "id=1&token=x")
    assert [row["uri"] for row in first.rows] == [http_server.url_of(f"/image?id={n}") for n in (0, 1)]
    assert counts(run("second", "id=1&token=y", "id=2&token=y")) == (1, 1)


def test_every_row_and_every_failure_tells_its_image_and_its_content(tmp_path, monkeypatch):
    monkeypatch.delenv("SOURCE_DATE_EPOCH")
    paths = photos(tmp_path / "photos", 2)
    shutil.copy(paths[0], tmp_path / "copy.png")
    (tmp_path / "broken.png").write_bytes(b"no image")
    names = [*paths, tmp_path / "copy.png", tmp_path / "broken.png", tmp_path / "gone.png"]
    before = dt.datetime.now(dt.timezone.utc)
    job = label(tmp_path / "out", "--input", uri_list(tmp_path / "list.txt", names), "--max_error_rate", 1)
    after = dt.datetime.now(dt.timezone.utc)
    first, second, copy = job.rows
    assert [row["image_id"] for row in job.rows] == [image_id(str(path)) for path in names[:3]]
    assert first["content_hash"] == copy["content_hash"] == content_hash(paths[0].read_bytes())
    assert first["content_hash"] != second["content_hash"] and first["image_id"] != copy["image_id"]
    assert {row["module_handle"] for row in job.rows} == {job.manifest["module"]["handle"]}
    (labeled_at,) = {row["labeled_at"] for row in job.rows}
    assert before <= labeled_at <= after
    broken, gone = job.failures
    assert (broken["image_id"], gone["image_id"]) == (image_id(str(names[3])), image_id(str(names[4])))
    assert (broken["content_hash"], broken["source_bytes"]) == (content_hash(b"no image"), 8)
    assert (gone["content_hash"], gone["source_bytes"], gone["source_version"]) == (None, None, None)


def as_version_1(job: FinishedJob, *, manifest: bool = True) -> FinishedJob:
    """Converts the output to schema version 1, without the later columns."""
    (name,) = [path.name for path in job.output.glob("part-*.parquet")]
    table = pq.read_table(job.output / name)
    metadata = {**table.schema.metadata, b"beamlabel.schema_version": b"1"}
    table = table.drop_columns(sorted(SINCE_VERSION_2)).replace_schema_metadata(metadata)
    pq.write_table(table, job.output / name)
    content = job.manifest
    content["schema_version"] = content["metadata"]["beamlabel.schema_version"] = "1"
    (job.output / "_MANIFEST.json").write_text(json.dumps(content))
    if not manifest:
        (job.output / "_MANIFEST.json").unlink()
    return dataclasses.replace(job)


def test_rows_of_version_1_are_resolved_by_the_base_dir_of_their_manifest(tmp_path):
    photos(tmp_path / "a", 3)
    photos(tmp_path / "b", 3)
    uris = uri_list(tmp_path / "list.txt", [f"photo {n:03d}.png" for n in range(3)])
    source = ("--input", uris, "--base_dir")
    first = as_version_1(label(tmp_path / "first", *source, tmp_path / "a"))
    skip = ("--skip_labeled", first.output)
    assert counts(label(tmp_path / "same", *source, tmp_path / "a", *skip)) == (0, 3)
    assert counts(label(tmp_path / "other", *source, tmp_path / "b", *skip)) == (3, 0)


@pytest.mark.parametrize("kind", ["inline", "relative, without a manifest"])
def test_rows_of_version_1_that_cannot_be_resolved_are_not_skipped_and_are_counted(tmp_path, kind, caplog):
    paths = photos(tmp_path / "photos", 2)
    if kind == "inline":
        images = [{"bytes": path.read_bytes(), "path": str(path)} for path in paths]
        pq.write_table(pa.table({"image": images}), tmp_path / "in.parquet")
        source = ("--input", tmp_path / "in.parquet", "--image_column", "image")
    else:
        uris = uri_list(tmp_path / "list.txt", [path.name for path in paths])
        source = ("--input", uris, "--base_dir", tmp_path / "photos")
    first = as_version_1(label(tmp_path / "first", *source), manifest=kind == "inline")
    assert counts(label(tmp_path / "again", *source, "--skip_labeled", first.output)) == (2, 0)
    (warning,) = [one for one in caplog.records if one.levelname == "WARNING" and one.module == "indexes"]
    assert warning.args[0] == 2


def test_a_signed_url_of_version_1_is_no_other_url(tmp_path, http_server):
    """Version 1 wrote `…/image` for `…/image?id=1&token=x`."""
    path = photos(tmp_path / "photos", 1)[0]
    http_server.files["/image"] = http_server.files["/image?token=y"] = path.read_bytes()

    def run(output, query, *arguments):
        uris = uri_list(tmp_path / f"{output}.txt", [http_server.url_of("/image") + query])
        return label(tmp_path / output, "--input", uris, "--allow_http", "--allow_private_hosts", *arguments)

    skip = ("--skip_labeled", as_version_1(run("first", "")).output)
    assert counts(run("plain", "", *skip)) == (0, 1)
    assert counts(run("signed", "?token=y", *skip)) == (1, 0)


@pytest.mark.parametrize("pattern", ["labels/dt=1/", "labels/**", "labels"])
def test_a_directory_named_like_a_staging_directory_above_the_pattern_hides_nothing(tmp_path, pattern):
    above = tmp_path / "_staging_area" / "_staging"
    source = ("--input", uri_list(tmp_path / "list.txt", photos(tmp_path / "photos", 3)))
    assert label(above / "labels" / "dt=1", *source).code == 0
    assert counts(label(tmp_path / "again", *source, "--skip_labeled", above / pattern)) == (0, 3)


def test_resume_labels_a_photo_that_was_replaced(tmp_path, cut_off):
    paths = photos(tmp_path / "photos", 6)
    source = ("--input", f"{tmp_path / 'photos'}/", "--input_format", "images", "--shard_rows", 2)
    assert cut_off(tmp_path / "out", *source).code == 3
    replaced = photos(tmp_path / "other", 7)[6]
    shutil.copy(replaced, paths[0])
    job = label(tmp_path / "out", *source, "--if_exists", "resume")
    assert job.code == 0 and len(job.rows) == 6
    assert job.manifest["resumed_units"] >= 1
    assert job.rows[0]["content_hash"] == content_hash(replaced.read_bytes())
    # Also for a published listing that may have grown.
    shutil.copy(photos(tmp_path / "more", 8)[7], paths[3])
    again = label(tmp_path / "out", *source, "--if_exists", "resume")
    assert again.rows[3]["content_hash"] == content_hash(paths[3].read_bytes())
