"""Kept columns hold no credentials; columns without any come back unchanged."""

from __future__ import annotations

import pyarrow as pa
import pytest

from beamlabel.transforms.rows.public_columns import public_column

URL, PUBLIC = "https://user:pw@host.org/a.jpg?w=1&token=x", "https://host.org/a.jpg?w=1"


@pytest.mark.parametrize(
    ("values", "kind", "public"),
    [
        ([URL, None, "a"], pa.string(), [PUBLIC, None, "a"]),
        ([f"see {URL}"], pa.large_string(), [f"see {PUBLIC}"]),
        (["user:pw@host.org", "//u:p@host.org/x"], pa.string(), ["host.org", "//host.org/x"]),
        (["https:\\/\\/u:p@h"], pa.string(), ["https:\\/\\/h"]),
        ([[URL, "a"], None, []], pa.list_(pa.string()), [[PUBLIC, "a"], None, []]),
        ([{"a": URL, "b": 1}, None], pa.struct({"a": pa.string(), "b": pa.int8()}), [{"a": PUBLIC, "b": 1}, None]),
        ([[(URL, [URL])]], pa.map_(pa.string(), pa.list_(pa.string())), [[(PUBLIC, [PUBLIC])]]),
    ],
)  # fmt: skip
def test_credentials_go_out_of_texts(values: list, kind: pa.DataType, public: list) -> None:
    found = public_column(pa.array(values, kind))
    assert found.type == kind
    assert found.to_pylist() == public


def test_dictionaries() -> None:
    column = pa.array([URL, "a", URL]).dictionary_encode()
    assert public_column(column).to_pylist() == [PUBLIC, "a", PUBLIC]
    plain = pa.array(["a", "b"]).dictionary_encode()
    assert public_column(plain) is plain


@pytest.mark.parametrize(
    "column",
    [
        pa.array(["a@b", "https://host/a?w=1", None, "gs://b/a@b:c"]),
        pa.array([1, 2]),
        pa.array([b"https://u:p@h"]),
        pa.array([["a"], None]),
        pa.array([], pa.string()),
        pa.array([None], pa.null()),
    ],
)
def test_what_holds_none_is_the_same_array(column: pa.Array) -> None:
    assert public_column(column) is column
