"""One work unit → its staged files and its record."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import random
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
import tensorflow as tf

from beamlabel.transforms.records import Failure, FileRange, Reason, Stage, UnitRecord
from beamlabel.transforms.rows.schema import OutputSpec, arrow_schema
from beamlabel.transforms.units.unit_records import read_record
from beamlabel.transforms.writing.staged_files import failure_line
from beamlabel.transforms.writing.write_unit import write_unit
from support.gcs_server import Bucket
from support.outputs import DIM, FULL, KEPT, PLAIN, end, failure, prediction


def staged(directory: Path) -> list[str]:
    """Every file and directory in the staging directory except the three that belong there."""
    names = [path.relative_to(directory).as_posix() for path in directory.rglob("*")]
    return sorted(set(names) - {"shards", "failures", "units"})


def test_a_unit_leaves_its_rows_its_failures_and_its_record(tmp_path: Path) -> None:
    rows = [prediction(row) for row in (5, 0, 3)]
    failures = [failure(4), failure(1, reason=Reason.TIMEOUT), failure(2)]
    record = write_unit(end(6, skipped=2), rows, failures, FULL, str(tmp_path))
    data, failed = record.files
    assert record == UnitRecord(
        unit_id="00000-000000000000",
        ranges=(FileRange("/in/list.txt", 0, 8, True),),
        input=8,
        predicted=3,
        failed={"not_found": 2, "timeout": 1},
        skipped=2,
        files=(data, failed),
    )
    assert (data.kind, data.rows, failed.kind, failed.rows) == ("data", 3, "failures", 3)
    assert data.name == f"shards/00000-000000000000-{data.sha256[:16]}.parquet"
    assert failed.name == f"failures/00000-000000000000-{failed.sha256[:16]}.jsonl"
    for file in record.files:
        content = (tmp_path / file.name).read_bytes()
        assert (file.bytes, file.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    assert staged(tmp_path) == sorted([data.name, failed.name, "units/00000-000000000000.json"])
    assert read_record(str(tmp_path), "00000-000000000000") == record
    assert read_record(str(tmp_path), "00000-000000000008") is None
    table = pq.read_table(tmp_path / data.name)
    assert table["ref_id"].to_pylist() == [f"/in/list.txt#{row}" for row in (0, 3, 5)]
    lines = [json.loads(line) for line in (tmp_path / failed.name).read_text().splitlines()]
    assert [line["ref_id"] for line in lines] == [f"/in/list.txt#{row}" for row in (1, 2, 4)]
    assert lines[0] == {
        "uri": "missing-1.jpg",
        "ref_id": "/in/list.txt#1",
        "image_id": None,
        "stage": "fetch",
        "reason": "timeout",
        "detail": "no such file: 1",
        "source_bytes": None,
        "source_version": None,
        "content_hash": None,
        "failed_at": "1970-01-01T00:00:00.000000Z",
    }


def test_the_parquet_file_is_as_the_design_says(tmp_path: Path) -> None:
    record = write_unit(end(3), [prediction(row) for row in range(3)], [], FULL, str(tmp_path))
    path = tmp_path / record.files[0].name
    assert pq.read_schema(path).equals(arrow_schema(FULL), check_metadata=True)
    group = pq.read_metadata(path).row_group(0)
    columns = {group.column(place).path_in_schema: group.column(place) for place in range(group.num_columns)}
    assert {column.compression for column in columns.values()} == {"ZSTD"}
    dictionary = {name for name, column in columns.items() if "RLE_DICTIONARY" in column.encodings}
    assert {"label", "labels.list.element", "format", "module_fingerprint"} <= dictionary
    assert not {"embedding.list.element", "scores.list.element", "uri", "ref_id"} & dictionary


@pytest.mark.parametrize(
    "spec",
    [
        FULL,
        PLAIN,
        dataclasses.replace(FULL, format="tfrecord"),
        dataclasses.replace(FULL, format="tfrecord", compression="gzip"),
    ],
    ids=lambda spec: f"{spec.file_ending} {'with' if spec.kept_fields else 'without'} classes",
)
def test_a_unit_without_rows_leaves_a_readable_shard(spec: OutputSpec, tmp_path: Path) -> None:
    record = write_unit(end(0), [], [], spec, str(tmp_path))
    (data,) = record.files
    assert (record.input, record.predicted, record.failed, data.rows) == (0, 0, {}, 0)
    path = tmp_path / data.name
    if spec.format == "parquet":
        table = pq.read_table(path)
        assert (table.num_rows, table.schema.names) == (0, arrow_schema(spec).names)
    else:
        compression = "GZIP" if spec.compression == "gzip" else ""
        assert list(tf.data.TFRecordDataset(str(path), compression_type=compression)) == []


@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_parquet_and_tfrecord_hold_the_same_values(compression: str, tmp_path: Path) -> None:
    rows = [prediction(row) for row in range(1100)]
    parquet = write_unit(end(1100), rows, [], FULL, str(tmp_path / "parquet")).files[0]
    spec = dataclasses.replace(FULL, format="tfrecord", compression=compression)
    tfrecord = write_unit(end(1100), rows, [], spec, str(tmp_path / "tfrecord")).files[0]
    assert tfrecord.name.endswith(".tfrecord" if compression == "none" else ".tfrecord.gz")
    assert tfrecord.rows == parquet.rows == 1100
    path = str(tmp_path / "tfrecord" / tfrecord.name)
    kind = "GZIP" if compression == "gzip" else ""
    examples = [
        tf.train.Example.FromString(data).features.feature
        for data in tf.data.TFRecordDataset(path, compression_type=kind).as_numpy_iterator()
    ]
    table = pq.read_table(tmp_path / "parquet" / parquet.name)
    for name, column in zip(table.column_names, table.columns, strict=True):
        for example, value in zip(examples, numbers(column).to_pylist(), strict=True):
            assert (name in example) == (value is not None), name
            if value is not None:
                feature = example[name]
                found = list(getattr(feature, feature.WhichOneof("kind")).value)
                assert found == [plain(item) for item in (value if isinstance(value, list) else [value])]


def numbers(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Points in time as their numbers in tf.Example."""
    if pa.types.is_timestamp(column.type):
        return column.cast(pa.int64())
    return column.cast(pa.int32()) if pa.types.is_date(column.type) else column


