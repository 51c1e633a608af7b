"""A run never deletes foreign files, local or in a bucket; errors name foreign files in its place."""

from __future__ import annotations

import json
import os
from pathlib import Path

import duckdb
import pyarrow.dataset as ds
import pytest

from beamlabel.pipeline import layout
from beamlabel.pipeline.commands.publish import publish_committed
from beamlabel.pipeline.errors import UsageError
from beamlabel.pipeline.job import stage as stage_module
from beamlabel.pipeline.output import staging
from beamlabel.pipeline.output.publish import finish_pending
from beamlabel.transforms import storage
from support.jobs import TINY, label, photos, prepared, uri_list


@pytest.fixture
def uris(tmp_path):
    return uri_list(tmp_path / "list.txt", photos(tmp_path / "photos", 4))


def publish_committed_code(output):
    """The exit code of ``beamlabel publish``."""
    try:
        return publish_committed(output)
    except UsageError:
        return 2


class Directory:
    """A local output with the helpers of a bucket."""

    def __init__(self, path):
        self.output = str(path)

    def put(self, name, data):
        path = Path(self.output, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    def content(self):
        files = (path for path in Path(self.output).rglob("*") if path.is_file())
        return {str(path.relative_to(self.output)): path.read_bytes() for path in files}


class Prefix:
    """An output in a bucket."""

    def __init__(self, bucket):
        self._bucket = bucket
        self.output = bucket.uri("out")

    def put(self, name, data):
        self._bucket.put(f"out/{name}", data)

    def content(self):
        return {name[4:]: self._bucket.get(name) for name in self._bucket.list("out/")}


@pytest.fixture(params=["local", "gs"])
def place(request, tmp_path):
    """An output."""
    return Directory(tmp_path / "out") if request.param == "local" else Prefix(request.getfixturevalue("gcs"))


FOREIGN = {
    "a file in our directory": ("_beamlabel/notes.txt", b"mine"),
    "a directory in our directory": ("_beamlabel/backup/old.parquet", b"mine"),
    "a directory in staging": ("_beamlabel/staging/0123456789abcdef/old.parquet", b"mine"),
    "a file in staging": ("_beamlabel/staging/notes.txt", b"mine"),
    "another's job.json": ("_beamlabel/staging/0123456789abcdef/job.json", b'{"job": "mine"}'),
    "no job.json but a commit": ("_beamlabel/staging/0123456789abcdef/commit.json", b'{"records": []}'),
    "another's lock": ("_beamlabel/lock", b"mine"),
    "another's units.json": ("_beamlabel/units.json", b'{"records": []}'),
    "a directory in place of units.json": ("_beamlabel/units.json/x", b"mine"),
    "a directory in place of the lock": ("_beamlabel/lock/x", b"mine"),
    "a directory in place of job.json": ("_beamlabel/staging/0123456789abcdef/job.json/x", b"mine"),
}


@pytest.mark.parametrize("if_exists", ["error", "overwrite", "resume"])
@pytest.mark.parametrize("foreign", FOREIGN)
def test_a_foreign_file_at_our_place_is_named_and_left_alone(place, uris, capsys, foreign, if_exists):
    name, data = FOREIGN[foreign]
    place.put(name, data)
    assert label(place.output, "--input", uris, "--if_exists", if_exists).code == 2
    assert place.output + "/" + layout.OWN in capsys.readouterr().err
    assert place.content() == {name: data}
    assert publish_committed_code(place.output) == 2
    assert place.content() == {name: data}


@pytest.mark.parametrize("name", ["_staging/theirs.txt", "_staging/plan/job.json", "_LOCK", "_UNITS.json"])
def test_names_that_earlier_versions_used_are_as_any_others(place, uris, name):
    """A foreign file blocks a new output, and is left alone beside a result."""
    place.put(name, b"theirs")
    assert label(place.output, "--input", uris).code == 2
    assert label(place.output, "--input", uris, "--if_exists", "overwrite").code == 2
    assert place.content() == {name: b"theirs"}


@pytest.mark.parametrize(
    "name", ["_staging/theirs.txt", "_staging/plan/job.json", "_LOCK", "_UNITS.json", "notes"]
)
def test_foreign_files_beside_a_result_stay(place, uris, name):
    assert label(place.output, "--input", uris).code == 0
    before = place.content()
    place.put(name, b"theirs")
    assert label(place.output, "--input", uris, "--if_exists", "overwrite", "--top_k", 2).code == 0
    after = place.content()
    assert after[name] == b"theirs"
    assert not {path for path in after if path.startswith("part-")} & before.keys()


def test_a_manifest_of_somebody_else_is_not_believed(place, uris):
    """It names files like a beamlabel manifest, but none of them is deleted."""
    manifest = {
        "run_id": "1",
        "plan_id": "2",
        "rows": {},
        "metadata": {},
        "files": [{"name": "part-0.parquet"}],
    }
    place.put("_MANIFEST.json", json.dumps(manifest).encode())
    place.put("part-0.parquet", b"theirs")
    before = place.content()
    assert label(place.output, "--input", uris, "--if_exists", "overwrite").code == 2
    assert place.content() == before


def test_an_output_within_our_directory_is_refused(tmp_path, uris):
    assert label(tmp_path / "out" / "_beamlabel" / "x", "--input", uris).code == 2
    assert label(tmp_path / "_beamlabel", "--input", uris).code == 2
    assert not list(tmp_path.glob("*/_beamlabel"))


# --- links and the like, on a local disk ---


@pytest.mark.parametrize(
    "at", ["", "staging", "staging/plan", "staging/0123456789abcdef/shards", "units.json"]
)
def test_a_link_in_place_of_ours_is_not_followed(tmp_path, uris, at):
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "job.json").write_text(json.dumps({"format": layout.JOB_FORMAT, "run_id": "1"}))
    own = tmp_path / "out" / layout.OWN
    place = own / at if at else own
    place.parent.mkdir(parents=True)
    if at.endswith("shards"):
        (place.parent / "job.json").write_bytes((theirs / "job.json").read_bytes())
    place.symlink_to(theirs)
    assert label(tmp_path / "out", "--input", uris, "--if_exists", "overwrite").code == 2
    assert place.is_symlink()
    assert list(theirs.iterdir()) == [theirs / "job.json"]


