"""A power cut at any moment leaves no name that speaks of what is not on the disk."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from beamlabel.pipeline import layout
from beamlabel.pipeline.output import staging
from beamlabel.pipeline.output.publish import publish
from beamlabel.transforms import storage
from beamlabel.transforms.records import UnitRecord
from support.jobs import label, photos, uri_list
from support.power_cut import watched


@pytest.fixture
def uris(tmp_path):
    paths = photos(tmp_path / "photos", 9)
    paths[4].write_bytes(b"no image")
    return uri_list(tmp_path / "list.txt", paths)


@pytest.fixture(params=["new", "overwrite"])
def run(request, tmp_path, uris, monkeypatch):
    """What a whole run, launcher and workers, asked of the disk; and its result."""
    output = tmp_path / "out"
    options = ("--input", uris, "--shard_rows", 3, "--max_error_rate", 1)
    if request.param == "overwrite":
        assert label(output, *options, "--top_k", 2).code == 0
    records = []
    real = UnitRecord.from_json.__func__

    def from_json(kind, value):
        records.append(real(kind, value))
        return records[-1]

    monkeypatch.setattr(UnitRecord, "from_json", classmethod(from_json))
    with watched(monkeypatch) as disk:
        job = label(output, *options, "--if_exists", "overwrite")
    assert job.code == 0
    return disk, job, {record.unit_id: record for record in records}


def test_a_record_comes_after_its_shards(run):
    disk, _, records = run
    assert len(records) == 3
    for unit_id, record in records.items():
        (moment,) = disk.moments(f"/units/{unit_id}.json")
        folder = disk.events[moment][1].removesuffix(f"/units/{unit_id}.json")
        for file in record.files:
            assert disk.is_safe(f"{folder}/{file.name}", moment), file


def test_the_commit_comes_after_the_records(run):
    disk, _, records = run
    (moment,) = disk.moments(f"/{layout.COMMIT}")
    folder = disk.events[moment][1].removesuffix(f"/{layout.COMMIT}")
    for unit_id in records:
        assert disk.is_safe(f"{folder}/units/{unit_id}.json", moment)


def test_the_manifest_comes_after_its_files_and_success_after_the_manifest(run):
    disk, job, _ = run
    (moment,) = disk.moments(f"/{layout.MANIFEST}")
    folder = disk.events[moment][1].removesuffix(f"/{layout.MANIFEST}")
    names = [file["name"] for file in job.manifest["files"]]
    assert len(names) == 4
    for name in names:
        assert disk.is_safe(f"{folder}/{name}", moment), name
    (success,) = disk.moments(f"/{layout.SUCCESS}")
    assert disk.is_safe(f"{folder}/{layout.MANIFEST}", success)
    renamed = [at for at in disk.moments("/out") if disk.events[at][1] == str(job.output)]
    end = renamed[0] if renamed else len(disk.events)
    assert disk.is_safe(f"{folder}/{layout.SUCCESS}", end)
    if renamed:
        synced = [path for kind, path, _ in disk.events[end:] if kind == "sync"]
        assert str(job.output.parent) in synced, "the name of the output itself"


def test_what_is_done_is_on_the_disk_when_it_is_told(run):
    disk, job, _ = run
    end = len(disk.events)
    if disk.events[disk.moments(f"/{layout.SUCCESS}")[0]][1].startswith(str(job.output)):
        for name in (layout.MANIFEST, layout.SUCCESS, *(file["name"] for file in job.manifest["files"])):
            assert disk.is_safe(str(job.output / name), end), name


def test_the_mark_comes_before_what_is_staged(run):
    disk, _, _ = run
    first = next(path for kind, path, _ in disk.events if kind == "name" and "/staging/" in path)
    assert first.endswith(f"/{layout.JOB}")
    (artifact,) = disk.moments(f"/{layout.ARTIFACT}")
    assert disk.is_safe(first, artifact)


def test_a_folder_that_is_made_is_on_the_disk(tmp_path, monkeypatch):
    with watched(monkeypatch) as disk:
        storage.write_bytes(str(tmp_path / "a" / "b" / "file"), b"x")
    synced = [path for kind, path, _ in disk.events if kind == "sync"]
    assert {str(tmp_path), str(tmp_path / "a"), str(tmp_path / "a" / "b")} <= set(synced)


@pytest.mark.parametrize("how", ["write_bytes", "create_if_absent", "put_file", "write_file", "copy"])
def test_whatever_is_written_is_on_the_disk(tmp_path, monkeypatch, how):
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


def test_many_moves_cost_one_sync_of_their_folder(tmp_path, uris, monkeypatch):
    """Each is a wait for the disk."""
    output = tmp_path / "out"
    real = []

    def keep(output, staging_dir):
        real.append((output, staging_dir))
        raise RuntimeError("the launcher is gone")

    with monkeypatch.context() as patch:
        patch.setattr("beamlabel.pipeline.output.publish.publish", keep)
        label(output, "--input", uris, "--shard_rows", 1, "--max_error_rate", 1)
    ((folder, staging_dir),) = real
    with watched(monkeypatch) as disk:
        manifest = publish(folder, staging_dir)
    assert len(manifest["files"]) == 9
    synced = [Path(path).name for kind, path, _ in disk.events if kind == "sync"]
    assert len(synced) < 20, synced
    assert json.loads((output / layout.MANIFEST).read_text())["rows"]["input"] == 9
    assert not Path(staging.beside(folder)).exists()
