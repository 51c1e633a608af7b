"""Rows as tf.Examples in TFRecords, read back by TensorFlow, Beam and tensorflow-metadata."""

from __future__ import annotations

import gzip
import io
import subprocess
import sys
from pathlib import Path

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.testing.util import assert_that, equal_to
from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2

from beamlabel.transforms.rows.record_batch import to_record_batch
from beamlabel.transforms.rows.schema import arrow_schema
from beamlabel.transforms.rows.tf_examples import encode, schema_pbtxt, to_example_columns
from beamlabel.transforms.rows.tfrecord import write_records
from support.outputs import DIM, FULL, KEPT, PLAIN, prediction
from support.paths import TESTS


def features(example: bytes) -> dict[str, list]:
    """The values of each present feature of an example as TensorFlow reads it."""
    found = tf.train.Example.FromString(example).features.feature
    return {name: list(getattr(found[name], found[name].WhichOneof("kind")).value) for name in found}


def only(values: list, kind: pa.DataType) -> list[list | None]:
    """The values of a column written as the only feature, row by row; None if it is absent."""
    batch = pa.record_batch({"x": pa.array(values, kind)})
    return [features(example).get("x") for example in encode(batch)]


def test_every_kind_of_value_has_its_counterpart() -> None:
    microseconds = 1709209801000005
    expected = {
        "note": ["ünï".encode()],
        "raw": [b"\xff\x00"],
        "flag": [1],
        "small": [-128],
        "big": [2**63 - 1],
        "unsigned": [2**32 - 1],
        "half": [0.5],
        "price": [0.25],
        "taken": [microseconds],
        "day": [-1],
        "tags": [b"a", b"b"],
        "counts": [1, -2, 3],
    }
    row = prediction(0)
    (example,) = encode(to_record_batch([row], FULL))
    found = features(example)
    assert list(expected) == list(KEPT)
    assert {name: found[name] for name in KEPT} == expected
    assert found["uri"] == [row.ref.uri.encode()]
    assert found["embedding"] == row.embedding.tolist()
    assert found["class_ids"] == row.class_ids.tolist()
    assert found["labels"] == [name.encode() for name in row.labels]
    assert found["width"] == [640]
    assert set(found) == set(arrow_schema(FULL).names)


@pytest.mark.parametrize(
    ("kind", "values", "expected"),
    [
        (pa.float16(), [1.5], [1.5]),
        (pa.large_string(), ["é"], ["é".encode()]),
        (pa.string_view(), ["é"], ["é".encode()]),
        (pa.binary(2), [b"ab"], [b"ab"]),
        (pa.timestamp("s"), [7], [7_000_000]),
        (pa.timestamp("ms", "UTC"), [-1], [-1000]),
        (pa.timestamp("ns"), [1000], [1]),
        (pa.time32("ms"), [7], [7000]),
        (pa.time64("us"), [7], [7]),
        (pa.duration("s"), [7], [7_000_000]),
        (pa.date64(), [86_400_000], [1]),
        (pa.list_(pa.date32()), [[1, 2]], [1, 2]),
        (pa.list_(pa.bool_()), [[True, False]], [1, 0]),
        (pa.list_(pa.timestamp("ms")), [[1]], [1000]),
        (pa.large_list(pa.float64()), [[0.5, 1.0]], [0.5, 1.0]),
        (pa.list_(pa.large_string()), [["a", ""]], [b"a", b""]),
        (pa.list_(pa.float32(), 2), [[1.0, 2.0]], [1.0, 2.0]),
    ],
    ids=str,
)
def test_casts(kind: pa.DataType, values: list, expected: list) -> None:
    assert only([*values, None], kind) == [expected, None]


def test_null_is_absent_and_empty_is_empty() -> None:
    assert only(["", None, "a"], pa.string()) == [[b""], None, [b"a"]]
    assert only([[], None, [1]], pa.list_(pa.int64())) == [[], None, [1]]
    rows = [prediction(row) for row in range(6)]
    absent: set[str] = set()
    for row, example in zip(rows, encode(to_record_batch(rows, FULL)), strict=True):
        nulls = {name for name, value in zip(KEPT, row.ref.passthrough, strict=True) if value.null_count}
        nulls |= set() if row.info.source_version else {"source_version"}
        assert set(features(example)) == set(arrow_schema(FULL).names) - nulls
        absent |= nulls
    assert absent == {*KEPT, "source_version"}


def test_slices_are_encoded_as_their_own_rows() -> None:
    batch = to_record_batch([prediction(row) for row in range(9)], FULL)
    assert encode(batch.slice(4, 3)) == encode(batch)[4:7]


