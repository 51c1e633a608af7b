"""The storage type of a kept column, and the common type of several files."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from beamlabel.transforms.rows.exact_cast import exact_cast, is_always_exact
from beamlabel.transforms.rows.types import duplicate_field, normalized_type, stored_type, unified_type

NS, US = pa.timestamp("ns", "UTC"), pa.timestamp("us", "UTC")


def test_normalized_types() -> None:
    assert normalized_type(NS) == US
    assert normalized_type(pa.timestamp("ms")) == pa.timestamp("ms")
    assert normalized_type(pa.timestamp("ms", "Etc/UTC")) == pa.timestamp("ms", "UTC")
    assert normalized_type(pa.timestamp("ms", "Europe/Paris")) == pa.timestamp("ms", "Europe/Paris")
    assert normalized_type(pa.time64("ns")) == pa.time64("us")
    assert normalized_type(pa.duration("ns")) == pa.duration("us")
    assert normalized_type(pa.dictionary(pa.int8(), NS)) == US
    assert normalized_type(pa.run_end_encoded(pa.int32(), NS)) == US
    assert normalized_type(pa.uuid()) == pa.binary(16)
    assert normalized_type(pa.bool8()) == pa.bool_()
    assert normalized_type(pa.list_(NS, 3)) == pa.list_(US)
    assert normalized_type(pa.large_list(NS)) == pa.large_list(US)
    assert normalized_type(pa.list_view(NS)) == pa.list_(US)
    assert normalized_type(pa.list_(pa.string_view())) == pa.list_(pa.string())
    assert normalized_type(pa.binary_view()) == pa.binary()
    assert normalized_type(pa.struct({"a": NS, "b": pa.int8()})) == pa.struct({"a": US, "b": pa.int8()})
    assert normalized_type(pa.map_(pa.string(), NS)) == pa.map_(pa.string(), US)
    assert normalized_type(pa.decimal128(9, 2)) == pa.decimal128(9, 2)


@pytest.mark.parametrize(
    "column",
    [
        pa.array([1000, None], pa.timestamp("ns", "Europe/Paris")),
        pa.array(["a", None, "a"]).dictionary_encode(),
        pa.array([[1, 2], None], pa.list_(pa.int32(), 2)),
        pa.array([{"a": 1000}, None], pa.struct({"a": pa.timestamp("ns")})),
        pa.array([b"0" * 16, None], pa.uuid()),
        pa.array([1, None, 0], pa.bool8()),
        pa.array([[("k", 1000)], None, []], pa.map_(pa.string(), pa.timestamp("ns"))),
        pa.array([[1], None, [], [2, 3]], pa.list_view(pa.int8())),
        pa.array([["a", None], None], pa.list_(pa.dictionary(pa.int8(), pa.string()))),
        pa.StructArray.from_arrays(
            [pa.array([b"0" * 16, None, None], pa.uuid())], ["u"], mask=pa.array([False, True, False])
        ),
        pa.array([[[1000], None], None, []], pa.large_list(pa.list_(pa.time64("ns")))),
    ],
    ids=lambda column: str(column.type),
)
def test_normalized_values_are_the_same_and_survive_parquet(column: pa.Array, tmp_path) -> None:
    target = normalized_type(column.type)
    for part in (column, column.slice(1), column.slice(0, 1), column.slice(0, 0)):
        stored = exact_cast(part, target)
        stored.validate(full=True)
        assert stored.type == target
        assert stored.to_pylist() == [plain(value) for value in part.to_pylist()]
        pq.write_table(pa.table({"kept": stored}), tmp_path / "kept.parquet")
        assert pq.read_table(tmp_path / "kept.parquet")["kept"].combine_chunks().equals(stored)


def plain(value: object) -> object:
    """A value as its storage: pandas' timestamps compare with datetimes, UUIDs are bytes."""
    if isinstance(value, dict):
        return {name: plain(inner) for name, inner in value.items()}
    return getattr(value, "bytes", value)


