"""Rows that were labeled by their features: the sink writes the same as for equal predictions."""

import dataclasses

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pytest
from apache_beam.runners.portability.fn_api_runner import FnApiRunner

from beamlabel.transforms.records import LabeledRows
from beamlabel.transforms.rows.record_batch import labeled_batch, to_record_batch
from beamlabel.transforms.rows.schema import OutputSpec
from beamlabel.transforms.writing.unit_rows import UnitRows
from beamlabel.transforms.writing.unit_summary import Summarizer
from beamlabel.transforms.writing.write_unit import WriteUnit, write_unit
from support import outputs
from support.collect import Collect
from support.outputs import FULL, end, failure, held_bundle, prediction

UNIT = "00000-000000000000"
SPEC = dataclasses.replace(FULL, labeled_at=1_700_000_000_000_000)
OF_THE_RUN = ("module_handle", "module_fingerprint", "preprocessing_id", "labeled_at")


def labeled(numbers, spec: OutputSpec = SPEC) -> LabeledRows:
    batch = to_record_batch([prediction(number, spec=spec) for number in numbers], spec)
    return LabeledRows(UNIT, np.array(numbers), batch.drop_columns(list(OF_THE_RUN)), "linear float32")


def test_they_become_the_rows_of_the_same_predictions():
    expected = to_record_batch([prediction(number) for number in range(5)], SPEC)
    assert labeled_batch(labeled(range(5)).batch, SPEC).equals(expected, check_metadata=True)


@pytest.mark.parametrize("change", ["missing", "null", "type"])
def test_rows_that_do_not_fit_are_refused(change):
    batch = labeled(range(5)).batch
    if change == "missing":
        batch = batch.drop_columns(["note"])
    else:
        kind = pa.string() if change == "null" else pa.large_string()
        place = batch.schema.get_field_index("uri")
        batch = batch.set_column(
            place,
            "uri",
            pa.array(["a", *([None] * 4)], kind) if change == "null" else batch["uri"].cast(kind),
        )
    with pytest.raises(ValueError, match="note" if change == "missing" else "uri"):
        labeled_batch(batch, SPEC)


@pytest.mark.parametrize("rows", [10, 1000])
def test_rows_are_in_order_whichever_worker_labeled_them(tmp_path, rows):
    numbers = np.random.default_rng(1).permutation(rows)
    half = rows // 2
    with UnitRows(SPEC, str(tmp_path)) as unit:
        unit.add_labeled(labeled(numbers[:half].tolist()))
        unit.add([prediction(int(number)) for number in numbers[half:]])
        table = pa.Table.from_batches(list(unit.in_order()))
    expected = to_record_batch([prediction(number) for number in range(rows)], SPEC)
    assert table.equals(pa.Table.from_batches([expected]))


def test_the_sink_counts_rows(tmp_path):
    outputs.BUNDLE[:] = [
        labeled(range(300)),
        failure(300),
        prediction(301),
        labeled(range(302, 310)),
        end(310),
    ]
    records = Collect()
    with beam.Pipeline(runner=FnApiRunner()) as p:
        held = p | beam.Create([0]) | beam.FlatMap(held_bundle)
        _ = held | WriteUnit(SPEC, str(tmp_path), summaries=True) | records
    [record] = records.values
    assert (record.predicted, record.failed, record.input) == (309, {"not_found": 1}, 310)
    expected = write_unit(
        end(310),
        [prediction(n) for n in range(310) if n != 300],
        [failure(300)],
        SPEC,
        str(tmp_path / "other"),
    )
    assert [file.rows for file in record.files[:2]] == [file.rows for file in expected.files]


def test_a_summary_is_that_of_the_same_predictions():
    one, other = Summarizer(), Summarizer()
    one.add_labeled(labeled(range(500)))
    for number in range(500):
        other.add(prediction(number))
    assert one.finish([]) == other.finish([])