def plain(value: object) -> object:
    return value.encode() if isinstance(value, str) else value


@pytest.mark.parametrize("file_format", ["parquet", "tfrecord"])
def test_the_same_rows_in_another_order_are_the_same_file(file_format: str, tmp_path: Path) -> None:
    spec = dataclasses.replace(FULL, format=file_format)
    rows, failures = [prediction(row) for row in range(20)], [failure(row) for row in range(20, 25)]
    first = write_unit(end(25), rows, failures, spec, str(tmp_path / "first"))
    random.Random(0).shuffle(rows)
    second = write_unit(end(25), rows, failures[::-1], spec, str(tmp_path / "second"))
    assert first == second
    assert staged(tmp_path / "first") == staged(tmp_path / "second")


def test_a_unit_written_twice_is_there_once(tmp_path: Path) -> None:
    arguments = (end(4), [prediction(row) for row in range(3)], [failure(3)], FULL, str(tmp_path))
    first = write_unit(*arguments)
    before = staged(tmp_path)
    assert write_unit(*arguments) == first
    assert staged(tmp_path) == before


def test_of_two_tries_that_differ_the_first_record_stands_and_its_files_are_whole(tmp_path: Path) -> None:
    first = write_unit(end(2), [prediction(0), prediction(1)], [], FULL, str(tmp_path))
    second = write_unit(end(2), [prediction(0)], [failure(1)], FULL, str(tmp_path))
    assert second == first == read_record(str(tmp_path), first.unit_id)
    (file,) = first.files
    assert hashlib.sha256((tmp_path / file.name).read_bytes()).hexdigest() == file.sha256
    assert pq.read_metadata(tmp_path / file.name).num_rows == 2


def test_a_unit_is_staged_in_a_bucket(gcs: Bucket, tmp_path: Path) -> None:
    arguments = (end(3), [prediction(0), prediction(1)], [failure(2)], FULL)
    there = write_unit(*arguments, gcs.uri("out/_beamlabel/staging/plan"))
    assert (
        there
        == write_unit(*arguments, str(tmp_path))
        == write_unit(*arguments, gcs.uri("out/_beamlabel/staging/plan"))
    )
    names = [*(file.name for file in there.files), f"units/{there.unit_id}.json"]
    assert gcs.list() == sorted(f"out/_beamlabel/staging/plan/{name}" for name in names)
    for file in there.files:
        assert hashlib.sha256(gcs.get(f"out/_beamlabel/staging/plan/{file.name}")).hexdigest() == file.sha256
    other = write_unit(
        end(3), [prediction(0)], [failure(1), failure(2)], FULL, gcs.uri("out/_beamlabel/staging/plan")
    )
    assert other == there == read_record(gcs.uri("out/_beamlabel/staging/plan"), there.unit_id)


def test_a_file_uri_is_a_local_directory(tmp_path: Path) -> None:
    directory = tmp_path / "with space"
    record = write_unit(end(1), [prediction(0)], [], FULL, directory.as_uri())
    assert staged(directory) == sorted([record.files[0].name, f"units/{record.unit_id}.json"])
    assert [path.name for path in tmp_path.iterdir()] == ["with space"]


