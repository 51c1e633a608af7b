"""The sink in a Beam pipeline: bundles, several units at a time, faults and retries."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import apache_beam as beam
import pyarrow.dataset as ds
import pytest
from apache_beam.metrics import MetricsFilter
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.testing.util import assert_that, equal_to

from beamlabel.transforms import storage
from beamlabel.transforms.records import Labeled, UnitRecord
from beamlabel.transforms.units.unit_records import read_record
from beamlabel.transforms.worker import metrics
from beamlabel.transforms.writing.write_unit import WriteUnit, _WriteUnitDoFn
from support import outputs
from support.outputs import FULL, end, failure, prediction

# Rows of a unit that waits in a file: several times the number held in memory.
LARGE = 1500


def unit(number: int, rows: int, failures: int = 0) -> list[Labeled]:
    """All elements of a unit: its rows, then its failures, then its end."""
    unit_id = f"00000-{number:012d}"
    return [
        *(prediction(row, unit_id=unit_id) for row in range(rows)),
        *(failure(row, unit_id=unit_id) for row in range(rows, rows + failures)),
        end(rows + failures, unit_id=unit_id),
    ]


def run(bundle: Sequence[Labeled], staging: Path, check: Any = None, *, repeat: int = 0) -> Any:
    """Runs the sink over one bundle with the elements in this order."""
    outputs.BUNDLE[:] = bundle
    pipeline = beam.Pipeline(runner=FnApiRunner(bundle_repeat=repeat))
    records = (
        pipeline
        | beam.Create([None], reshuffle=False)
        | beam.FlatMap(outputs.held_bundle)
        | WriteUnit(FULL, str(staging))
    )
    if check is not None:
        assert_that(records, check)
    result = pipeline.run()
    result.wait_until_finish()
    return result


def refs(staging: Path, *numbers: int) -> list[str]:
    """The references in the data shards of the units' records."""
    records = [read_record(str(staging), f"00000-{number:012d}") for number in numbers]
    files = [str(staging / file.name) for r in records if r for file in r.files if file.kind == "data"]
    return ds.dataset(files).to_table()["ref_id"].to_pylist()


def expected_refs(*rows: int) -> list[str]:
    return [f"/in/list.txt#{row}" for count in rows for row in range(count)]


def test_interleaved_units_in_any_order_become_one_record_each(tmp_path: Path) -> None:
    bundle = [*unit(0, 5, 2), *unit(1, 7), *unit(2, 0), *unit(3, 0, 3)]
    random.Random(1).shuffle(bundle)
    ids = [f"00000-{number:012d}" for number in range(4)]
    found = [
        (ids[0], 7, 5, {"not_found": 2}, 2),
        (ids[1], 7, 7, {}, 1),
        (ids[2], 0, 0, {}, 1),
        (ids[3], 3, 0, {"not_found": 3}, 2),
    ]

    def check(records: list[UnitRecord]) -> None:
        got = [(r.unit_id, r.input, r.predicted, r.failed, len(r.files)) for r in records]
        equal_to(found)(got)

    run(bundle, tmp_path, check)
    assert refs(tmp_path, 0, 1, 2, 3) == expected_refs(5, 7)


def test_what_is_written_is_counted(tmp_path: Path) -> None:
    result = run([*unit(0, 5, 2), *unit(1, 7)], tmp_path)
    found = result.metrics().query(MetricsFilter().with_namespace(metrics.NAMESPACE))
    counters = {counter.key.metric.name: counter.committed for counter in found["counters"]}
    size = sum(path.stat().st_size for name in ("shards", "failures") for path in (tmp_path / name).iterdir())
    assert counters == {
        metrics.ROWS_WRITTEN: 12,
        metrics.FAILURES_WRITTEN: 2,
        metrics.BYTES_WRITTEN: size,
    }
    (msec,) = found["distributions"]
    assert (msec.key.metric.name, msec.committed.count) == (metrics.WRITE_UNIT_MSEC, 2)


@pytest.mark.parametrize(
    ("bundle", "said"),
    [
        (unit(0, 3)[1:], r"00000-000000000000: 2 of 3 elements"),
        (unit(0, 3)[:-1], r"00000-000000000000: 3 of an unknown number of elements"),
        ([*unit(0, 1), *unit(1, 3)[1:]], r"00000-000000000001: 2 of 3 elements"),
        ([*unit(0, 3)[:-1], end(2)], r"than it sent: 3 of 2 elements"),
        ([end(3), end(3)], r"ended twice"),
        ([prediction(0, unit_id=None)], r"belongs to no work unit"),
    ],
    ids=["row missing", "end missing", "second unit open", "row too many", "two ends", "no unit"],
)
def test_a_unit_that_is_not_whole_breaks_the_bundle_and_leaves_no_record(
    bundle: list[Labeled], said: str, tmp_path: Path
) -> None:
    with pytest.raises(Exception, match=said):
        run(bundle, tmp_path)
    whole = [path.stem for path in (tmp_path / "units").glob("*")]
    assert whole == (["00000-000000000000"] if "000001:" in said else [])


