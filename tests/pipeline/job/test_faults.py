"""A retried bundle, a killed worker and a killed publisher leave every row exactly once."""

import json
import os
from pathlib import Path

import apache_beam as beam
import pytest
from apache_beam.runners.portability.fn_api_runner import FnApiRunner

import beamlabel.transforms.units.unit_records
from beamlabel.pipeline import layout
from beamlabel.pipeline.job.graph import build
from beamlabel.pipeline.output.publish import finish_pending, publish
from beamlabel.transforms import storage
from support.jobs import TINY, label, photos, prepared, uri_list


def nine_photos(tmp_path, output, *arguments):
    paths = photos(tmp_path / "photos", 9)
    paths[4].write_bytes(b"no image")
    for path in paths:
        os.utime(path, (1e9, 1e9))  # rows hold it
    uris = uri_list(tmp_path / "list.txt", paths)
    argv = ["--input", uris, "--output", output, "--module", TINY, "--shard_rows", "3"]
    return prepared(*argv, "--max_error_rate", "1", *arguments)


def execute(job, **runner_options):
    pipeline = beam.Pipeline(runner=FnApiRunner(**runner_options))
    build(pipeline, job)
    pipeline.run().wait_until_finish()


def published(job, output):
    publish(job.output, job.staging_dir)
    return content(output)


def content(output):
    """The whole output except the run's id and time."""
    found = {}
    for path in sorted(output.rglob("*")):
        if path.is_file() and path.name != layout.MANIFEST:
            found[str(path.relative_to(output)).replace(run_id(output), "RUN")] = path.read_bytes()
    return found


def run_id(output):
    return json.loads((output / layout.MANIFEST).read_text())["run_id"]


@pytest.fixture
def expected(tmp_path):
    output = tmp_path / "expected"
    job = nine_photos(tmp_path, output)
    execute(job)
    return published(job, output)


def test_a_bundle_that_is_run_twice_leaves_each_row_once(tmp_path, expected):
    output = tmp_path / "out"
    job = nine_photos(tmp_path, output)
    execute(job, bundle_repeat=1)
    assert published(job, output).keys() == expected.keys()
    rows = json.loads((output / layout.MANIFEST).read_text())["rows"]
    assert rows == {"input": 9, "predicted": 8, "failed": 1, "skipped": 0}


def test_a_unit_that_fails_between_its_shard_and_its_record_loses_and_doubles_nothing(
    tmp_path, expected, monkeypatch
):
    output = tmp_path / "out"
    job = nine_photos(tmp_path, output)
    real = storage.create_if_absent
    failed = []

    def fail_once(path, data):
        if "/units/" in path and not failed:
            failed.append(path)
            raise OSError("the disk went away")
        return real(path, data)

    monkeypatch.setattr(beamlabel.transforms.units.unit_records.storage, "create_if_absent", fail_once)
    with pytest.raises(Exception, match="the disk went away"):
        execute(job)
    assert list(Path(job.staging_dir).rglob("shards/*"))
    execute(job)
    assert published(job, output).keys() == expected.keys()


def test_units_that_are_staged_are_not_computed_again(tmp_path, expected):
    output = tmp_path / "out"
    job = nine_photos(tmp_path, output)
    execute(job)
    Path(job.staging_dir, layout.COMMIT).unlink()
    for photo in (tmp_path / "photos").iterdir():
        photo.unlink()  # any further computation would now fail
    execute(job)
    assert {k: v for k, v in published(job, output).items() if k.startswith("part")}.keys() == {
        k for k in expected if k.startswith("part")
    }
    assert json.loads((output / layout.MANIFEST).read_text())["rows"]["predicted"] == 8


class Killed(BaseException):
    """A stand-in for SIGKILL: no code after it runs."""


def test_publish_killed_after_each_of_its_steps_and_run_again_gives_the_same_output(tmp_path, monkeypatch):
    """Every storage call that changes a file is a step; the publisher dies right after each."""
    changing = ("write_bytes", "create_if_absent", "move", "move_directory", "delete", "delete_tree")
    real = {name: getattr(storage, name) for name in changing}
    # A call for many files counts as many steps.
    monkeypatch.setattr(storage, "move_all", lambda moves: [storage.move(*pair) for pair in moves.items()])
    monkeypatch.setattr(storage, "delete_all", lambda paths: [storage.delete(path) for path in paths])
    outputs, steps = [], 0
    for kill_after in range(100):
        output = tmp_path / f"out{kill_after}"
        job = nine_photos(tmp_path, output)
        execute(job)
        steps = 0

        def step(name, kill_after=kill_after):
            def call(*arguments):
                nonlocal steps
                result = real[name](*arguments)
                steps += 1
                if steps == kill_after + 1:
                    raise Killed
                return result

            return call

        for name in changing:
            monkeypatch.setattr(storage, name, step(name))
        try:
            publish(job.output, job.staging_dir)
            finished = True
        except Killed:
            finished = False
        for name in changing:
            monkeypatch.setattr(storage, name, real[name])
        # A new local output appears as a whole or not at all.
        assert not output.exists() or (output / layout.SUCCESS).exists()
        finish_pending(str(output))
        outputs.append(content(output))
        assert (output / layout.SUCCESS).exists()
        assert not Path(job.staging_dir).exists()
        if finished:
            break
    assert finished and len(outputs) > 8
    assert all(found.keys() == outputs[-1].keys() for found in outputs)
    rows = {key: value for key, value in outputs[-1].items() if key.startswith("_failures")}
    assert all({key: found[key] for key in rows} == rows for found in outputs)