@pytest.mark.parametrize("at", ["", "staging", "units.json"])
def test_a_pipe_or_a_file_in_place_of_a_directory(tmp_path, uris, at):
    own = tmp_path / "out" / layout.OWN
    place = own / at if at else own
    place.parent.mkdir(parents=True)
    os.mkfifo(place)
    assert label(tmp_path / "out", "--input", uris).code == 2
    assert place.is_fifo()


def test_a_foreign_directory_beside_a_new_output(tmp_path, uris):
    beside = Path(staging.beside(str(tmp_path / "out")))
    beside.mkdir()
    (beside / "notes.txt").write_bytes(b"mine")
    assert label(tmp_path / "out", "--input", uris).code == 2
    assert [path.name for path in beside.iterdir()] == ["notes.txt"]


# --- files of beamlabel ---


class Killed(BaseException):
    """A stand-in for SIGKILL: no code after it runs."""


@pytest.mark.parametrize("if_exists", ["error", "overwrite", "resume"])
def test_the_next_run_knows_the_files_of_a_launcher_killed_while_staging(place, uris, monkeypatch, if_exists):
    arguments = ("--input", uris, "--output", place.output, "--module", TINY, "--if_exists", if_exists)
    for kill_after in range(20):
        done, real = [], {name: getattr(storage, name) for name in ("write_bytes", "write_file")}

        def step(name, kill_after=kill_after, done=done, real=real):
            def call(*values):
                if len(done) == kill_after:
                    raise Killed
                real[name](*values)
                done.append(values)

            return call

        with monkeypatch.context() as patch:
            for name in real:
                patch.setattr(stage_module.storage, name, step(name))
            try:
                prepared(*arguments)
                break
            except Killed:
                pass
        finish_pending(place.output)  # does not take it for a foreign file
    assert kill_after > 1
    assert label(place.output, "--input", uris, "--if_exists", if_exists).code == 0
    ours = {name for name in place.content() if name.startswith("_beamlabel")}
    assert not ours


