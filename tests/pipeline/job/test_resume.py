"""``--if_exists resume`` and ``--time_limit``: finished units stay finished, the rest follows later."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

import beamlabel.transforms.units.open_unit
import beamlabel.transforms.units.time_limit
import beamlabel.transforms.writing.write_unit
from beamlabel.pipeline import layout
from beamlabel.pipeline.output import staging
from beamlabel.pipeline.output.verify import verify
from beamlabel.transforms import storage
from beamlabel.transforms.units.time_limit import TimeLimit
from support.jobs import TINY, label, photos, uri_list
from support.staged import staged_files

IMAGES, UNIT = 12, 3
OPTIONS = ("--shard_rows", UNIT, "--max_error_rate", "1")


@pytest.fixture
def uris(tmp_path):
    paths = photos(tmp_path / "photos", IMAGES)
    paths[4].write_bytes(b"no image")
    return uri_list(tmp_path / "list.txt", paths)


@pytest.fixture
def expected(tmp_path, uris):
    return label(tmp_path / "expected", "--input", uris, *OPTIONS)


def test_a_finished_listing_that_has_grown_is_gone_on_with(tmp_path, opened):
    directory, output = tmp_path / "photos", tmp_path / "out"
    paths = photos(directory, IMAGES)
    paths[4].write_bytes(b"no image")
    images = ("--input", f"{directory}/", "--input_format", "images", *OPTIONS, "--if_exists", "resume")
    first = label(output, *images)
    opened.clear()
    again = label(output, *images)
    assert not opened, "no unit is new"
    assert again.rows == first.rows and again.failures == first.failures
    paths[0].rename(directory / "photo 999.png")
    (directory / "photo 998.png").write_bytes(paths[1].read_bytes())
    done = label(output, *images)
    assert done.code == 0
    assert sorted(row["uri"] for row in done.rows + done.failures) == sorted(map(str, directory.iterdir()))
    assert verify(str(output)).problems == ()


@pytest.mark.parametrize("gone", ["shards", "failures", "half a shard", "half a record"])
def test_units_whose_files_are_gone_are_done_again(tmp_path, uris, expected, cut_off, gone):
    cut_off(tmp_path / "out", "--input", uris, *OPTIONS)
    (staged,) = tmp_path.glob("_beamlabel*/staging/*")
    if gone.startswith("half"):
        path = next((staged / ("shards" if gone == "half a shard" else "units")).iterdir())
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif (staged / gone).exists():
        shutil.rmtree(staged / gone)
    done = label(tmp_path / "out", "--input", uris, *OPTIONS, "--if_exists", "resume")
    assert done.code == 0
    same_rows(done, expected)
    assert not leftovers(tmp_path)


@pytest.mark.parametrize("if_exists", ["error", "overwrite", "resume"])
def test_a_commit_whose_files_are_gone_is_dropped(tmp_path, uris, expected, monkeypatch, caplog, if_exists):
    output = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr("beamlabel.pipeline.output.publish.publish", lambda output, staging: sys.exit("gone"))
        with pytest.raises(SystemExit):
            label(output, "--input", uris, *OPTIONS)
    shutil.rmtree(next(tmp_path.glob("_beamlabel*/staging/*/shards")))
    done = label(output, "--input", uris, *OPTIONS, "--if_exists", if_exists)
    assert "Dropping the incomplete commit" in caplog.text
    assert done.code == 0
    same_rows(done, expected)
    assert not leftovers(tmp_path)


def test_an_interrupted_deletion_leaves_no_sign_of_success(tmp_path, uris, cut_off, monkeypatch):
    """Each deleting call in turn is the last one; the rest is resumed."""
    for calls in range(20):
        output = tmp_path / f"out{calls}"
        cut_off(output, "--input", uris, *OPTIONS)
        (staged,) = tmp_path.glob("_beamlabel*/staging/*")
        done = []

        def delete(real, calls=calls, done=done):
            def call(path):
                if len(done) == calls:
                    raise KeyboardInterrupt
                real(path)
                done.append(path)

            return call

        with monkeypatch.context() as patch:
            for name in ("delete", "delete_tree"):
                patch.setattr(storage, name, delete(getattr(storage, name)))
            try:
                staging.delete_run(str(staged))
                is_over = True
            except KeyboardInterrupt:
                is_over = False
        for record in staged.glob("units/*"):
            for file in json.loads(record.read_text())["files"]:
                assert (staged / file["name"]).exists()
        assert label(output, "--input", uris, *OPTIONS, "--if_exists", "resume").code == 0
        if is_over:
            break
    assert is_over and calls >= 3


@pytest.mark.parametrize(("if_exists", "code"), [("error", 75), ("resume", 75), ("overwrite", 0)])
def test_a_job_that_was_submitted_is_left_alone(tmp_path, uris, cut_off, caplog, if_exists, code):
    """It no longer has a launcher that holds the lock."""
    output = tmp_path / "out"
    cut_off(output, "--input", uris, *OPTIONS)
    (job,) = tmp_path.glob("_beamlabel*/staging/*/job.json")
    job.write_text(json.dumps({**json.loads(job.read_text()), "detached": "--attached_mode: on its own"}))
    before = sorted(job.parent.rglob("*"))
    assert label(output, "--input", uris, *OPTIONS, "--if_exists", if_exists).code == code
    assert str(job.parent) in caplog.text
    if code:
        assert sorted(job.parent.rglob("*")) == before and not output.exists()


def leftovers(directory):
    return [path for path in directory.iterdir() if path.name.startswith("_beamlabel")]


def same_rows(job, expected):
    assert job.rows == expected.rows
    assert job.failures == expected.failures
    assert [f["sha256"] for f in job.manifest["files"]] == [f["sha256"] for f in expected.manifest["files"]]


def test_a_run_that_was_cut_off_is_finished(tmp_path, uris, expected, cut_off, opened):
    output = tmp_path / "out"
    assert cut_off(output, "--input", uris, *OPTIONS).code == 3
    assert not output.exists()
    opened.clear()
    done = label(output, "--input", uris, *OPTIONS, "--if_exists", "resume")
    assert done.code == 0
    assert len(opened) == 2
    assert done.manifest["resumed_units"] == 2
    assert done.manifest["rows"] == {"input": 12, "predicted": 11, "failed": 1, "skipped": 0}
    same_rows(done, expected)
    assert not leftovers(tmp_path)


@pytest.mark.parametrize("if_exists", ["error", "overwrite"])
def test_the_other_two_delete_the_leftovers(tmp_path, uris, expected, cut_off, opened, if_exists):
    output = tmp_path / "out"
    cut_off(output, "--input", uris, *OPTIONS)
    opened.clear()
    done = label(output, "--input", uris, *OPTIONS, "--if_exists", if_exists)
    assert len(opened) == IMAGES // UNIT
    assert "resumed_units" not in done.manifest
    same_rows(done, expected)


@pytest.mark.parametrize("changed", [("--top_k", 2), ("--shard_rows", 4), ("--crop", 0.5)])
def test_another_plan_adopts_nothing(tmp_path, uris, cut_off, opened, changed):
    output = tmp_path / "out"
    cut_off(output, "--input", uris, *OPTIONS)
    assert list(tmp_path.glob("_beamlabel*/staging/*/units/*"))
    opened.clear()
    done = label(output, "--input", uris, *OPTIONS, *changed, "--if_exists", "resume")
    assert done.manifest["resumed_units"] == 0
    assert done.manifest["rows"]["predicted"] == 11
    # Publishing leaves no file of the other plan behind.
    assert not [*tmp_path.glob("_beamlabel*/staging/*"), *output.glob("_beamlabel/staging/*")]


def test_a_changed_listing_reuses_only_equal_units(tmp_path, cut_off, opened):
    directory, output = tmp_path / "photos", tmp_path / "out"
    paths = photos(directory, IMAGES)
    images = ("--input", f"{directory}/", "--input_format", "images", *OPTIONS)
    cut_off(output, *images)
    # A staged unit will hold other images: its second image moves before its first.
    first, _ = sorted(tmp_path.glob("_beamlabel*/staging/*/units/*"))
    place = json.loads(first.read_text())["ranges"][0]["start"]
    paths[place + 1].rename(directory / paths[place].name.replace(".png", " - new.png"))
    opened.clear()
    done = label(output, *images, "--if_exists", "resume")
    assert sorted(row["uri"] for row in done.rows) == sorted(map(str, directory.iterdir()))
    assert len(opened) == 3
    assert done.manifest["rows"]["input"] == IMAGES


def test_finished_units_are_not_repeated(tmp_path, uris, opened):
    output = tmp_path / "out"
    arguments = ("--input", uris, "--shard_rows", UNIT, "--if_exists", "resume", "--min_failures", 1)
    first = label(output, *arguments)
    assert first.code == 1, "one of twelve failed"
    manifest = first.manifest
    opened.clear()
    again = label(output, *arguments)
    assert again.code == 1
    assert not opened
    assert again.manifest == manifest


def test_resume_replaces_another_plans_result(tmp_path, uris, expected):
    output = tmp_path / "out"
    label(output, "--input", uris, *OPTIONS, "--limit", 2)
    done = label(output, "--input", uris, *OPTIONS, "--if_exists", "resume")
    same_rows(done, expected)
    assert not leftovers(output)


def test_a_foreign_directory_is_refused(tmp_path, uris, capfd):
    output = tmp_path / "out"
    output.mkdir()
    (output / "mine.txt").touch()
    assert label(output, "--input", uris, "--if_exists", "resume").code == 2
    assert "--if_exists resume" in capfd.readouterr().err


def test_an_output_that_comes_to_be_meanwhile_is_not_touched(tmp_path, uris, monkeypatch, caplog):
    output = tmp_path / "out"
    real = storage.create_if_absent

    def commit(path, data):
        if path.endswith(layout.COMMIT):
            output.mkdir()
            (output / "mine.txt").write_text("somebody's")
        return real(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(storage, "create_if_absent", commit)
        assert label(output, "--input", uris, *OPTIONS).code == 3
    assert "was created during the run" in caplog.text
    assert [path.name for path in output.iterdir()] == ["mine.txt"]
    output.rename(tmp_path / "away")
    command = [sys.executable, "-m", "beamlabel", "publish", str(output)]
    assert subprocess.run(command, check=False, capture_output=True).returncode == 0
    assert (output / "_SUCCESS").exists()
    assert not leftovers(tmp_path)


# --- out of time ---


class Clock:
    """A stand-in for the module ``time`` in ``open_unit``: an hour passes with each unit."""

    def __init__(self):
        self._now = time.time()

    def time(self):
        self._now += 3600
        return self._now


@pytest.fixture
def an_hour_a_unit(monkeypatch):
    monkeypatch.setattr(beamlabel.transforms.units.open_unit, "time", Clock())


@pytest.mark.parametrize("where", ["local", "gs"])
def test_resume_continues_after_the_time_limit(tmp_path, uris, expected, monkeypatch, opened, gcs, where):
    output = tmp_path / "out" if where == "local" else gcs.uri("out")
    arguments = ("--input", uris, *OPTIONS, "--if_exists", "resume")
    with monkeypatch.context() as patch:
        patch.setattr(beamlabel.transforms.units.open_unit, "time", Clock())
        assert label(output, *arguments, "--time_limit", "2h30m").code == 4
    assert len(opened) == 2
    manifest = json.loads(storage.read_bytes(f"{output}/_MANIFEST.json"))
    assert manifest["rows"] == {"input": 12, "predicted": 5, "failed": 1, "skipped": 6}
    assert manifest["skipped_by_reason"] == {"time_limit": 6}
    assert manifest["complete"] is False and manifest["conserved"]
    assert not storage.exists(f"{output}/_SUCCESS")
    opened.clear()
    assert label(output, *arguments).code == 0
    assert len(opened) == 2
    manifest = json.loads(storage.read_bytes(f"{output}/_MANIFEST.json"))
    assert manifest["rows"] == {"input": 12, "predicted": 11, "failed": 1, "skipped": 0}
    assert manifest["complete"] and manifest["skipped_by_reason"] == {} and manifest["resumed_units"] == 2
    assert [f["sha256"] for f in manifest["files"]] == [f["sha256"] for f in expected.manifest["files"]]
    there = {file.path.rpartition("/")[2] for file in storage.match(f"{output}/")}
    named = {file["name"].rpartition("/")[2] for file in manifest["files"]}
    assert there == {"_MANIFEST.json", "_SUCCESS", *named}


def test_time_that_is_over_at_once(tmp_path, uris, an_hour_a_unit):
    job = label(tmp_path / "out", "--input", uris, *OPTIONS, "--time_limit", "1s")
    assert job.code == 4
    assert job.manifest["rows"] == {"input": 12, "predicted": 0, "failed": 0, "skipped": 12}
    assert not list(job.output.glob("part-*"))


def test_skipped_references_are_counted_in_a_sample_of_parquet(tmp_path, uris, an_hour_a_unit):
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"uri": uris.read_text().split("\n")[:-1]}), tmp_path / "in.parquet")
    arguments = ("--input", tmp_path / "in.parquet", *OPTIONS, "--sample", 0.5)
    late = label(tmp_path / "late", *arguments, "--time_limit", "1s").manifest["rows"]
    done = label(tmp_path / "done", *arguments).manifest["rows"]
    assert late["skipped"] == late["input"] == done["input"] < IMAGES


# --- killed ---


def start(output, uris):
    command = ["--input", uris, "--module", TINY, "--output", output, *OPTIONS, "--if_exists", "resume"]
    return subprocess.Popen(
        [sys.executable, "-m", "beamlabel", *map(str, command)],
        start_new_session=True,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_killed_process_group_is_resumed(tmp_path):
    """The kill comes when the first units are staged; ``benchmarks/kills.py`` tries many moments."""
    uris = uri_list(tmp_path / "list.txt", photos(tmp_path / "photos", 400))
    output = tmp_path / "out"
    process = start(output, uris)
    while len(staged_files(tmp_path, "units/*.json")) < 3:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not output.exists()
    again = start(output, uris)
    told = again.communicate(timeout=120)[1]
    assert again.returncode == 0, told
    assert "finished units" in told
    manifest = json.loads((output / "_MANIFEST.json").read_text())
    assert manifest["rows"]["predicted"] == 400 and manifest["resumed_units"] >= 3
    assert not leftovers(tmp_path)


@pytest.mark.parametrize("where", ["local", "gs"])
def test_the_time_of_a_job_that_is_started_later_begins_with_its_first_worker(
    tmp_path, gcs, where, monkeypatch
):
    staging_dir = str(tmp_path) if where == "local" else gcs.uri("staging")
    clock = Clock()
    monkeypatch.setattr(beamlabel.transforms.units.time_limit, "time", clock)
    limit = TimeLimit(1800.0, "run1")
    first = limit.stop_at(staging_dir)
    assert first == clock.time() - 3600 + 1800
    assert limit.stop_at(staging_dir) == first, "the next worker's"
    assert TimeLimit(1800.0, "run2").stop_at(staging_dir) > first
    assert TimeLimit(1800.0, "run1", 7.0).stop_at(staging_dir) == 1807.0


def test_a_result_whose_time_was_over_is_a_good_one(tmp_path, uris, an_hour_a_unit):
    job = label(tmp_path / "out", "--input", uris, *OPTIONS, "--time_limit", "2h30m")
    assert not verify(str(job.output)).problems
    (job.output / "_SUCCESS").touch()
    assert "the run reached --time_limit" in " ".join(verify(str(job.output)).problems)
