"""A CSV column gets a type only if its text can be restored from the values."""

from __future__ import annotations

import itertools

import pyarrow as pa
import pytest

from beamlabel.transforms.inputs.tables.csv_cells import csv_cells
from beamlabel.transforms.inputs.tables.csv_types import CellTypes

US, UTC = pa.timestamp("us"), pa.timestamp("us", "UTC")

CASES: list[tuple[list[str | None], pa.DataType]] = [
    ([None, None], pa.null()),
    (["1", None, "-7", "0"], pa.int64()),
    (["9223372036854775807", "-9223372036854775808"], pa.int64()),
    (["9223372036854775808"], pa.string()),
    (["00123", "1"], pa.string()),
    (["+1"], pa.string()),
    (["-0"], pa.float64()),
    ([" 1"], pa.string()),
    (["1_000"], pa.string()),
    (["1,5"], pa.string()),
    (["1", "2.5"], pa.float64()),
    (["1.0", "2.5"], pa.float64()),
    (["1", "1.0"], pa.string()),
    (["1.10"], pa.string()),
    ([".5"], pa.string()),
    (["5."], pa.string()),
    (["0.1", repr(1 / 3), "1e-05", "1e+300"], pa.float64()),
    (["1e5"], pa.string()),
    (["1E-05"], pa.string()),
    (["1e-400"], pa.string()),
    (["0.30000000000000004"], pa.float64()),
    (["0.3000000000000000444"], pa.string()),
    (["9007199254740993", "0.5"], pa.string()),
    (["9007199254740992", "0.5"], pa.float64()),
    (["1e999"], pa.string()),
    (["nan"], pa.string()),
    (["inf"], pa.string()),
    (["true", "false"], pa.bool_()),
    (["True", None, "False"], pa.bool_()),
    (["true", "False"], pa.string()),
    (["yes"], pa.string()),
    (["0", "1"], pa.int64()),
    (["NA", "US"], pa.string()),
    (["null"], pa.string()),
    (["NULL", "1"], pa.string()),
    ([""], pa.string()),
    (["", "1"], pa.string()),
    (["2024-02-29"], pa.date32()),
    (["2023-02-29"], pa.string()),
    (["2024-2-9"], pa.string()),
    (["2024-02-29", "2024-02-29T00:00:00"], pa.string()),
    (["2024-02-29T10:00:00"], US),
    (["2024-02-29 10:00:00.123", "0001-01-01 00:00:00.000"], US),
    (["2024-02-29 10:00:00.123", "2024-02-29 10:00:00.12"], pa.string()),
    (["2024-02-29 10:00:00", "2024-02-29T10:00:00"], pa.string()),
    (["2024-02-29T10:00:00Z"], UTC),
    (["2024-02-29T10:00:00Z", "2024-02-29T10:00:00"], pa.string()),
    (["2024-02-29T10:00:00+02:00"], pa.string()),
    (["2024-02-29T10:00:60"], pa.string()),
    (["2024-02-29T10:00:00.1234567"], pa.string()),
    (["2024-02-29T10:00"], pa.string()),
    (["12:00:00"], pa.string()),
    (["1\n"], pa.string()),
    (["\u0661"], pa.string()),
]


@pytest.mark.parametrize(("cells", "kind"), CASES, ids=str)
def test_the_type_is_that_of_all_values_however_they_are_parted(cells, kind):
    for order in itertools.permutations(cells):
        for parts in ([order], [[cell] for cell in order]):
            one, merged = CellTypes(), CellTypes()
            for part in parts:
                one.add(pa.array(part, pa.string()))
                other = CellTypes()
                other.add(pa.array(part, pa.string()))
                merged.merge(other)
            assert one.type() == merged.type() == kind


@pytest.mark.parametrize(
    ("cells", "kind"), [case for case in CASES if not pa.types.is_null(case[1])], ids=str
)
def test_values_of_the_type_tell_the_text(cells, kind):
    values = pa.array(cells, pa.string()).cast(kind).to_pylist()
    for value, cell in zip(values, cells, strict=True):
        if cell is None:
            assert value is None
        elif pa.types.is_timestamp(kind):
            assert value.isoformat()[:19].replace("T", " ") == cell[:19].replace("T", " ")
        elif pa.types.is_floating(kind):
            assert repr(value).removesuffix(".0") == cell.removesuffix(".0")
        else:
            assert str(value).lower() == cell.lower()


def test_cells_are_verbatim():
    raws = [b'\xef\xbb\xbfa,"x ""y""\r\nz",\r\n', b' b , c"d,""\n', b'"","",NA']
    assert [column.to_pylist() for column in csv_cells(raws, 3, [0, 1, 2], ",")] == [
        ["\ufeffa", " b ", ""],
        ['x "y"\r\nz', ' c"d', ""],
        [None, "", "NA"],
    ]
    assert [column.to_pylist() for column in csv_cells(raws, 3, [2, 0], ",")] == [
        [None, "", "NA"],
        ["\ufeffa", " b ", ""],
    ]
    assert [len(column) for column in csv_cells([], 3, [2, 0], ",")] == [0, 0]
    with pytest.raises(ValueError, match="2 records"):
        csv_cells([b'"a\n', b'b"\n'], 1, [0], ",")
