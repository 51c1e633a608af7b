"""Jobs over Parquet files from Hugging Face, Hive and Spark: the same rows as for a plain list."""

import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from support.jobs import label, photos, uri_list

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
CLASSES = {"_type": "ClassLabel", "names": ["cat", "ünï"]}
DIRECTORIES = "dt=2026-01-31/country=__HIVE_DEFAULT_PARTITION__/at=10%3A00"
PATHS = ("dt", "country", "at")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return photos(tmp_path_factory.mktemp("images") / "label=cat 漢", 5)


@pytest.fixture(scope="module")
def plain(images, tmp_path_factory):
    """The rows of a plain list, which also exists in Hive directories."""
    directory = tmp_path_factory.mktemp("plain") / DIRECTORIES
    directory.mkdir(parents=True)
    source = uri_list(directory / "list.txt", images)
    job = label(tmp_path_factory.mktemp("out") / "plain", "--input", source, "--keep_columns", *PATHS)
    assert job.code == 0
    assert {tuple(row[name] for name in PATHS) for row in job.rows} == {("2026-01-31", None, "10:00")}
    return job.rows


def same(rows, plain):
    names = ("class_ids", "scores", "content_hash", "source_bytes", "width", "height")
    assert [[row[name] for name in names] for row in rows] == [[row[name] for name in names] for row in plain]


def hugging_face(images):
    """A file as ``datasets`` writes it; one row only names its image, and one has none."""
    values = [{"bytes": path.read_bytes(), "path": path.name} for path in images]
    values[2] = {"bytes": None, "path": str(images[2])}
    table = pa.table(
        {
            "image": pa.array([*values, None], IMAGE),
            "label": pa.array([0, 1, -1, 0, 1, 0]),
            "url": [f"https://example.com/{path.name}" for path in images] + [None],
        }
    )
    features = {"image": {"_type": "Image"}, "label": CLASSES}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    buffer = io.BytesIO()
    pq.write_table(
        table.replace_schema_metadata(metadata),
        buffer,
        row_group_size=4,
        write_page_index=True,
        max_rows_per_page=1,
    )
    return buffer.getvalue()


@pytest.mark.parametrize("place", ["local", "gs"])
def test_hugging_face_without_options_in_hive_directories(place, request, images, plain, tmp_path):
    if place == "gs":
        bucket = request.getfixturevalue("gcs")
        bucket.put(f"in/{DIRECTORIES}/train.parquet", hugging_face(images))
        source = f"{bucket.url}/in/"
    else:
        (tmp_path / DIRECTORIES).mkdir(parents=True)
        (tmp_path / DIRECTORIES / "train.parquet").write_bytes(hugging_face(images))
        source = f"{tmp_path}/dt=*/**/*.parquet"
    job = label(
        tmp_path / "out",
        *("--input", source, "--max_error_rate", 1),
        *("--keep_columns", "label=truth", *PATHS),
    )
    assert job.code == 0
    same(job.rows, plain)
    assert [row["truth"] for row in job.rows] == ["cat", "ünï", None, "cat", "ünï"]
    assert {tuple(row[name] for name in PATHS) for row in job.rows} == {("2026-01-31", None, "10:00")}
    assert job.manifest["rows"] == {"input": 6, "predicted": 5, "failed": 1, "skipped": 0}
    assert [failure["reason"] for failure in job.failures] == ["null_uri"]


def test_lists_of_images_give_a_row_each(images, plain, tmp_path):
    data = [{"bytes": path.read_bytes(), "path": None} for path in images]
    broken = {"bytes": b"no image", "path": None}
    lists = pa.array([data[:2], [], [*data[2:], broken], None], pa.list_(IMAGE))
    path = tmp_path / "lists.parquet"
    pq.write_table(pa.table({"images": lists, "n": [1, 2, 3, 4]}), path)
    job = label(tmp_path / "out", "--input", path, "--keep_columns", "n", "--max_error_rate", 1)
    assert job.code == 0
    same(job.rows, plain)
    assert [row["ref_id"] for row in job.rows] == [
        f"{path}#{at}" for at in ("0#0", "0#1", "2#0", "2#1", "2#2")
    ]
    assert [row["uri"] for row in job.rows] == [row["ref_id"] for row in job.rows]
    assert [row["n"] for row in job.rows] == [1, 1, 3, 3, 3]
    assert job.manifest["rows"]["input"] == 6
    assert job.manifest["left_out"] == {"empty_list": 2}
    again = label(
        tmp_path / "again", "--retry_failures", tmp_path / "out", "--keep_columns", "n", "--max_error_rate", 1
    )
    assert [failure["ref_id"] for failure in again.failures] == [f"{path}#2#3"]
    assert again.manifest["rows"]["input"] == 1


def test_listed_images_have_the_columns_of_their_directories(images, plain, tmp_path):
    directory = images[0].parent.parent
    job = label(tmp_path / "out", "--input", f"{directory}/", "--keep_columns", "label=truth")
    assert job.code == 0
    same(job.rows, plain)
    assert {row["truth"] for row in job.rows} == {"cat 漢"}


def test_columns_that_are_in_no_directory_are_a_usage_error(images, tmp_path, capsys):
    for source, option in (
        (images[0].parent, "colour"),
        (uri_list(tmp_path / "list.txt", images), "dt"),
    ):
        assert label(tmp_path / "out", "--input", source, "--keep_columns", option).code == 2
        assert f"--keep_columns {option}" in capsys.readouterr().err.replace("'", "")
