"""Images that are gone get a tombstone, and nothing else does; the current table is what the bucket holds."""

import json
import shutil

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from beamlabel.pipeline.output.verify import verify
from beamlabel.transforms.rows.deleted import DELETED_SCHEMA
from beamlabel.transforms.units import open_unit
from support.jobs import TINY, TINY_FEATURES, command, label, photos, uri_list
from support.nights import at_a_later_time

CURRENT = """
SELECT parse_filename(uri) AS name, dt FROM (
    SELECT *, row_number() OVER (PARTITION BY image_id ORDER BY labeled_at DESC) AS age
    FROM read_parquet('{labels}/dt=*/part-*.parquet', hive_partitioning = true, union_by_name = true)
) AS newest
WHERE age = 1 AND NOT EXISTS (
    SELECT 1 FROM read_parquet({deleted}) AS gone
    WHERE gone.image_id = newest.image_id AND gone.deleted_at > newest.labeled_at
) ORDER BY name
"""


def images(folder):
    return ("--input", f"{folder / 'photos'}/", "--input_format", "images")


def night(folder, day, *arguments, source=None, module=TINY):
    source = source or images(folder)
    skip = ("--skip_labeled", folder / "labels" / "dt=*", "--tombstones", "--shard_rows", 3)
    with at_a_later_time():
        job = label(folder / "labels" / f"dt={day}", *source, *skip, *arguments, module=module)
    assert verify(str(job.output)).problems == ()
    return job


def gone(job):
    """The names of what a night found to be gone."""
    files = [job.output / file["name"] for file in job.manifest["files"] if file["kind"] == "deleted"]
    rows = [row for file in files for row in pq.read_table(file, schema=DELETED_SCHEMA).to_pylist()]
    assert job.manifest["deleted"] == len(rows)
    assert all(row["run_id"] == job.manifest["run_id"] for row in rows)
    return sorted(row["uri"].rpartition("/")[2] for row in rows)


def current(folder):
    deleted = [str(path) for path in folder.glob("labels/*/_deleted/*.parquet")]
    query = CURRENT.format(labels=folder / "labels", deleted=deleted)
    return dict(duckdb.connect().execute(query).fetchall())


def listed(folder):
    return sorted(path.name for path in (folder / "photos").iterdir())


def test_a_week_of_deletions(tmp_path):
    paths = photos(tmp_path / "photos", 8)
    one = night(tmp_path, 1)
    assert gone(one) == [] and one.manifest["rows"]["predicted"] == 8

    (away := tmp_path / "away").mkdir()
    for path in paths[:2]:
        shutil.move(path, away / path.name)
    two = night(tmp_path, 2)
    assert gone(two) == [path.name for path in paths[:2]]
    assert two.code == 0 and two.manifest["rows"] == {"input": 6, "predicted": 0, "failed": 0, "skipped": 6}
    (row,) = [row for row in one.rows if row["uri"] == str(paths[0])]
    (file,) = (two.output / "_deleted").iterdir()
    told = pq.read_table(file)
    assert told.schema == DELETED_SCHEMA
    told = {row["uri"]: row for row in told.to_pylist()}[str(paths[0])]
    assert (told["image_id"], told["ref_id"]) == (row["image_id"], row["ref_id"])
    assert told["deleted_at"] > row["labeled_at"]
    assert list(current(tmp_path)) == listed(tmp_path)

    assert gone(night(tmp_path, 3)) == [], "they are gone already"

    shutil.copy2(away / paths[0].name, paths[0])
    four = night(tmp_path, 4)
    assert [row["uri"] for row in four.rows] == [str(paths[0])], "it is back, and is labeled again"
    assert current(tmp_path) == {path.name: 4 if path == paths[0] else 1 for path in [paths[0], *paths[2:]]}

    paths[0].unlink()
    five = night(tmp_path, 5, module=TINY_FEATURES)
    assert gone(five) == [paths[0].name], "the other module's rows are of the same images"
    assert five.manifest["rows"]["predicted"] == 6
    assert list(current(tmp_path)) == listed(tmp_path)


@pytest.mark.parametrize("kind", ["text", "parquet", "inline", "tfrecord"])
def test_lists(tmp_path, kind):
    paths = photos(tmp_path / "photos", 7)
    written = ("--output_format", "tfrecord", "--no_embeddings") if kind == "tfrecord" else ()

    def source(paths):
        if kind in ("text", "tfrecord"):
            return ("--input", uri_list(tmp_path / "list.txt", paths))
        values = {"uri": [str(path) for path in paths]}
        if kind == "inline":
            values = {"image": [path.read_bytes() for path in paths]}
        pq.write_table(pa.table(values), tmp_path / "in.parquet")
        return (
            "--input",
            tmp_path / "in.parquet",
            *(("--image_column", "image") if kind == "inline" else ()),
        )

    paths[3].write_text("no image, so it has a failure and no row")
    night(tmp_path, 1, *written, source=source([*paths, paths[6]]))
    left = [path for path in paths if path not in (paths[2], paths[3], paths[6])]
    two = night(tmp_path, 2, *written, source=source(left))
    shown = [path.name for path in (paths[2], paths[3], paths[6])]
    if kind == "inline":
        shown = ["in.parquet#2", "in.parquet#3", "in.parquet#6"]
    # Which of two rows of one image tells its name is left open.
    assert [name.replace("#7", "#6") for name in gone(two)] == shown