STRUCT = pa.struct({"a": pa.int8(), "b": pa.string()})
LONGER = pa.struct({"a": pa.int8(), "b": pa.string(), "c": pa.null()})
UNIFIED = [
    (pa.null(), pa.int8(), pa.int8()),
    (pa.null(), pa.struct({"a": pa.int8()}), pa.struct({"a": pa.int8()})),
    (pa.int32(), pa.int64(), pa.int64()),
    (pa.uint8(), pa.int8(), pa.int16()),
    (pa.uint64(), pa.int64(), pa.int64()),
    (pa.int32(), pa.float32(), pa.float64()),
    (pa.int64(), pa.float64(), pa.float64()),
    (pa.float16(), pa.float64(), pa.float64()),
    (pa.string(), pa.large_string(), pa.large_string()),
    (pa.string(), pa.string_view(), pa.string()),
    (pa.string_view(), pa.large_string(), pa.large_string()),
    (pa.binary(), pa.binary_view(), pa.binary()),
    (pa.binary(3), pa.large_binary(), pa.large_binary()),
    (pa.binary(3), pa.binary(4), pa.binary()),
    (pa.timestamp("ms", "UTC"), US, US),
    (pa.date32(), pa.date64(), pa.date32()),
    (pa.time32("ms"), pa.time64("us"), pa.time64("us")),
    (pa.duration("s"), pa.duration("us"), pa.duration("us")),
    (pa.list_(pa.int8()), pa.list_(pa.int64()), pa.list_(pa.int64())),
    (pa.list_(pa.null()), pa.large_list(pa.string()), pa.large_list(pa.string())),
    (pa.list_(pa.field("item", pa.int8(), False)), pa.list_(pa.int8()), pa.list_(pa.int8())),
    (pa.decimal128(9, 2), pa.decimal128(12, 5), pa.decimal128(12, 5)),
    (pa.decimal32(5, 2), pa.decimal64(12, 2), pa.decimal128(12, 2)),
    (pa.decimal128(38, 0), pa.decimal128(38, 10), pa.decimal256(48, 10)),
    (pa.int32(), pa.decimal128(12, 5), pa.decimal128(15, 5)),
    (pa.struct({"a": pa.int8()}), pa.struct({"a": pa.int64()}), pa.struct({"a": pa.int64()})),
    (STRUCT, pa.struct({"b": pa.string(), "c": pa.null()}), LONGER),
    (pa.map_(pa.string(), pa.int8()), pa.map_(pa.string(), pa.int16()), pa.map_(pa.string(), pa.int16())),
]  # fmt: skip


@pytest.mark.parametrize(("one", "other", "both"), UNIFIED, ids=str)
def test_one_type_for_two(one: pa.DataType, other: pa.DataType, both: pa.DataType) -> None:
    assert unified_type(one, other) == both
    assert unified_type(one, one) == one
    there = unified_type(other, one)
    if pa.types.is_struct(both):
        assert {field.name: field.type for field in there} == {field.name: field.type for field in both}
    else:
        assert there == both
    for kind in (one, other):
        nulls = exact_cast(pa.nulls(2, kind), both)
        assert (nulls.type, nulls.null_count) == (both, 2)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (pa.int64(), pa.string()),
        (pa.string(), pa.binary()),
        (pa.bool_(), pa.int8()),
        (pa.timestamp("us"), US),
        (US, pa.timestamp("us", "Europe/Paris")),
        (pa.date32(), pa.timestamp("us")),
        (pa.float64(), pa.decimal128(9, 2)),
        (pa.list_(pa.int8()), pa.int8()),
        (pa.list_(pa.int8()), pa.list_(pa.string())),
        (pa.struct({"a": pa.int8()}), pa.struct({"a": pa.string()})),
        (pa.struct({"a": pa.int8()}), pa.map_(pa.string(), pa.int8())),
        (pa.decimal256(76, 0), pa.decimal256(76, 10)),
        (pa.time32("s"), pa.duration("s")),
    ],
    ids=str,
)
def test_what_no_type_holds_is_refused(one: pa.DataType, other: pa.DataType) -> None:
    with pytest.raises(ValueError, match="no type holds both"):
        unified_type(one, other)


