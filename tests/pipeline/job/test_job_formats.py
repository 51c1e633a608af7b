"""Parquet and TFRecords with the same inputs hold the same values."""

import datetime

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2

from support.jobs import label, photos, read_examples, uri_list


@pytest.fixture
def inputs(tmp_path):
    paths = photos(tmp_path / "photos", 7)
    table = pa.table(
        {
            "uri": [str(path) for path in paths],
            "n": pa.array([1, None, 3, 4, 5, 6, 7], pa.int32()),
            "ratio": pa.array([0.5, 1, None, 2, 3, 4, 5], pa.float64()),
            "name": ["ä", "b", "c", None, "e", "f", "g"],
            "flag": [True, False, None, True, True, True, True],
            "taken": pa.array([datetime.datetime(2026, 1, day + 1) for day in range(7)], pa.timestamp("us")),
            "tags": pa.array([["x", "y"], [], None, ["z"], [], [], []], pa.list_(pa.string())),
        }
    )
    pq.write_table(table, tmp_path / "in.parquet")
    names = uri_list(tmp_path / "names.txt", [f"class {i}" for i in range(11)])
    return ("--input", tmp_path / "in.parquet", "--labels", names, "--keep_columns", *table.schema.names[1:])


def as_feature(value):
    """The tf.Example form of a Parquet value: None is an absent feature."""
    values = value if isinstance(value, list) else [value]
    if values and isinstance(values[0], str):
        return [text.encode() for text in values]
    if values and isinstance(values[0], datetime.datetime):
        epochs = [datetime.datetime(1970, 1, 1, tzinfo=moment.tzinfo) for moment in values]
        return [
            (moment - epoch) // datetime.timedelta(microseconds=1)
            for moment, epoch in zip(values, epochs, strict=True)
        ]
    return [int(item) if isinstance(item, bool) else item for item in values]


@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_the_same_values(tmp_path, inputs, compression):
    parquet = label(tmp_path / "parquet", *inputs)
    tfrecord = label(
        tmp_path / "tfrecord", *inputs, "--output_format", "tfrecord", "--tfrecord_compression", compression
    )
    assert (parquet.code, tfrecord.code) == (0, 0)
    examples = read_examples(tfrecord.output, compression)
    rows = parquet.rows
    assert len(examples) == len(rows) == 7
    for row, example in zip(rows, examples, strict=True):
        present = {name: value for name, value in row.items() if value is not None}
        for name, value in present.items():
            if name == "labeled_at":  # two runs
                assert len(example[name]) == 1
                continue
            expected = as_feature(value)
            if expected and isinstance(expected[0], float):
                np.testing.assert_allclose(example[name], expected, rtol=1e-6)
            else:
                assert example.get(name, []) == expected, name
        assert not {name for name in example if example[name]} - present.keys()
    assert tfrecord.manifest["metadata"].keys() == parquet.manifest["metadata"].keys()


def test_the_schema_of_the_examples_lies_beside_them(tmp_path, inputs):
    job = label(tmp_path / "out", *inputs, "--output_format", "tfrecord")
    schema = text_format.Parse((job.output / "_schema.pbtxt").read_text(), schema_pb2.Schema())
    types = {feature.name: feature.type for feature in schema.feature}
    assert types["uri"] == schema_pb2.BYTES
    assert types["embedding"] == types["ratio"] == schema_pb2.FLOAT
    assert types["n"] == types["taken"] == types["flag"] == schema_pb2.INT


def test_a_column_without_a_counterpart_is_refused_before_the_run(tmp_path, capsys):
    (path,) = photos(tmp_path / "photos", 1)
    place = pa.array([{"lat": 1.0}], pa.struct([("lat", pa.float64())]))
    pq.write_table(pa.table({"uri": [str(path)], "place": place}), tmp_path / "in.parquet")
    arguments = ("--input", tmp_path / "in.parquet", "--keep_columns", "place")
    assert label(tmp_path / "parquet", *arguments).rows[0]["place"] == {"lat": 1.0}
    refused = label(tmp_path / "out", *arguments, "--output_format", "tfrecord")
    assert refused.code == 2
    assert "place" in capsys.readouterr().err


def test_a_kept_column_whose_name_is_ours_is_refused(tmp_path, capsys):
    (path,) = photos(tmp_path / "photos", 1)
    pq.write_table(pa.table({"path": [str(path)], "score": [1.0]}), tmp_path / "in.parquet")
    refused = label(tmp_path / "out", "--input", tmp_path / "in.parquet", "--keep_columns", "score")
    assert refused.code == 2
    assert "score" in capsys.readouterr().err