def test_files_of_late_workers_of_an_abandoned_run_are_deleted(place, uris):
    unit = "00000-000000000000"
    for name in (
        f"shards/{unit}-0123456789abcdef.parquet", f"failures/{unit}-12345678-0123456789abcdef.jsonl",
        f"units/{unit}.json", f"references/{unit}-12345678", "progress/host-name-17-0123abcd.json",
        "tmp-ab_12xyz/file", "begun-20260101T000000Z-abcdef",
    ):  # fmt: skip
        place.put(f"_beamlabel/staging/0123456789abcdef/{name}", b"late")
    commit = json.dumps({"format": layout.COMMIT_FORMAT, "records": []}).encode()
    place.put("_beamlabel/staging/0123456789abcdef/commit.json", commit)
    assert finish_pending(place.output) == []
    assert label(place.output, "--input", uris).code == 0
    assert not [name for name in place.content() if name.startswith("_beamlabel")]


def test_a_foreign_file_among_those_of_late_workers_is_named(place, uris):
    place.put("_beamlabel/staging/0123456789abcdef/units/00000-000000000000.json", b"late")
    place.put("_beamlabel/staging/0123456789abcdef/shards/thesis.parquet", b"mine")
    before = place.content()
    assert label(place.output, "--input", uris).code == 2
    assert place.content() == before


def test_the_next_run_finishes_a_deletion(tmp_path, uris):
    """Empty directories, and temporary files of a killed write."""
    own = tmp_path / "out" / layout.OWN
    (own / "staging" / "0123456789abcdef" / "shards").mkdir(parents=True)
    for directory in (own, own / "staging", own / "staging" / "0123456789abcdef"):
        (directory / f".tmp-{'0' * 32}").write_bytes(b"half")
    assert label(tmp_path / "out", "--input", uris).code == 0
    assert not own.exists()


def test_only_results_are_left_and_readers_take_the_directory_for_one_table(tmp_path, uris):
    """The results include units.json, since a listing may grow."""
    output = tmp_path / "out"
    assert label(output, "--input", f"{tmp_path / 'photos'}/", "--input_format", "images").code == 0
    there = {path.name for path in output.iterdir()}
    assert {name for name in there if not name.startswith("part-")} == {
        "_MANIFEST.json",
        "_SUCCESS",
        "_beamlabel",
    }
    assert [path.name for path in (output / "_beamlabel").iterdir()] == ["units.json"]
    assert not list(tmp_path.glob("_beamlabel-*"))
    assert ds.dataset(output, format="parquet").count_rows() == 4
    assert duckdb.sql(f"select count(*) from '{output}/*.parquet'").fetchall() == [(4,)]
    done = label(
        output, "--input", f"{tmp_path / 'photos'}/", "--input_format", "images", "--if_exists", "resume"
    )
    assert done.manifest["resumed_units"] == 1


# --- schema version 1 ---

PROCESS = {"host": "a", "pid": 1, "started_at": 1.0, "system": "b", "ticks": 2}
JOB = {"run_id": "r", "manifest": {"run_id": "r", "plan_id": "p", "versions": {"beamlabel": "0.0.9"}}}


@pytest.mark.parametrize("if_exists", ["error", "overwrite", "resume"])
@pytest.mark.parametrize(
    ("name", "content"), [("_staging/0123/job.json", JOB), ("_LOCK", PROCESS)], ids=["staged", "lock"]
)
def test_an_active_run_of_an_earlier_version_is_named_and_left_alone(
    place, uris, capsys, name, content, if_exists
):
    label(place.output, "--input", uris)
    place.put(name, json.dumps(content).encode())
    before = place.content()
    assert label(place.output, "--input", uris, "--if_exists", if_exists).code == 2
    assert "earlier" in capsys.readouterr().err
    assert place.content() == before


@pytest.mark.parametrize(("name", "content"), [("_staging-{}/0123/job.json", JOB), ("_LOCK-{}", PROCESS)])
def test_leftovers_of_an_earlier_version_beside_a_new_output(tmp_path, uris, capsys, name, content):
    path = tmp_path / name.format(staging.beside(str(tmp_path / "out")).rpartition("-")[2])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    assert label(tmp_path / "out", "--input", uris).code == 2
    assert "earlier" in capsys.readouterr().err
    assert json.loads(path.read_text()) == content


def test_the_records_beside_a_result_of_an_earlier_version_go_with_it(place, uris):
    assert label(place.output, "--input", uris).code == 0
    records = [{"unit_id": "00000-000000000000", "input_path": "a", "files": []}]
    place.put("_UNITS.json", json.dumps({"records": records}).encode())
    assert label(place.output, "--input", uris, "--if_exists", "overwrite").code == 0
    assert "_UNITS.json" not in place.content()