@pytest.mark.parametrize(
    ("values", "kind", "target", "fits"),
    [
        ([2**53], pa.int64(), pa.float64(), True),
        ([2**53 + 1], pa.int64(), pa.float64(), False),
        ([2**64 - 1], pa.uint64(), pa.int64(), False),
        ([2**63 - 1], pa.uint64(), pa.int64(), True),
        ([2**62], pa.timestamp("ms"), pa.timestamp("us"), False),
        ([10**12], pa.timestamp("ms"), pa.timestamp("us"), True),
        ([1], pa.timestamp("ns"), pa.timestamp("us"), False),
        ([1], pa.time64("ns"), pa.time64("us"), False),
        ([1], pa.duration("ns"), pa.duration("us"), False),
        ([0.1], pa.float64(), pa.float32(), False),
        ([[0.1]], pa.list_(pa.float64()), pa.list_(pa.float32()), False),
        ([2**63], pa.uint64(), pa.decimal128(20, 0), True),
        ([{"a": 2**53 + 1}], pa.struct({"a": pa.int64()}), pa.struct({"a": pa.float64()}), False),
        ([[("k", 1)]], pa.map_(pa.string(), pa.timestamp("ns")), pa.map_(pa.string(), pa.timestamp("us")), False),
    ],
)  # fmt: skip
def test_a_value_arrives_equal_or_not_at_all(values, kind, target, fits) -> None:
    column = pa.array([None, *values], kind)
    assert not is_always_exact(kind, target) or fits
    if fits:
        assert exact_cast(column, target).cast(kind).equals(column)
    else:
        with pytest.raises(ValueError):
            exact_cast(column, target)
        assert exact_cast(column.slice(0, 1), target).null_count == 1


def test_values_below_a_null_do_not_count() -> None:
    """The children of a null struct or list may hold any value."""
    child = pa.array([1, 1000], pa.timestamp("ns"))
    mask = pa.array([True, False])
    struct = pa.StructArray.from_arrays([child], ["a"], mask=mask)
    lists = pa.ListArray.from_arrays(pa.array([0, 1, 2], pa.int32()), child, mask=mask)
    us = pa.timestamp("us")
    assert exact_cast(struct, pa.struct({"a": us})).to_pylist()[0] is None
    assert exact_cast(lists, pa.list_(us)).cast(pa.list_(pa.int64())).to_pylist() == [None, [1]]


def test_structs_are_filled_up_field_by_field() -> None:
    column = pa.array([{"b": "x"}, None], pa.struct({"b": pa.string()}))
    target = pa.struct({"a": pa.int8(), "b": pa.large_string()})
    assert exact_cast(column, target).to_pylist() == [{"a": None, "b": "x"}, None]


def test_nulls_are_stored_as_strings() -> None:
    assert stored_type(pa.null()) == pa.string()
    assert stored_type(pa.list_(pa.null())) == pa.list_(pa.string())
    assert stored_type(pa.struct({"a": pa.null()})) == pa.struct({"a": pa.string()})
    assert stored_type(pa.int8()) == pa.int8()


def test_duplicate_fields_are_found_anywhere() -> None:
    twice = pa.struct([("a", pa.int8()), ("a", pa.int8())])
    assert duplicate_field(twice) == "a"
    assert duplicate_field(pa.list_(pa.map_(pa.string(), pa.struct([("x", twice)])))) == "a"
    assert duplicate_field(pa.struct([("", pa.int8()), ("", pa.int8())])) == ""
    assert duplicate_field(pa.struct([("a", pa.int8()), ("A", pa.int8())])) is None
