"""A power cut at any moment leaves no file that refers to data missing on the disk."""

from __future__ import annotations

import errno
import json
import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from beamlabel.pipeline import layout
from beamlabel.pipeline.output import staging
from beamlabel.pipeline.output.publish import publish
from beamlabel.transforms import storage
from beamlabel.transforms.records import UnitRecord
from support.jobs import FinishedJob, label, photos, uri_list
from support.power_cut import Disk, watched


@pytest.fixture
def uris(tmp_path):
    paths = photos(tmp_path / "photos", 9)
    paths[4].write_bytes(b"no image")
    return uri_list(tmp_path / "list.txt", paths)


@dataclass(frozen=True)
class Watched:
    """A whole run with launcher and workers: its disk calls, its result, and its records by unit."""

    disk: Disk
    job: FinishedJob
    records: dict[str, UnitRecord]


def watched_run(kind, directory, uris, monkeypatch, without=""):
    output = directory / "out"
    options = ("--input", uris, "--shard_rows", 3, "--max_error_rate", 1)
    if kind == "overwrite":
        assert label(output, *options, "--top_k", 2).code == 0
    records = []
    real = UnitRecord.from_json.__func__

    def from_json(kind, value):
        records.append(real(kind, value))
        return records[-1]

    with monkeypatch.context() as patch, watched(patch, without) as disk:
        patch.setattr(UnitRecord, "from_json", classmethod(from_json))
        job = label(output, *options, "--if_exists", "overwrite")
    assert job.code == 0
    assert len(records) == 3
    return Watched(disk, job, {record.unit_id: record for record in records})


def check_records(run):
    """Checks that a record comes after its shards."""
    for unit_id, record in run.records.items():
        (moment,) = run.disk.moments(f"/units/{unit_id}.json")
        directory = run.disk.events[moment][1].removesuffix(f"/units/{unit_id}.json")
        for file in record.files:
            assert run.disk.is_safe(f"{directory}/{file.name}", moment), file


def check_commit(run):
    """Checks that the commit comes after the records."""
    (moment,) = run.disk.moments(f"/{layout.COMMIT}")
    directory = run.disk.events[moment][1].removesuffix(f"/{layout.COMMIT}")
    for unit_id in run.records:
        assert run.disk.is_safe(f"{directory}/units/{unit_id}.json", moment)


def check_manifest(run):
    """Checks that the manifest comes after its files."""
    (moment,) = run.disk.moments(f"/{layout.MANIFEST}")
    directory = run.disk.events[moment][1].removesuffix(f"/{layout.MANIFEST}")
    names = [file["name"] for file in run.job.manifest["files"]]
    assert len(names) == 4
    for name in names:
        assert run.disk.is_safe(f"{directory}/{name}", moment), name


def check_success(run):
    """Checks that ``_SUCCESS`` comes after the manifest, and the output's own name after both."""
    disk, output = run.disk, str(run.job.output)
    (success,) = disk.moments(f"/{layout.SUCCESS}")
    directory = disk.events[success][1].removesuffix(f"/{layout.SUCCESS}")
    assert disk.is_safe(f"{directory}/{layout.MANIFEST}", success)
    renamed = [at for at in disk.moments("/out") if disk.events[at][1] == output]
    assert disk.is_safe(f"{directory}/{layout.SUCCESS}", renamed[0] if renamed else len(disk.events))


def check_end(run):
    """Checks that the files, or the renamed directory, are on the disk before success is reported."""
    disk, output, end = run.disk, run.job.output, len(run.disk.events)
    renamed = [at for at in disk.moments("/out") if disk.events[at][1] == str(output)]
    if renamed:
        assert str(output.parent) in [path for kind, path, _ in disk.events[renamed[0] :] if kind == "sync"]
        return
    for name in (layout.MANIFEST, layout.SUCCESS, *(file["name"] for file in run.job.manifest["files"])):
        assert disk.is_safe(str(output / name), end), name


def check_mark(run):
    """Checks that beamlabel's mark comes before staged files."""
    first = next(path for kind, path, _ in run.disk.events if kind == "name" and "/staging/" in path)
    assert first.endswith(f"/{layout.JOB}")
    (artifact,) = run.disk.moments(f"/{layout.ARTIFACT}")
    assert run.disk.is_safe(first, artifact)


