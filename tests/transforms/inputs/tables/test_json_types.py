"""JSON lines have the types of JSON."""

from __future__ import annotations

import pyarrow as pa
import pytest

from beamlabel.transforms.inputs.tables.json_types import JsonTypes
from beamlabel.transforms.rows.types import list_of


def types_of(values):
    """The types of the lines in sequence, and merged from both ends."""
    types, merged = JsonTypes(), JsonTypes()
    for row, value in enumerate(values):
        types.add(value, f"row {row}")
        one = JsonTypes()
        one.add(value, f"row {row}")
        merged.merge(one)
    assert types.may_be_text == merged.may_be_text
    return types, merged


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([None], pa.null()),
        ([True, None], pa.bool_()),
        ([1, -(1 << 63), (1 << 63) - 1], pa.int64()),
        ([(1 << 64) - 1, 0], pa.uint64()),
        ([1, 2.5], pa.float64()),
        ([1 << 53, 2.5], pa.float64()),
        (["2024-01-01T00:00:00Z", "x"], pa.string()),
        ([[], None], list_of(pa.null())),
        ([[1], [2.5, None]], list_of(pa.float64())),
        ([{"a": 1}, {"b": ["x"]}, {"a": 2.5}], pa.struct({"a": pa.float64(), "b": list_of(pa.string())})),
        ([[{"a": {"b": True}}], [{"a": None}]], list_of(pa.struct({"a": pa.struct({"b": pa.bool_()})}))),
    ],
    ids=str,
)
def test_the_type_is_that_of_all_values(values, kind):
    for types in types_of(values):
        assert types.type() == kind
        column = pa.array(values, kind)
        for got, value in zip(column.to_pylist(), values, strict=True):
            if not isinstance(value, (dict, list)):
                assert got == value


@pytest.mark.parametrize(
    "values",
    [
        [1, "1"],
        [True, 1],
        [{"a": 1}, [1]],
        [[1, "x"]],
        [{"a": 1}, {"a": "x"}],
        [1 << 64],
        [1 << 63, -1],
        [(1 << 53) + 1, 0.5],
        [{}],
    ],
    ids=str,
)
def test_what_no_type_holds_is_refused(values):
    for types in types_of(values):
        with pytest.raises(ValueError, match=r"row|hold"):
            types.type()


def test_an_object_used_as_a_map_is_refused():
    types = JsonTypes()
    with pytest.raises(ValueError, match="row 7"):
        types.add({str(number): 1 for number in range(2000)}, "row 7")
