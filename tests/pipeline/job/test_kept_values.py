"""Kept values: each arrives unchanged, or an error names column, type and file."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from beamlabel.pipeline.output.verify import verify
from support.jobs import label, photos, read_examples
from support.kept import checked, refusal, values, write

NOON = dt.datetime(2024, 2, 29, 12, 30, 1, 5)
FAR = dt.datetime(9999, 12, 31, 23, 59, 59)


def storage(values: list, kind: pa.DataType, extension: pa.DataType) -> pa.Array:
    return pa.ExtensionArray.from_storage(extension, pa.array(values, kind))


# For each Parquet type: values and their tf.Example forms; None if there is none.
TYPES: dict[str, tuple[pa.Array, list | None]] = {
    "null": (pa.nulls(3), [None, None, None]),
    "bool": (pa.array([True, None, False]), [[1], None, [0]]),
    "int8": (pa.array([-128, None, 127], pa.int8()), [[-128], None, [127]]),
    "int16": (pa.array([-(2**15), None, 2**15 - 1], pa.int16()), [[-(2**15)], None, [2**15 - 1]]),
    "int32": (pa.array([-(2**31), None, 2**31 - 1], pa.int32()), [[-(2**31)], None, [2**31 - 1]]),
    "int64": (pa.array([-(2**63), None, 2**63 - 1]), [[-(2**63)], None, [2**63 - 1]]),
    "uint8": (pa.array([0, None, 255], pa.uint8()), [[0], None, [255]]),
    "uint16": (pa.array([0, None, 2**16 - 1], pa.uint16()), [[0], None, [2**16 - 1]]),
    "uint32": (pa.array([0, None, 2**32 - 1], pa.uint32()), [[0], None, [2**32 - 1]]),
    "uint64": (pa.array([0, None, 2**64 - 1], pa.uint64()), None),
    "float16": (pa.array([1.5, None, -65504.0], pa.float16()), [[1.5], None, [-65504.0]]),
    "float32": (pa.array([0.5, None, -(2.0**127)], pa.float32()), [[0.5], None, [-(2.0**127)]]),
    "float64": (pa.array([0.5, None, -1e9]), [[0.5], None, [-1e9]]),
    "float64_finer": (pa.array([0.1, None, 1e300]), None),
    "decimal32": (pa.array([Decimal("1.25"), None, Decimal("-999.99")], pa.decimal32(5, 2)), None),
    "decimal64": (pa.array([Decimal("1.25"), None, None], pa.decimal64(12, 2)), None),
    "decimal128": (pa.array([Decimal(10) ** 37, None, None], pa.decimal128(38, 0)), None),
    "decimal256": (pa.array([Decimal(10) ** 75, None, None], pa.decimal256(76, 0)), None),
    "string": (pa.array(["ünï", None, ""]), [["ünï".encode()], None, [b""]]),
    "large_string": (pa.array(["ünï", None, ""], pa.large_string()), [["ünï".encode()], None, [b""]]),
    "string_view": (pa.array(["ünï" * 9, None, ""], pa.string_view()), [[("ünï" * 9).encode()], None, [b""]]),
    "binary": (pa.array([b"\xff\0", None, b""]), [[b"\xff\0"], None, [b""]]),
    "large_binary": (pa.array([b"\xff\0", None, b""], pa.large_binary()), [[b"\xff\0"], None, [b""]]),
    "binary_view": (pa.array([b"\xff" * 20, None, b""], pa.binary_view()), [[b"\xff" * 20], None, [b""]]),
    "fixed_size_binary": (pa.array([b"abc", None, b"\0\0\0"], pa.binary(3)), [[b"abc"], None, [b"\0\0\0"]]),
    "date32": (pa.array([dt.date(1969, 12, 31), None, dt.date(9999, 12, 31)]), [[-1], None, [2932896]]),
    "date64": (pa.array([dt.date(1969, 12, 31), None, None], pa.date64()), [[-1], None, None]),
    "time32_s": (pa.array([dt.time(1), None, None], pa.time32("s")), [[3_600_000_000], None, None]),
    "time32_ms": (pa.array([dt.time(0, 0, 0, 5000), None, None], pa.time32("ms")), [[5000], None, None]),
    "time64_us": (pa.array([dt.time(0, 0, 0, 5), None, None], pa.time64("us")), [[5], None, None]),
    "time64_ns": (pa.array([5000, None, None], pa.time64("ns")), [[5], None, None]),
    "timestamp_s": (pa.array([dt.datetime(1970, 1, 2), FAR, None], pa.timestamp("s")),
                    [[86_400_000_000], [253402300799000000], None]),
    "timestamp_ms": (pa.array([FAR, None, None], pa.timestamp("ms", "UTC")), [[253402300799000000], None, None]),
    "timestamp_us": (pa.array([FAR, None, NOON], pa.timestamp("us", "Europe/Paris")),
                     [[253402300799000000], None, [1709209801000005]]),
    "timestamp_ns": (pa.array([NOON, None, None], pa.timestamp("ns")), [[1709209801000005], None, None]),
    "timestamp_far": (pa.array([2**62, None, None], pa.timestamp("ms")), None),
    "duration_s": (pa.array([7, None, None], pa.duration("s")), [[7_000_000], None, None]),
    "duration_ms": (pa.array([7, None, None], pa.duration("ms")), [[7000], None, None]),
    "duration_us": (pa.array([7, None, None], pa.duration("us")), [[7], None, None]),
    "duration_ns": (pa.array([7000, None, None], pa.duration("ns")), [[7], None, None]),
    "duration_far": (pa.array([2**62, None, None], pa.duration("s")), None),
    "list": (pa.array([[1, 2], None, []], pa.list_(pa.int16())), [[1, 2], None, []]),
    "list_with_null": (pa.array([[1, None], None, []], pa.list_(pa.int16())), None),
    "large_list": (pa.array([["a"], None, []], pa.large_list(pa.large_string())), [[b"a"], None, []]),
    "list_view": (pa.array([["a"], None, []], pa.list_view(pa.string())), [[b"a"], None, []]),
    "fixed_size_list": (pa.array([[1, 2], [3, 4], [5, 6]], pa.list_(pa.int8(), 2)), [[1, 2], [3, 4], [5, 6]]),
    "list_of_nulls": (pa.array([[], None, []], pa.list_(pa.null())), [[], None, []]),
    "list_of_lists": (pa.array([[[1], None, []], None, []], pa.list_(pa.list_(pa.int8()))), None),
    "list_of_ns": (pa.array([[NOON], None, []], pa.list_(pa.timestamp("ns"))), [[1709209801000005], None, []]),
    "struct": (pa.array([{"a": 1, "b": {"c": None}}, None, {"a": None, "b": None}],
                        pa.struct({"a": pa.int8(), "b": pa.struct({"c": pa.timestamp("ns")})})), None),
    "map": (pa.array([[("k", NOON)], None, []], pa.map_(pa.string(), pa.timestamp("ns"))), None),
    "dictionary": (pa.array(["x", None, "x"]).dictionary_encode(), [[b"x"], None, [b"x"]]),
    "list_of_dictionary": (pa.array([["x", "y"], None, []], pa.list_(pa.dictionary(pa.int8(), pa.string()))),
                           [[b"x", b"y"], None, []]),
    "uuid": (storage([b"0123456789abcdef", None, None], pa.binary(16), pa.uuid()), [[b"0123456789abcdef"], None, None]),
    "json": (storage(['{"a": 1}', None, None], pa.string(), pa.json_()), [[b'{"a": 1}'], None, None]),
    "bool8": (storage([1, None, 0], pa.int8(), pa.bool8()), [[1], None, [0]]),
    "opaque": (storage([b"a", None, b""], pa.binary(), pa.opaque(pa.binary(), "a", "b")), [[b"a"], None, [b""]]),
    "tensor": (storage([[1, 2], [3, 4], [5, 6]], pa.list_(pa.int8(), 2), pa.fixed_shape_tensor(pa.int8(), [2])),
               [[1, 2], [3, 4], [5, 6]]),
}  # fmt: skip


@pytest.fixture
def images(tmp_path: Path) -> list[str]:
    return [str(path) for path in photos(tmp_path / "photos", 3)]


def test_every_type_arrives_equal_in_parquet(tmp_path, images):
    source = write(tmp_path / "in.parquet", images, {name: column for name, (column, _) in TYPES.items()})
    job = label(tmp_path / "out", "--input", source, "--keep_columns", *TYPES)
    assert job.code == 0
    there = pq.read_table(source)
    for name in TYPES:
        assert values(job.table[name]) == values(there[name]), name
    assert verify(str(job.output)).problems == ()


def test_every_type_arrives_equal_in_tfrecords_or_is_refused(tmp_path, images):
    source = write(tmp_path / "in.parquet", images, {name: column for name, (column, _) in TYPES.items()})
    arguments = ("--input", source, "--output_format", "tfrecord", "--keep_columns")
    taken = {name: expected for name, (_, expected) in TYPES.items() if expected is not None}
    job = label(tmp_path / "out", *arguments, *taken)
    assert job.code == 0
    examples = read_examples(job.output)
    for name, expected in taken.items():
        assert [example.get(name) for example in examples] == expected, name
    stored = pq.read_schema(source)
    for name in TYPES.keys() - taken.keys():
        message = refusal(*arguments, name)
        kind = stored.field(name).type
        assert name in message and str(source) in message, name
        assert pa.types.is_nested(kind) or str(kind) in message, name


@pytest.mark.parametrize("format", ["parquet", "tfrecord"])
@pytest.mark.parametrize(
    "column",
    [
        pa.array([None, 1999], pa.timestamp("ns")),
        pa.array([None, 1], pa.time64("ns")),
        pa.array([None, 1], pa.duration("ns")),
        pa.array([None, [1]], pa.list_(pa.timestamp("ns", "UTC"))),
        pa.array([None, [1, 2]], pa.list_(pa.int8(), 2)),
    ],
    ids=lambda column: str(column.type),
)
def test_a_value_that_would_change_is_refused_before_the_run(tmp_path, images, column, format):
    source = write(tmp_path / "in.parquet", images[:2], {"odd": column})
    arguments = ("--input", source, "--output_format", format)
    message = refusal(*arguments, "--keep_columns", "odd")
    assert (
        "odd" in message
        and str(source) in message
        and str(pq.read_schema(source).field("odd").type) in message
    )
    assert checked(*arguments).kept == ()
    # Only the first row counts, and it is null.
    if not pa.types.is_fixed_size_list(column.type):
        assert checked(*arguments, "--keep_columns", "odd", "--limit", 1).kept


def int96(path: Path, images: list[str], columns: dict[str, pa.Array]) -> Path:
    return write(path, images, columns, use_deprecated_int96_timestamps=True)


def test_int96_timestamps_of_any_time(tmp_path, images):
    moments = [dt.datetime(1, 1, 1), FAR.replace(microsecond=999999), None]
    columns = {
        "when": pa.array(moments, pa.timestamp("us")),
        "many": pa.array([[m] for m in moments], pa.list_(pa.timestamp("us"))),
    }
    source = int96(tmp_path / "in.parquet", images, columns)
    assert "int96" in str(pq.ParquetFile(source).schema)
    job = label(tmp_path / "out", "--input", source, "--keep_columns", *columns)
    assert job.table["when"].to_pylist() == moments
    assert job.table["many"].to_pylist() == [[moment] for moment in moments]
    examples = label(
        tmp_path / "records", "--input", source, "--keep_columns", "when", "--output_format", "tfrecord"
    )
    epoch = dt.datetime(1970, 1, 1)
    expected = [None if m is None else [(m - epoch) // dt.timedelta(microseconds=1)] for m in moments]
    assert [example.get("when") for example in read_examples(examples.output)] == expected


@pytest.mark.parametrize("nested", [False, True])
def test_int96_with_nanoseconds_is_refused(tmp_path, images, nested):
    moments = pa.array([1, None, 10**18], pa.timestamp("ns"))
    column = pa.ListArray.from_arrays(pa.array([0, 1, 2, 3], pa.int32()), moments) if nested else moments
    source = int96(tmp_path / "in.parquet", images, {"when": column})
    message = refusal("--input", source, "--keep_columns", "when")
    assert "'when'" in message and "INT96" in message and str(source) in message


def test_files_of_duckdb_arrive_as_duckdb_reads_them(tmp_path, images):
    """Another writer with its own types, and another reader."""
    source = tmp_path / "in.parquet"
    types = {
        "u": "uuid()", "e": "'a'::ENUM('a', 'b')", "t": "TIME '10:00:00.000001'",
        "z": "TIMESTAMPTZ '2020-01-01 00:00:00+00'",
        "ns": "TIMESTAMP_NS '2020-01-01 00:00:00.000001'", "m": "MAP {'a': 1}", "l": "[1, 2]::INT[2]",
        "d": "1.5::DECIMAL(5, 2)",
        "j": "'{}'::JSON", "ut": "200::UTINYINT", "s": "{'a': 1, 'b': ['x']}", "b": "'101'::BIT",
        "hu": "18446744073709551615::UBIGINT",
        "ms": "TIMESTAMP_MS '9999-12-31 23:59:59.999'", "da": "DATE '9999-12-31'", "i": "INTERVAL '1 day'",
    }  # fmt: skip
    columns = ", ".join(f"{value} AS {name}" for name, value in types.items())
    duckdb.sql(f"COPY (SELECT '{images[0]}' AS uri, {columns}) TO '{source}'")
    job = label(tmp_path / "out", "--input", source, "--keep_columns", *types)
    assert job.code == 0
    names = ", ".join(name for name in types if name not in ("u", "i", "ns"))
    query = f"SELECT {names}, ns::TIMESTAMP FROM '{{}}'"
    before, after = (
        duckdb.sql(query.format(path)).fetchall() for path in (source, f"{job.output}/*.parquet")
    )
    assert before == after
    raw = pq.read_table(source)
    assert job.rows[0]["u"] == raw["u"].combine_chunks().storage[0].as_py()
    assert job.rows[0]["i"] == raw["i"][0].as_py()