CHECKS = (check_records, check_commit, check_manifest, check_success, check_end, check_mark)


@pytest.mark.parametrize("kind", ["new", "overwrite"])
def test_no_name_comes_before_what_it_speaks_of(kind, tmp_path, uris, monkeypatch):
    run = watched_run(kind, tmp_path, uris, monkeypatch)
    for check in CHECKS:
        check(run)


@pytest.mark.parametrize("kind", ["new", "overwrite"])
@pytest.mark.parametrize("without", ["files", "directories", "files and directories"])
def test_each_check_fails_if_the_code_does_not_sync(kind, without, tmp_path, uris, monkeypatch):
    run = watched_run(kind, tmp_path, uris, monkeypatch, without)
    for check in CHECKS:
        if (check, kind, without) == (check_end, "new", "files"):
            continue  # of the output's own name, a directory
        with pytest.raises(AssertionError):
            check(run)


def test_a_directory_that_is_made_is_on_the_disk(tmp_path, monkeypatch):
    with watched(monkeypatch) as disk:
        storage.write_bytes(str(tmp_path / "a" / "b" / "file"), b"x")
    synced = [path for kind, path, _ in disk.events if kind == "sync"]
    assert {str(tmp_path), str(tmp_path / "a"), str(tmp_path / "a" / "b")} <= set(synced)


@pytest.mark.parametrize("how", ["write_bytes", "create_if_absent", "put_file", "write_file", "copy"])
def test_every_written_file_is_on_the_disk(tmp_path, monkeypatch, how):
    source = tmp_path / "source"
    source.write_bytes(b"x")
    target = str(tmp_path / "target")
    with watched(monkeypatch) as disk:
        if how in ("write_bytes", "create_if_absent"):
            getattr(storage, how)(target, b"x")
        elif how == "write_file":
            storage.write_file(target, source)
        else:
            getattr(storage, how)(str(source), target)
    assert disk.is_safe(target, len(disk.events))


def test_without_links_it_is_on_the_disk_too(tmp_path, monkeypatch):
    def refuse(*arguments, **options):
        raise OSError(errno.EPERM, "no hard links")

    path = tmp_path / "target"
    with watched(monkeypatch) as disk:
        monkeypatch.setattr(os, "link", refuse)
        assert storage.create_if_absent(str(path), b"x")
    synced = [(name, number) for kind, name, number in disk.events if kind == "sync"]
    assert synced[-2:] == [(str(path), path.stat().st_ino), (str(tmp_path), tmp_path.stat().st_ino)]


def test_a_found_file_has_its_name_on_the_disk_too(tmp_path, monkeypatch):
    """The process that created it may have died between the two."""
    (tmp_path / "target").write_bytes(b"x")
    with watched(monkeypatch) as disk:
        assert not storage.create_if_absent(str(tmp_path / "target"), b"x")
    assert str(tmp_path) in [path for kind, path, _ in disk.events if kind == "sync"]


@pytest.mark.parametrize("without", ["files", "directories"])
def test_an_unsynced_file_is_not_on_the_disk(tmp_path, monkeypatch, without):
    with watched(monkeypatch, without) as disk:
        storage.write_bytes(str(tmp_path / "target"), b"x")
    assert not disk.is_safe(str(tmp_path / "target"), len(disk.events))


def test_many_moves_cost_one_sync_of_their_directory(tmp_path, uris, monkeypatch):
    """Each sync waits for the disk."""
    output = tmp_path / "out"
    real = []

    def keep(output, staging_dir):
        real.append((output, staging_dir))
        raise RuntimeError("the launcher is gone")

    with monkeypatch.context() as patch:
        patch.setattr("beamlabel.pipeline.output.publish.publish", keep)
        label(output, "--input", uris, "--shard_rows", 1, "--max_error_rate", 1)
    ((directory, staging_dir),) = real
    with watched(monkeypatch) as disk:
        manifest = publish(directory, staging_dir)
    assert len(manifest["files"]) == 9
    synced = [Path(path).name for kind, path, _ in disk.events if kind == "sync"]
    assert len(synced) < 20, synced
    assert json.loads((output / layout.MANIFEST).read_text())["rows"]["input"] == 9
    assert not Path(staging.beside(directory)).exists()
