"""Removes credentials from Arrow columns."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from beamlabel.transforms.secrets.text import public_uri

# Matches every value that may hold a credential; others are not processed in Python.
_MAY_HOLD = r"://|:\\/|@|%3[aA]|^//|^www\."


def public_column(column: pa.Array) -> pa.Array:
    """Applies ``public_uri`` to each text of the column, also in lists, structs and maps.

    A column without credentials is returned unchanged.
    """
    kind = column.type
    if pt.is_string(kind) or pt.is_large_string(kind):
        return _public_texts(column)
    if not _holds_text(kind):
        return column
    if pt.is_dictionary(kind):
        words = public_column(column.dictionary)
        return column if words is column.dictionary else pa.DictionaryArray.from_arrays(column.indices, words)
    found = column.to_pylist()
    public = [_public(value) for value in found]
    return column if public == found else pa.array(public, kind)


def _holds_text(kind: pa.DataType) -> bool:
    if pt.is_dictionary(kind):
        return _holds_text(kind.value_type)
    if kind.num_fields:
        return any(_holds_text(kind.field(place).type) for place in range(kind.num_fields))
    return bool(pt.is_string(kind) or pt.is_large_string(kind))


def _public_texts(column: pa.Array) -> pa.Array:
    maybe = pc.fill_null(pc.match_substring_regex(column, _MAY_HOLD), False)
    if not pc.any(maybe).as_py():
        return column
    found = column.to_pylist()
    public = [None if text is None else public_uri(text) for text in found]
    return column if public == found else pa.array(public, column.type)


def _public(value: object) -> object:
    if isinstance(value, str):
        return public_uri(value)
    if isinstance(value, (list, tuple)):
        return type(value)(map(_public, value))
    return {name: _public(one) for name, one in value.items()} if isinstance(value, dict) else value