def test_a_publisher_killed_at_any_file_that_it_deletes_leaves_nothing(tmp_path, monkeypatch):
    """Includes kills during the deletion of a directory, and a next run that has nothing else to do."""
    for kill_after in range(100):
        output = tmp_path / f"out{kill_after}"
        job = nine_photos(tmp_path, output)
        execute(job)
        done = 0

        def step(real, kill_after=kill_after):
            def call(*arguments, **options):
                nonlocal done
                if done == kill_after:
                    raise Killed
                real(*arguments, **options)
                done += 1

            return call

        with monkeypatch.context() as patch:
            for name in ("unlink", "rmdir"):
                patch.setattr(os, name, step(getattr(os, name)))
            try:
                publish(job.output, job.staging_dir)
                finished = True
            except Killed:
                finished = False
        finish_pending(str(output))
        assert (output / layout.SUCCESS).exists()
        assert not list(tmp_path.glob("_beamlabel*"))
        if finished:
            break
    assert finished and done > 8


def test_a_killed_overwrite_leaves_no_file_of_the_run_before(tmp_path, monkeypatch):
    output = tmp_path / "out"
    first = nine_photos(tmp_path, output)
    execute(first)
    publish(first.output, first.staging_dir)
    before = {path.name for path in output.glob("part-*")}
    second = nine_photos(tmp_path, output, "--limit", "2")
    execute(second)
    real = storage.write_bytes

    def kill_after_manifest(path, data):
        real(path, data)
        if path.endswith(layout.MANIFEST):
            raise Killed

    monkeypatch.setattr(storage, "write_bytes", kill_after_manifest)
    with pytest.raises(Killed):
        publish(second.output, second.staging_dir)
    monkeypatch.setattr(storage, "write_bytes", real)
    finish_pending(str(output))
    assert not before & {path.name for path in output.glob("part-*")}
    assert json.loads((output / layout.MANIFEST).read_text())["rows"]["input"] == 2


def test_the_next_run_first_publishes_a_committed_run(tmp_path):
    output = tmp_path / "out"
    job = nine_photos(tmp_path, output)
    execute(job)
    uris = tmp_path / "list.txt"
    refused = label(output, "--input", uris)
    assert refused.code == 2
    assert refused.succeeded
    assert len(refused.rows) == 8


def test_an_output_whose_name_looks_like_a_pattern(tmp_path):
    output = tmp_path / "run[1]"
    job = nine_photos(tmp_path, output)
    execute(job)
    (tmp_path / "run1" / "_beamlabel" / "staging" / "x").mkdir(parents=True)
    (tmp_path / "run1" / "_beamlabel" / "staging" / "x" / layout.COMMIT).write_text("another's")
    (manifest,) = finish_pending(str(output))
    assert manifest["rows"]["predicted"] == 8
    assert (tmp_path / "run1" / "_beamlabel" / "staging" / "x" / layout.COMMIT).exists()


def test_a_refused_run_touches_nothing_of_another(tmp_path):
    output = tmp_path / "out"
    job = nine_photos(tmp_path, output)
    execute(job)
    Path(job.staging_dir, layout.COMMIT).unlink()
    before = sorted(tmp_path.rglob("*"))
    assert label(output, "--input", tmp_path / "nothing.txt").code == 2
    assert label(output, "--input", tmp_path / "list.txt", "--top_k", 99).code == 2
    assert sorted(tmp_path.rglob("*")) == before


def test_a_commit_without_its_job_is_litter(tmp_path):
    output = tmp_path / "out"
    job = nine_photos(tmp_path, output)
    execute(job)
    # Its staging was deleted during a run, which continued.
    for name in (layout.JOB, layout.ARTIFACT):
        Path(job.staging_dir, name).unlink()
    assert finish_pending(str(output)) == []
    assert label(output, "--input", tmp_path / "list.txt", "--max_error_rate", 1).code == 0
    assert not Path(job.staging_dir).exists()


def test_the_next_run_deletes_uncommitted_files(tmp_path):
    output = tmp_path / "out"
    job = nine_photos(tmp_path, output)
    assert Path(job.staging_dir, layout.ARTIFACT).exists()
    done = label(output, "--input", tmp_path / "list.txt", "--max_error_rate", 1)
    assert done.code == 0
    assert not Path(job.staging_dir).exists()