def test_an_element_after_its_unit_is_written_breaks_the_bundle(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="00000-000000000000: 1 of an unknown number of elements"):
        run([*unit(0, 3), prediction(9)], tmp_path)
    assert refs(tmp_path, 0) == expected_refs(3)


def test_an_abandoned_bundle_leaves_nothing_to_the_next(tmp_path: Path) -> None:
    # Runners may or may not discard a DoFn after an error; here it is the same one.
    sink = _WriteUnitDoFn(FULL, str(tmp_path))
    sink.setup()
    sink.start_bundle()
    assert not [record for element in unit(0, 5)[:3] for record in sink.process(element)]
    sink.start_bundle()
    assert not [record for element in unit(0, 5) for record in sink.process(element)]
    (record,) = sink.finish_bundle()
    assert record.value.predicted == 5
    assert refs(tmp_path, 0) == expected_refs(5)


def test_a_bundle_that_is_run_twice_loses_and_doubles_nothing(tmp_path: Path) -> None:
    run([*unit(0, 5, 2), *unit(1, 7)], tmp_path, repeat=1)
    assert refs(tmp_path, 0, 1) == expected_refs(5, 7)
    assert len(list((tmp_path / "shards").iterdir())) == 2
    assert len(list((tmp_path / "failures").iterdir())) == 1


def test_a_unit_that_fails_between_its_shard_and_its_record_is_whole_after_the_next_try(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = storage.create_if_absent, []

    def fails_once(path: str, data: bytes) -> bool:
        calls.append(path)
        if len(calls) == 1:
            raise OSError("the disk is gone for a moment")
        return real(path, data)

    monkeypatch.setattr(storage, "create_if_absent", fails_once)
    bundle = [*unit(0, 5, 2), *unit(1, 7)]
    with pytest.raises(Exception, match="gone for a moment"):
        run(bundle, tmp_path)
    assert read_record(str(tmp_path), "00000-000000000000") is None
    assert len(list((tmp_path / "shards").iterdir())) == 1
    run(bundle, tmp_path)
    assert refs(tmp_path, 0, 1) == expected_refs(5, 7)
    assert len(list((tmp_path / "shards").iterdir())) == 2
    assert len(list((tmp_path / "failures").iterdir())) == 1


def test_the_pipeline_continues_with_the_first_record(tmp_path: Path) -> None:
    run(unit(0, 3), tmp_path)
    first = read_record(str(tmp_path), "00000-000000000000")

    def check(records: list[UnitRecord]) -> None:
        assert records == [first]

    run([*unit(0, 2)[:-1], failure(2), end(3)], tmp_path, check)
    assert refs(tmp_path, 0) == expected_refs(3)


@pytest.mark.parametrize("seed", [None, 0])
def test_a_large_unit_waits_in_a_file_and_comes_out_in_order(seed: int | None, tmp_path: Path) -> None:
    rows = [prediction(row) for row in range(LARGE)]
    if seed is not None:
        random.Random(seed).shuffle(rows)
    sink = _WriteUnitDoFn(FULL, str(tmp_path))
    sink.setup()
    sink.start_bundle()
    for row in rows:
        assert not list(sink.process(row))
    sink._handed_over()
    (waiting,) = tmp_path.glob("tmp-*/*")
    assert waiting.stat().st_size > (LARGE - 200) * 4 * (FULL.embedding_dim or 0)
    assert sum(len(unit.predictions) for unit in sink._open.values()) < 128
    assert not list(sink.process(end(LARGE)))
    (record,) = sink.finish_bundle()
    assert record.value.predicted == LARGE
    assert refs(tmp_path, 0) == expected_refs(LARGE)
    assert not list(tmp_path.glob("tmp-*"))
    sink.teardown()


def test_the_order_of_arrival_is_not_in_the_file(tmp_path: Path) -> None:
    names = []
    for place in range(2):
        rows = [prediction(row) for row in range(LARGE)]
        random.Random(place).shuffle(rows)
        run([*rows, end(LARGE)], tmp_path / str(place))
        names += [path.name for path in (tmp_path / str(place) / "shards").iterdir()]
    assert len(names) == 2
    assert len(set(names)) == 1, "files are named by their bytes"


def test_what_cannot_be_a_row_breaks_the_bundle_also_where_it_waited(tmp_path: Path) -> None:
    rows = [prediction(row) for row in range(600)]
    rows[3] = dataclasses.replace(rows[3], embedding=None)
    with pytest.raises(Exception, match="embedding"):
        run([*rows, end(600)], tmp_path)
    assert not list(tmp_path.glob("units/*"))