def test_what_cannot_be_read_is_not_gone(tmp_path):
    paths = photos(tmp_path / "photos", 5)
    source = ("--input", uri_list(tmp_path / "list.txt", paths))
    night(tmp_path, 1, source=source)
    paths[1].unlink()
    paths[2].write_text("no image any more")
    two = night(tmp_path, 2, "--changed", source=source)
    assert two.manifest["rows"]["failed"] == 2
    assert gone(two) == []


def test_images_of_other_inputs_are_not_gone(tmp_path, caplog):
    """Two jobs share their labels; the list of one is another each night; an image is of both."""
    photos(tmp_path / "photos", 4)
    others = photos(tmp_path / "others", 6)
    (tmp_path / "photos" / "more").mkdir()
    below = ("--input", f"{tmp_path / 'photos'}/*.png", "--input_format", "images")
    night(tmp_path, 1)
    night(tmp_path, 2, source=("--input", uri_list(tmp_path / "uploads 2.txt", others[:3])))
    three = night(tmp_path, 3, source=("--input", uri_list(tmp_path / "uploads 3.txt", others[3:])))
    assert gone(three) == [] and "2 earlier outputs are of other inputs" in caplog.text
    # Fewer patterns do not cover the first night's images, more of them do.
    (tmp_path / "photos" / "photo 001.png").unlink()
    assert gone(night(tmp_path, 4, source=below)) == []
    more = (
        "--input",
        f"{tmp_path / 'photos'}/",
        "--input",
        f"{tmp_path / 'others'}/",
        "--input_format",
        "images",
    )
    assert gone(night(tmp_path, 5, source=more)) == ["photo 001.png"]
    assert list(current(tmp_path)).count("photo 001.png") == 1, "the other one of this name is there"


def test_time_that_is_over_tells_nothing_and_resume_tells_all(tmp_path, monkeypatch):
    paths = photos(tmp_path / "photos", 10)
    night(tmp_path, 1)
    for path in (paths[0], paths[9]):
        path.unlink()
    photos(tmp_path / "photos" / "new", 6)

    class Clock:
        now = 0.0

        @classmethod
        def time(cls):
            cls.now += 1
            return 1e10 * (cls.now > 2)

    with monkeypatch.context() as patch:
        patch.setattr(open_unit, "time", Clock)
        two = night(tmp_path, 2, "--time_limit", "1h", "--if_exists", "resume")
    assert two.code == 4 and two.manifest["skipped_by_reason"]["time_limit"]
    assert gone(two) == []
    two = night(tmp_path, 2, "--time_limit", "1h", "--if_exists", "resume")
    assert two.code == 0 and two.manifest["resumed_units"] >= 1
    assert gone(two) == [paths[0].name, paths[9].name]
    assert set(current(tmp_path)) == {path.name for path in (tmp_path / "photos").rglob("*.png")}


def test_without_the_whole_input_there_are_none(tmp_path, capfd):
    photos(tmp_path / "photos", 2)
    skip = ("--skip_labeled", tmp_path / "labels", "--tombstones")
    for more in (("--limit", 1), ("--sample", 0.5), ("--retry_failures", tmp_path / "labels")):
        assert label(tmp_path / "out", *images(tmp_path), *skip, *more).code == 2
        assert "takes a part of it" in capfd.readouterr().err
    assert label(tmp_path / "out", *images(tmp_path), "--tombstones").code == 2
    assert "--tombstones needs --skip_labeled" in capfd.readouterr().err


def test_they_are_verified_and_replaced(tmp_path):
    paths = photos(tmp_path / "photos", 4)
    night(tmp_path, 1)
    paths[0].unlink()
    two = night(tmp_path, 2)
    (file,) = (two.output / "_deleted").iterdir()
    content = file.read_bytes()
    pq.write_table(pq.read_table(file).slice(0, 0), file)
    problems = "\n".join(verify(str(two.output)).problems)
    assert "its SHA-256 is" in problems and "0 rows, the manifest says 1" in problems
    file.unlink()
    assert "missing" in "\n".join(verify(str(two.output), quick=True).problems)
    file.write_bytes(content)
    (file.parent / "part-stray.parquet").write_bytes(content)
    assert "does not name it" in command("verify", two.output).stdout
    (file.parent / "part-stray.parquet").unlink()

    again = night(tmp_path, 2, "--if_exists", "overwrite")
    (other,) = (again.output / "_deleted").iterdir()
    assert other.name != file.name and gone(again) == [paths[0].name]
    assert json.loads((again.output / "_MANIFEST.json").read_text())["deleted"] == 1