def test_equal_rows_give_equal_bytes_in_every_process() -> None:
    rows = [prediction(row) for row in range(50)]
    here = [encode(to_record_batch(rows, FULL)) for _ in range(3)]
    assert here[0] == here[1] == here[2]
    program = (
        "import sys; from support.outputs import *; from beamlabel.transforms.rows.tf_examples import encode\n"
        "from beamlabel.transforms.rows.record_batch import to_record_batch\n"
        "sys.stdout.buffer.write(b''.join(encode(to_record_batch([prediction(r) for r in range(50)], FULL))))\n"
        "assert 'tensorflow' not in sys.modules\n"
    )
    tests = TESTS
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONPATH": f"{tests}:{tests.parent}"},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout == b"".join(here[0])


def test_long_features_keep_every_value() -> None:
    # Lengths of one, two, three and four bytes in protobuf's encoding.
    for size in (1, 127, 128, 16_384, 2_097_152):
        assert only(["x" * size], pa.string()) == [[b"x" * size]]


@pytest.mark.parametrize("kind", [pa.struct({"a": pa.int8()}), pa.uint64(), pa.decimal128(3, 1)], ids=str)
def test_a_type_without_counterpart_is_refused(kind: pa.DataType) -> None:
    with pytest.raises(ValueError, match="'odd'"):
        to_example_columns(pa.record_batch({"odd": pa.array([None], kind)}))
    with pytest.raises(ValueError, match="'odd'"):
        schema_pbtxt(pa.schema({"odd": kind}))


def test_a_null_inside_a_list_is_refused_rather_than_written_as_zero() -> None:
    with pytest.raises(ValueError, match="'x'"):
        only([[1, None, 3]], pa.list_(pa.int64()))


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (pa.float64(), 0.1),
        (pa.float64(), 1e300),
        (pa.list_(pa.float64()), [0.5, 0.1]),
        (pa.timestamp("ns"), 1999),
        (pa.timestamp("s"), 2**62),
        (pa.timestamp("ms", "UTC"), -(2**62)),
        (pa.duration("s"), 2**62),
        (pa.time64("ns"), 1),
    ],
    ids=str,
)
def test_a_value_that_would_change_is_refused(kind: pa.DataType, value: object) -> None:
    with pytest.raises(ValueError, match="'x'"):
        only([value], kind)


def test_a_double_that_float32_holds_is_written() -> None:
    values = [0.5, -0.0, float("inf"), 2.0**-149, 16_777_216.0]
    assert only([values], pa.list_(pa.float64())) == [values]
    (nan,) = only([float("nan")], pa.float64())
    assert np.isnan(nan[0])


def test_the_schema_file_describes_every_feature() -> None:
    schema = text_format.Parse(schema_pbtxt(arrow_schema(FULL)), schema_pb2.Schema())
    described = {feature.name: feature for feature in schema.feature}
    assert list(described) == arrow_schema(FULL).names
    assert described["uri"].type == schema_pb2.BYTES
    assert described["uri"].presence.min_fraction == 1.0
    assert described["embedding"].type == schema_pb2.FLOAT
    assert [dim.size for dim in described["embedding"].shape.dim] == [DIM]
    assert described["taken"].type == schema_pb2.INT
    assert described["taken"].value_count.max == 1
    assert not described["taken"].HasField("presence")
    assert list(described["taken"].annotation.comment) == ["timestamp[us, tz=UTC]"]
    assert described["tags"].HasField("value_count") and not described["tags"].value_count.max


@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_tensorflow_and_beam_read_the_file(compression: str, tmp_path: Path) -> None:
    records = [b"", b"a", bytes(range(256)) * 300, *encode(to_record_batch([prediction(1)], PLAIN))]
    path = tmp_path / ("some.tfrecord" + (".gz" if compression == "gzip" else ""))
    with path.open("wb") as file:
        write_records(file, records, compression=compression)
    kind = "GZIP" if compression == "gzip" else ""
    read = list(tf.data.TFRecordDataset(str(path), compression_type=kind).as_numpy_iterator())
    assert read == records
    with beam.Pipeline(runner=FnApiRunner()) as pipeline:
        assert_that(pipeline | beam.io.ReadFromTFRecord(str(path)), equal_to(records))


def test_a_gzip_file_depends_on_its_records_alone() -> None:
    file = io.BytesIO()
    write_records(file, [b"a"], compression="gzip")
    assert file.getvalue()[4:8] == bytes(4), "the header holds a time"
    assert not file.getvalue()[3], "the header holds a name"
    assert gzip.decompress(file.getvalue())[:8] == (1).to_bytes(8, "little")


def test_parse_example_fills_in_absent_features() -> None:
    rows = [prediction(row) for row in range(3)]
    parsed = tf.io.parse_example(
        encode(to_record_batch(rows, FULL)),
        {
            "embedding": tf.io.FixedLenFeature([DIM], tf.float32),
            "big": tf.io.FixedLenFeature([], tf.int64, default_value=-1),
        },
    )
    np.testing.assert_array_equal(parsed["embedding"], np.stack([row.embedding for row in rows]))
    assert parsed["big"].numpy().tolist() == [2**63 - 1, -(2**63), -1]
