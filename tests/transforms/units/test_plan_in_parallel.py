"""Files are planned and references staged in parallel on every runner."""

import threading
from contextlib import contextmanager

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.testing.util import assert_that, equal_to

from beamlabel.transforms import storage
from beamlabel.transforms.inputs import packed_refs
from beamlabel.transforms.inputs.packed_refs import RefSpiller, references
from beamlabel.transforms.inputs.sources.source import SourceOptions
from beamlabel.transforms.records import InputFile
from beamlabel.transforms.units import plan_units
from beamlabel.transforms.units.plan_units import PlanUnits, plan_files
from beamlabel.transforms.worker.daemon_pool import DaemonPool
from support.graphs import fused, names

OPTIONS = SourceOptions("/", shard_rows=10)


class Together:
    """A barrier for this number of threads; a thread that stays alone fails."""

    def __init__(self, many: int) -> None:
        self.barrier = threading.Barrier(many)
        self.lock, self.came, self.many = threading.Lock(), 0, many

    def wait(self) -> None:
        with self.lock:
            self.came += 1
            waits = self.came <= self.many
        if waits:
            self.barrier.wait(timeout=60)


def text_file(path, uris, size=None):
    path.write_text("".join(f"{uri}\n" for uri in uris))
    return InputFile(str(path), "text", size or path.stat().st_size)


def test_references_are_staged_several_at_a_time_and_in_order(tmp_path, monkeypatch):
    monkeypatch.setattr(packed_refs, "CARRIED_BYTES", 0)
    together = Together(8)
    create = storage.create_if_absent

    def slow(path, data):
        together.wait()
        return create(path, data)

    monkeypatch.setattr(storage, "create_if_absent", slow)
    uris = [f"{number}.jpg" for number in range(200)]
    file = text_file(tmp_path / "list.txt", uris)
    pool = DaemonPool(8, "stage")
    units = list(RefSpiller(str(tmp_path / "staging")).spill_all(plan_files([(0, file)], OPTIONS), pool))
    pool.close()
    assert [unit.start for unit in units] == list(range(0, 200, 10))
    assert all(storage.exists(unit.refs_path) for unit in units)
    assert [ref.uri for unit in units for ref in references(unit)] == uris


def test_references_that_cannot_be_staged_end_the_planning(tmp_path, monkeypatch):
    monkeypatch.setattr(packed_refs, "CARRIED_BYTES", 0)

    def fail(path, data):
        raise PermissionError("by the test")

    monkeypatch.setattr(storage, "create_if_absent", fail)
    file = text_file(tmp_path / "list.txt", [f"{number}.jpg" for number in range(100)])
    pool = DaemonPool(4, "stage")
    with pytest.raises(PermissionError, match="by the test"):
        list(RefSpiller(str(tmp_path / "staging")).spill_all(plan_files([(0, file)], OPTIONS), pool))
    pool.close()


@contextmanager
def planned_together(monkeypatch, many):
    together = Together(many)
    plan = plan_units.plan_files

    def slow(files, options):
        together.wait()
        yield from plan(files, options)

    monkeypatch.setattr(plan_units, "plan_files", slow)
    yield together


def test_large_files_are_planned_at_a_time_in_one_worker(tmp_path, monkeypatch):
    # Their sizes allow none of them to share a unit.
    files = [
        text_file(tmp_path / f"{n}.txt", [f"{n}-{m}.jpg" for m in range(15)], size=2 << 20) for n in range(5)
    ]
    expected = [f"{n}-{m}.jpg" for n in range(5) for m in range(15)]
    with planned_together(monkeypatch, 5) as together, beam.Pipeline(FnApiRunner()) as pipeline:
        units = pipeline | PlanUnits(files, OPTIONS, str(tmp_path / "staging"))
        found = units | beam.FlatMap(lambda unit: [ref.uri for ref in references(unit)])
        assert_that(found, equal_to(expected))
    assert together.came == 5


@pytest.mark.parametrize(("files", "spread"), [(5, True), (1, False)])
def test_files_are_spread_over_the_workers(tmp_path, files, spread):
    pipeline = beam.Pipeline(FnApiRunner(), PipelineOptions([]))
    listed = [InputFile(f"/{n}.txt", "text", 2 << 20) for n in range(files)]
    pipeline | PlanUnits(listed, OPTIONS, str(tmp_path)) | beam.Reshuffle()
    stages = fused(pipeline.to_runner_api())
    (planning,) = [stage for stage in stages if "PlanUnits/Cut" in names(stage)]
    assert ("InputFiles" in names(planning)) is not spread


@pytest.mark.parametrize("limit", [1, 9, 10, 11, 55, 60, 61, 99])
def test_a_limit_counts_as_if_files_were_planned_one_after_the_other(tmp_path, limit):
    # Trailing blank lines belong to the last unit only if the limit is not reached before.
    files = [
        text_file(
            tmp_path / f"{n}.txt",
            [*(f"{n}-{m}.jpg" for m in range(n)), "", ""],
            size=10 if n % 4 else 2 << 20,
        )
        for n in range(12)
    ]
    options = SourceOptions("/", shard_rows=10, limit=limit)
    units = list(plan_files(enumerate(files), options))
    uris = [f"{n}-{m}.jpg" for n in range(12) for m in range(n)]
    found = [ref.uri for unit in units for part in unit.parts or (unit,) for ref in references(part)]
    assert found == uris[:limit]
    ranges = [one for unit in units for one in unit.ranges]
    assert len({one.input_path for one in ranges}) == 12
    left = limit
    for n in range(12):
        stop = max(one.stop for one in ranges if one.input_path == files[n].path)
        assert stop == (left if left <= n else n + 2)
        left = max(left - n, 0)