def test_a_unit_that_does_not_add_up_gets_no_record(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="3 input rows, but 2 predicted"):
        write_unit(end(3), [prediction(0), prediction(1)], [], FULL, str(tmp_path))
    assert read_record(str(tmp_path), "00000-000000000000") is None


@pytest.mark.parametrize("file_format", ["parquet", "tfrecord"])
def test_an_error_leaves_nothing_behind(file_format: str, tmp_path: Path) -> None:
    spec = dataclasses.replace(FULL, format=file_format)
    rows = [prediction(row) for row in range(1500)]
    rows[-1] = dataclasses.replace(rows[-1], embedding=None)
    with pytest.raises(ValueError, match="embedding"):
        write_unit(end(1500), rows, [], spec, str(tmp_path))
    assert staged(tmp_path) == []


def test_row_groups_are_about_2_megabytes(tmp_path: Path) -> None:
    wide = OutputSpec(embedding_dim=2048)
    vector = np.zeros(2048, np.float32)
    rows = [dataclasses.replace(prediction(row, spec=PLAIN), embedding=vector) for row in range(2500)]
    record = write_unit(end(2500), rows, [], wide, str(tmp_path))
    metadata = pq.read_metadata(tmp_path / record.files[0].name)
    groups = [metadata.row_group(place).num_rows for place in range(metadata.num_row_groups)]
    assert groups == [256] * 9 + [196]
    # Small rows are not cut into small groups.
    rows = [prediction(row, spec=PLAIN) for row in range(2500)]
    record = write_unit(end(2500, unit_id="small"), rows, [], PLAIN, str(tmp_path))
    assert pq.read_metadata(tmp_path / record.files[0].name).num_row_groups == 1


def test_a_directory_of_shards_is_one_table(tmp_path: Path) -> None:
    for start in (0, 10, 20):
        rows = [prediction(row) for row in range(start, start + 10)] if start else []
        unit_id = f"00000-{start:012d}"
        write_unit(end(len(rows), unit_id=unit_id, start=start), rows, [], FULL, str(tmp_path))
    directory = tmp_path / "shards"
    expected = [f"/in/list.txt#{row}" for row in range(10, 30)]
    table = ds.dataset(directory).to_table()
    assert table["ref_id"].to_pylist() == expected
    assert table.schema.equals(arrow_schema(FULL), check_metadata=True)
    frame = pd.read_parquet(directory)
    assert frame["ref_id"].tolist() == expected
    assert frame.loc[0, "embedding"].shape == (DIM,)
    query = f"""
        select ref_id, embedding::FLOAT[{DIM}] as vector, array_distance(vector, vector) as distance, tags
        from '{directory}/*.parquet' order by ref_id
    """
    found = duckdb.sql(query).fetchall()
    assert [row[0] for row in found] == expected
    np.testing.assert_array_equal([row[1] for row in found], np.stack(frame["embedding"]))
    assert {row[2] for row in found} == {0.0}
    assert [row[3] for row in found] == [KEPT["tags"][1][row % 3] for row in range(10, 30)]


@pytest.mark.parametrize(
    "odd", ["\n", "\r", "\x85", "\u2028", "\u2029", "\x0b", "\x1c", '"', "\\", "🐈 ünï", "\0"]
)
def test_a_failure_is_one_line_with_any_text(odd: str) -> None:
    said = Failure(f"a{odd}b", f"c{odd}d", Stage.FETCH, Reason.NOT_FOUND, f"e{odd}f")
    line = failure_line(said, 0)
    assert len(line.decode().splitlines()) == 1 and line.endswith(b"\n")
    found = json.loads(line)
    assert (found["uri"], found["ref_id"], found["detail"]) == (said.uri, said.ref_id, said.detail)


def test_a_failure_of_a_null_uri_or_an_odd_one_is_written() -> None:
    null = Failure(None, "list#0", Stage.OPEN, Reason.NULL_URI, "the URI is null")
    assert json.loads(failure_line(null, 0))["uri"] is None
    name = b"caf\xe9.jpg".decode("utf-8", "surrogateescape")
    odd = Failure(name, "list#1", Stage.FETCH, Reason.NOT_FOUND, f"no {name}")
    assert json.loads(failure_line(odd, 0))["uri"] == "caf\\udce9.jpg"
    signed = Failure("https://h/a?sig=secret", "list#2", Stage.FETCH, Reason.TIMEOUT, "")
    assert b"secret" not in failure_line(signed, 0)
    assert "ü".encode() in failure_line(Failure("ü", "", Stage.FETCH, Reason.TIMEOUT, ""), 0)
