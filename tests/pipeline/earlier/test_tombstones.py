"""Only images that are gone get a tombstone; the current table equals the bucket's content."""

import json
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from beamlabel.pipeline.output.verify import verify
from beamlabel.transforms.rows.deleted import DELETED_SCHEMA
from beamlabel.transforms.units import open_unit
from support.current_view import current_view
from support.jobs import TINY, TINY_FEATURES, command, label, photos, uri_list
from support.nights import at_a_later_time


def images(directory):
    return ("--input", f"{directory / 'photos'}/", "--input_format", "images")


def night(directory, day, *arguments, source=None, module=TINY):
    source = source or images(directory)
    skip = ("--skip_labeled", directory / "labels" / "dt=*", "--tombstones", "--shard_rows", 3)
    with at_a_later_time():
        job = label(directory / "labels" / f"dt={day}", *source, *skip, *arguments, module=module)
    assert verify(str(job.output)).problems == ()
    return job


def gone(job):
    """The names of the images that a night found gone."""
    files = [job.output / file["name"] for file in job.manifest["files"] if file["kind"] == "deleted"]
    rows = [row for file in files for row in pq.read_table(file, schema=DELETED_SCHEMA).to_pylist()]
    assert job.manifest["deleted"] == len(rows)
    assert all(row["run_id"] == job.manifest["run_id"] for row in rows)
    return sorted(row["uri"].rpartition("/")[2] for row in rows)


def current(directory):
    """The names in the current table, each with the night of its row."""
    view = current_view(sorted(directory.glob("labels/dt=*")))
    return dict(
        view.execute("SELECT parse_filename(uri) AS name, dt FROM current_labels ORDER BY name").fetchall()
    )


def listed(directory):
    return sorted(path.name for path in (directory / "photos").iterdir())


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
    # Which of two rows of an image gives the name is not defined.
    assert [name.replace("#7", "#6") for name in gone(two)] == shown


def test_an_unreadable_image_is_not_gone(tmp_path):
    paths = photos(tmp_path / "photos", 5)
    source = ("--input", uri_list(tmp_path / "list.txt", paths))
    night(tmp_path, 1, source=source)
    paths[1].unlink()
    paths[2].write_text("no image any more")
    two = night(tmp_path, 2, "--changed", source=source)
    assert two.manifest["rows"]["failed"] == 2
    assert gone(two) == []


def test_images_of_other_inputs_are_not_gone(tmp_path, caplog):
    """Two jobs share their labels; one list changes each night; one image is in both."""
    photos(tmp_path / "photos", 4)
    others = photos(tmp_path / "others", 6)
    (tmp_path / "photos" / "more").mkdir()
    below = ("--input", f"{tmp_path / 'photos'}/*.png", "--input_format", "images")
    night(tmp_path, 1)
    night(tmp_path, 2, source=("--input", uri_list(tmp_path / "uploads 2.txt", others[:3])))
    three = night(tmp_path, 3, source=("--input", uri_list(tmp_path / "uploads 3.txt", others[3:])))
    assert gone(three) == [] and "2 earlier outputs that have other inputs" in caplog.text
    # Fewer patterns do not cover the first night's images, but more patterns do.
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
        assert "selects a part of it" in capfd.readouterr().err
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
    assert "not in the manifest" in command("verify", two.output).stdout
    (file.parent / "part-stray.parquet").unlink()

    again = night(tmp_path, 2, "--if_exists", "overwrite")
    (other,) = (again.output / "_deleted").iterdir()
    assert other.name != file.name and gone(again) == [paths[0].name]
    assert json.loads((again.output / "_MANIFEST.json").read_text())["deleted"] == 1


