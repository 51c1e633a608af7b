"""``beamlabel compact``: the current table of several nights equals one run over the final bucket."""

import json
import shutil
import sys
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from beamlabel.pipeline.compact import compact as compaction
from beamlabel.pipeline.compact.compact import compact
from beamlabel.pipeline.errors import UsageError
from beamlabel.pipeline.output.lock import OutputLockedError, locked
from beamlabel.pipeline.output.verify import verify
from support.gcs_server import Bucket
from support.jobs import FinishedJob, label, photos, read_examples
from support.tombstones import add_tombstones


@pytest.fixture(scope="module", autouse=True)
def _real_time():
    """Uses the real time, since the time of the rows distinguishes nights."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("SOURCE_DATE_EPOCH", raising=False)
        yield


class Nights:
    """A changing directory of photographs and the nights that label it."""

    def __init__(self, directory: Path, *arguments) -> None:
        self.directory, self.arguments = directory, arguments
        self.photos = photos(directory / "photos", 30)

    def run(self, output: str, *arguments) -> FinishedJob:
        source = (
            "--input",
            self.directory / "photos/*.png",
            "--input_format",
            "images",
            "--max_error_rate",
            "1",
        )
        job = label(self.directory / output, *source, *self.arguments, *arguments)
        assert job.code == 0
        return job

    def night(self, number: int, *arguments) -> FinishedJob:
        skip = ("--skip_labeled", f"{self.directory}/labels/dt=*/", "--changed")
        return self.run(f"labels/dt=2026-01-{number:02d}", *skip, *arguments)

    @property
    def labels(self) -> str:
        return str(self.directory / "labels")

    def changed(self) -> None:
        """Replaces one photo by another and one by a broken one, deletes three and adds five."""
        shutil.copy(self.photos[1], self.photos[0])
        self.photos[2].write_bytes(self.photos[2].read_bytes()[:300])
        for path in self.photos[3:6]:
            path.unlink()
        for number, path in enumerate(photos(self.directory / "more", 36)[31:]):
            path.rename(self.directory / "photos" / f"new {number}.png")


@pytest.fixture(scope="module")
def lived(tmp_path_factory, _real_time) -> Nights:
    """Three nights with many changes before the second and none before the third, and a run over the final photos."""
    nights = Nights(tmp_path_factory.mktemp("nights"), "--shard_rows", 9)
    nights.night(1)
    nights.changed()
    nights.night(2, "--tombstones")
    nights.night(3)
    nights.run("whole")
    return nights


def table(directory) -> list[dict]:
    rows = [
        row
        for path in sorted(Path(directory).glob("part-*.parquet"))
        for row in pq.read_table(path).to_pylist()
    ]
    return sorted(
        ({**row, "labeled_at": None, "source_version": None} for row in rows), key=lambda row: row["uri"]
    )


def failures(directory) -> list[dict]:
    files = sorted((Path(directory) / "_failures").glob("part-*.jsonl"))
    return [json.loads(line) for path in files for line in path.read_text().splitlines()]


def test_it_equals_one_run_over_the_final_images(lived, tmp_path):
    before = {path: path.read_bytes() for path in Path(lived.labels).rglob("*") if path.is_file()}
    manifest = compact([lived.labels], str(tmp_path / "current"), shard_rows=10)
    assert table(tmp_path / "current") == table(lived.directory / "whole")
    assert [(f["uri"], f["reason"]) for f in failures(tmp_path / "current")] == [
        (f["uri"], f["reason"]) for f in failures(lived.directory / "whole")
    ]
    told = manifest["compacted"]
    # 30 on the first night, 6 on the second. The broken one failed on the second and the third.
    assert told["rows"] == {
        "kept": 31, "superseded": 1, "deleted": 3, "failed_since": 1, "other_module": 0, "unidentified": 0
    }  # fmt: skip
    assert sum(told["rows"].values()) == told["rows_read"] == 36
    assert sum(told["failures"].values()) == told["failures_read"]
    rows = manifest["rows"]
    assert rows["predicted"] == 31 and rows["failed"] == 1
    assert rows["input"] == told["rows_read"] + told["failures_read"]
    assert sum(manifest["skipped_by_reason"].values()) == rows["skipped"]
    assert before == {path: path.read_bytes() for path in Path(lived.labels).rglob("*") if path.is_file()}


def test_what_it_writes_is_a_result(lived, tmp_path):
    current = tmp_path / "current"
    compact([lived.labels], str(current), shard_rows=10)
    assert verify(str(current)).problems == ()
    assert len(list(current.glob("part-*.parquet"))) == 4
    assert (current / "_SUCCESS").exists()
    # The old nights may be deleted: a run that skips by the table alone has nothing left to do.
    job = lived.run(str(tmp_path / "night"), "--skip_labeled", current, "--changed")
    assert job.manifest["rows"] == {"input": 32, "predicted": 0, "failed": 0, "skipped": 32}
    assert job.manifest["skipped_by_reason"] == {"known_failure": 1, "labeled": 31}
    # Later tables are the same with and without the old nights.
    compact([str(current), str(tmp_path / "night")], str(tmp_path / "again"), shard_rows=50)
    assert table(tmp_path / "again") == table(current)
    compact([str(current), lived.labels], str(tmp_path / "both"), shard_rows=50)
    assert table(tmp_path / "both") == table(current)
    assert failures(tmp_path / "both") == failures(current)


def test_runs_of_one_time_are_told_apart_by_their_starts(lived, tmp_path, monkeypatch):
    """As with SOURCE_DATE_EPOCH, which gives all rows the same time."""
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    nights = Nights(tmp_path)
    nights.night(1)
    nights.changed()
    nights.night(2)
    whole = nights.run("whole")
    for path in nights.photos[3:6]:
        shutil.copy(nights.photos[6], path)
    nights.night(3)
    compact([nights.labels], str(tmp_path / "out"), shard_rows=50)
    rows = {row["uri"]: row for row in table(tmp_path / "out")}
    assert {**rows, **{row["uri"]: row for row in table(whole.output)}} == rows
    assert len(rows) == 31 + 3


def test_duckdb_finds_the_same_rows(lived, tmp_path):
    compact([lived.labels], str(tmp_path / "current"), shard_rows=10)
    newest = duckdb.sql(f"""
        WITH rows AS (
            SELECT image_id, max(labeled_at) AS labeled_at FROM '{lived.labels}/*/*.parquet' GROUP BY image_id
        ), gone AS (
            SELECT image_id, max(deleted_at) AS deleted_at FROM '{lived.labels}/*/_deleted/*.parquet' GROUP BY image_id
        )
        SELECT rows.image_id FROM rows LEFT JOIN gone USING (image_id)
        WHERE deleted_at IS NULL OR deleted_at <= labeled_at
    """).fetchall()
    failed = {failure["image_id"] for failure in failures(tmp_path / "current")}
    assert {row["image_id"] for row in table(tmp_path / "current")} == {one for (one,) in newest} - failed


def test_a_kill_costs_the_units_in_progress(lived, tmp_path, monkeypatch):
    whole = compact([lived.labels], str(tmp_path / "whole"), shard_rows=7)
    written = []
    real = compaction.stage_shard

    def stage(selection, target, metadata, cut, staging_dir):
        if len(written) == 3:
            sys.exit("killed")
        written.append(cut.number)
        return real(selection, target, metadata, cut, staging_dir)

    with monkeypatch.context() as patch:
        patch.setattr(compaction, "stage_shard", stage)
        with pytest.raises(SystemExit, match="killed"):
            compact([lived.labels], str(tmp_path / "out"), shard_rows=7)
    assert not (tmp_path / "out").exists()
    again = []
    with monkeypatch.context() as patch:
        patch.setattr(compaction, "stage_shard", lambda *a: again.append(a[3].number) or real(*a))
        resumed = compact([lived.labels], str(tmp_path / "out"), shard_rows=7, if_exists="resume")
    assert again == [3, 4, 5], "three shards were finished, so they are not written again"
    hashes = [[(file["rows"], file["sha256"]) for file in manifest["files"]] for manifest in (whole, resumed)]
    assert hashes[0] == hashes[1], "the same inputs give the same bytes"
    assert verify(str(tmp_path / "out")).problems == ()
    assert (
        compact([lived.labels], str(tmp_path / "out"), shard_rows=7, if_exists="resume")["run_id"]
        == resumed["run_id"]
    )
    assert not list(tmp_path.glob("_beamlabel*"))


@pytest.mark.parametrize("step", ["commit", "move"])
def test_a_kill_while_it_is_published(lived, tmp_path, monkeypatch, step):
    output = str(tmp_path / "out")
    with monkeypatch.context() as patch:
        if step == "commit":
            patch.setattr(compaction, "publish", lambda *_: sys.exit("killed"))
        else:
            patch.setattr("beamlabel.transforms.storage.move_directory", lambda *_: sys.exit("killed"))
        with pytest.raises(SystemExit, match="killed"):
            compact([lived.labels], output, shard_rows=50)
    manifest = compact([lived.labels], output, shard_rows=50, if_exists="resume")
    assert manifest["rows"]["predicted"] == 31
    assert verify(output).problems == ()
    assert not list(tmp_path.glob("_beamlabel*"))


def test_another_night_makes_it_another_plan(lived, tmp_path):
    nights = tmp_path / "labels"
    shutil.copytree(Path(lived.labels) / "dt=2026-01-01", nights / "dt=2026-01-01")
    compact([str(nights)], str(tmp_path / "out"), shard_rows=50)
    assert len(table(tmp_path / "out")) == 30
    with pytest.raises(UsageError, match="exists"):
        compact([str(nights)], str(tmp_path / "out"), shard_rows=50)
    shutil.copytree(Path(lived.labels) / "dt=2026-01-02", nights / "dt=2026-01-02")
    compact([str(nights)], str(tmp_path / "out"), shard_rows=50, if_exists="resume")
    assert len(table(tmp_path / "out")) == 31
    assert verify(str(tmp_path / "out")).problems == ()


@pytest.mark.parametrize(
    "output", ["labels", "labels/current", "labels/dt=2026-01-01", "labels/dt=2026-01-09", "."]
)
def test_an_output_among_the_inputs_is_refused(lived, output):
    for pattern in (lived.labels, f"{lived.labels}/dt=*/", f"{lived.labels}/dt=*"):
        if output == "labels/current" and "*" in pattern:
            continue
        with pytest.raises(UsageError, match=r"among|not a result|exists"):
            compact([pattern], str(lived.directory / output), shard_rows=50, if_exists="overwrite")


def test_unpublished_files_are_not_read(lived, tmp_path):
    directory = tmp_path / "labels"
    shutil.copytree(lived.labels, directory)
    shutil.copytree(
        directory / "dt=2026-01-01", directory / "_beamlabel-0123456789ab" / "staging" / "x" / "result"
    )
    (directory / "dt=2026-01-08").mkdir()
    shutil.copy(next((directory / "dt=2026-01-01").glob("part-*.parquet")), directory / "dt=2026-01-08")
    (directory / "dt=2026-01-09").mkdir()
    (directory / "dt=2026-01-09" / "_MANIFEST.json").write_text('{"somebody": "else"}')
    manifest = compact([str(directory)], str(tmp_path / "out"), shard_rows=50)
    assert len(manifest["compacted"]["outputs"]) == 3
    with pytest.raises(UsageError, match="no published output"):
        compact([str(directory / "dt=2026-01-09")], str(tmp_path / "none"), shard_rows=50)
    assert not (tmp_path / "none").exists()


def test_one_compaction_at_a_time(lived, tmp_path):
    with locked(str(tmp_path / "out")), pytest.raises(OutputLockedError):
        compact([lived.labels], str(tmp_path / "out"), shard_rows=50)


def test_another_module_is_no_part_of_the_table(lived, tmp_path):
    shutil.copytree(lived.labels, tmp_path / "labels")
    kept = list((lived.directory / "photos").glob("*.png"))[:20]
    arguments = ("--input", *kept, "--input_format", "images", "--crop", "0.5", "--max_error_rate", "1")
    newest = label(tmp_path / "labels" / "dt=2026-01-04", *arguments)
    with pytest.raises(UsageError, match="--drop_others"):
        compact([str(tmp_path / "labels")], str(tmp_path / "out"), shard_rows=50)
    assert not (tmp_path / "out").exists()
    manifest = compact([str(tmp_path / "labels")], str(tmp_path / "out"), shard_rows=50, drop_others=True)
    assert table(tmp_path / "out") == table(newest.output)
    assert manifest["compacted"]["rows"]["other_module"] > 0
    assert verify(str(tmp_path / "out")).problems == ()


def test_columns_that_came_later(tmp_path):
    paths = photos(tmp_path / "photos", 4)
    pq.write_table(
        pa.table({"uri": [str(path) for path in paths], "taken": [1, 2, 3, 4]}), tmp_path / "in.parquet"
    )
    label(tmp_path / "labels" / "1", "--input", tmp_path / "in.parquet")
    label(
        tmp_path / "labels" / "2", "--input", tmp_path / "in.parquet", "--keep_columns", "taken", "--limit", 3
    )
    with pytest.raises(UsageError, match=r"1 images have neither a row .*columns"):
        compact([str(tmp_path / "labels")], str(tmp_path / "out"), shard_rows=50)
    label(tmp_path / "labels" / "3", "--input", tmp_path / "in.parquet", "--keep_columns", "taken")
    compact([str(tmp_path / "labels")], str(tmp_path / "out"), shard_rows=50)
    assert [row["taken"] for row in table(tmp_path / "out")] == [1, 2, 3, 4]
    assert verify(str(tmp_path / "out")).problems == ()


@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_tfrecords_are_copied(tmp_path, compression):
    nights = Nights(tmp_path, "--output_format", "tfrecord", "--tfrecord_compression", compression)
    nights.night(1)
    nights.changed()
    nights.night(2, "--tombstones")
    whole = nights.run("whole")
    compact([nights.labels], str(tmp_path / "out"), shard_rows=12)

    def rows(directory):
        found = read_examples(directory, compression)
        return sorted((r["uri"], r["image_id"], r["scores"], r["content_hash"]) for r in found)

    assert rows(tmp_path / "out") == rows(whole.output)
    assert verify(str(tmp_path / "out")).problems == ()


def test_rows_of_version_1(tmp_path):
    """Newer rows of the same image supersede them; without newer rows they are kept."""
    paths = photos(tmp_path / "photos", 6)
    source = ("--input", tmp_path / "photos/*.png", "--input_format", "images")
    first = label(tmp_path / "labels" / "1", *source)
    as_version_1(first.output)
    label(tmp_path / "labels" / "2", "--input", *paths[:2], "--input_format", "images")
    compact([str(tmp_path / "labels")], str(tmp_path / "out"), shard_rows=50)
    rows = table(tmp_path / "out")
    whole = label(tmp_path / "whole", *source)
    assert [row["image_id"] for row in rows] == [row["image_id"] for row in table(whole.output)]
    assert [row["content_hash"] != "" for row in rows] == [True] * 2 + [False] * 4
    assert verify(str(tmp_path / "out")).problems == ()


def as_version_1(output: Path) -> None:
    (path,) = output.glob("part-*.parquet")
    shard = pq.read_table(path).drop_columns(["image_id", "content_hash", "module_handle", "labeled_at"])
    metadata = {**shard.schema.metadata, b"beamlabel.schema_version": b"1"}
    pq.write_table(shard.replace_schema_metadata(metadata), path)
    content = json.loads((output / "_MANIFEST.json").read_text())
    content["schema_version"] = content["metadata"]["beamlabel.schema_version"] = "1"
    (output / "_MANIFEST.json").write_text(json.dumps(content))


def test_buckets(gcs: Bucket, lived, tmp_path):
    for path in Path(lived.labels).rglob("*"):
        if path.is_file():
            gcs.put(f"labels/{path.relative_to(lived.labels)}", path.read_bytes())
    compact([gcs.uri("labels/")], gcs.uri("current"), shard_rows=20)
    assert verify(gcs.uri("current")).problems == ()
    here = compact([lived.labels], str(tmp_path / "current"), shard_rows=20)
    there = compact([gcs.uri("labels/dt=*/")], gcs.uri("current"), shard_rows=20, if_exists="resume")
    assert there["rows"] == here["rows"]


def test_no_row_is_left(tmp_path):
    paths = photos(tmp_path / "photos", 2)
    job = label(tmp_path / "labels" / "1", "--input", *paths, "--input_format", "images")
    for path in paths:
        path.unlink()
    second = label(tmp_path / "labels" / "2", "--input", *paths[:1], "--input_format", "images")
    assert second.code == 2, "no image is left"
    add_later(job.output, tmp_path / "labels" / "2", paths)
    compact([str(tmp_path / "labels")], str(tmp_path / "out"), shard_rows=50)
    assert table(tmp_path / "out") == []
    assert verify(str(tmp_path / "out")).problems == ()


def add_later(first: Path, second: Path, paths) -> None:
    """Adds a night without rows and with tombstones for all images."""
    shutil.copytree(first, second)
    manifest = json.loads((second / "_MANIFEST.json").read_text())
    manifest["started_at"] = "2999-01-01T00:00:00.000+00:00"
    manifest["files"] = []
    manifest["rows"] = dict.fromkeys(manifest["rows"], 0)
    (second / "_MANIFEST.json").write_text(json.dumps(manifest))
    add_tombstones(second, map(str, paths))