def test_an_input_that_is_nearly_empty_deletes_nothing(tmp_path, capfd):
    """As with a missing mount; with the options, images that are really gone are deleted on this or the next night."""
    paths = photos(tmp_path / "photos", 9)
    night(tmp_path, 1)
    away = tmp_path / "away"
    shutil.copytree(tmp_path / "photos", away)
    for path in paths[1:]:
        path.unlink()
    two = night(tmp_path, 2)
    assert two.code == 1 and not two.succeeded and gone(two) == []
    assert (
        two.manifest["tombstones"] == {"live": 9, "gone": 8} and two.manifest["within_deleted_rate"] is False
    )
    assert list(current(tmp_path)) == [path.name for path in paths], "no image is lost"
    again = night(tmp_path, 2, "--max_deleted_rate", 0.8, "--if_exists", "resume")
    assert again.code == 1 and gone(again) == []
    again = night(tmp_path, 2, "--max_deleted_rate", 0.9, "--if_exists", "resume")
    assert again.code == 0 and again.succeeded and len(gone(again)) == 8
    assert list(current(tmp_path)) == listed(tmp_path)
    paths[0].unlink()
    assert label(tmp_path / "labels" / "dt=3", *images(tmp_path), "--skip_labeled", tmp_path / "labels" / "dt=*",
                 "--tombstones").code == 2  # fmt: skip
    assert not (tmp_path / "labels" / "dt=3").exists(), "no image is there"


def test_a_list_that_is_cut_short_can_be_told_to_be_whole(tmp_path):
    """Its units are finished, and the night is resumed for the tombstones alone."""
    paths = photos(tmp_path / "photos", 6)
    night(tmp_path, 1, source=("--input", uri_list(tmp_path / "list.txt", paths)))
    source = ("--input", uri_list(tmp_path / "list.txt", paths[:2]))
    two = night(tmp_path, 2, source=source)
    assert two.code == 1 and gone(two) == []
    again = night(tmp_path, 2, "--max_deleted_rate", 1, "--if_exists", "resume", source=source)
    assert again.code == 0 and len(gone(again)) == 4
    rest = night(tmp_path, 3, source=source)
    assert rest.code == 0 and rest.manifest["tombstones"] == {"live": 2, "gone": 0}


def test_one_of_two_inputs_is_gone(tmp_path, capfd):
    for name in ("photos", "others"):
        photos(tmp_path / name, 4)
    both = (
        "--input",
        f"{tmp_path / 'photos'}/",
        "--input",
        f"{tmp_path / 'others'}/",
        "--input_format",
        "images",
    )
    night(tmp_path, 1, source=both)
    shutil.rmtree(tmp_path / "others")
    skip = ("--skip_labeled", tmp_path / "labels" / "dt=*", "--tombstones")
    assert label(tmp_path / "labels" / "dt=2", *both, *skip).code == 2 and "others" in capfd.readouterr().err
    (tmp_path / "others").mkdir()
    assert label(tmp_path / "labels" / "dt=2", *both, *skip).code == 2 and "others" in capfd.readouterr().err
    assert gone(night(tmp_path, 2)) == [], "one alone does not cover the other's images"


def test_a_clock_that_goes_back_turns_nothing_round(tmp_path, monkeypatch, caplog):
    """Nights in the same second and a day earlier: each gets a later date than the outputs it has read."""
    paths = photos(tmp_path / "photos", 4)
    skip = ("--skip_labeled", tmp_path / "labels" / "dt=*", "--tombstones", "--changed")

    def at(day, seconds):
        monkeypatch.setenv("SOURCE_DATE_EPOCH", str(1_800_000_000 + seconds))
        return label(tmp_path / "labels" / f"dt={day}", *images(tmp_path), *skip)

    at(1, 0)
    content = paths[0].read_bytes()
    shutil.copy(paths[1], paths[0])
    two = at(2, 0)
    assert two.manifest["labeled_at"] == 1_800_000_000_000_001 and "clock of this machine" not in caplog.text
    paths[0].unlink()
    three = at(3, -86_400)
    assert gone(three) == [paths[0].name] and "clock of this machine" in caplog.text
    assert list(current(tmp_path)) == listed(tmp_path)
    paths[0].write_bytes(content)
    four = at(4, -86_400)
    assert len(four.rows) == 1 and current(tmp_path) == {
        paths[0].name: 4,
        **{one.name: 1 for one in paths[1:]},
    }
    labeled = [at(5, -90_000).manifest["labeled_at"]] + [
        job.manifest["labeled_at"] for job in (four, three, two)
    ]
    assert labeled == sorted(labeled, reverse=True) and len(set(labeled)) == 4
