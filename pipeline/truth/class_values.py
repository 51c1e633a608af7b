"""Parses a value of a file or a column into classes."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa

from beamlabel.pipeline.errors import UsageError
from beamlabel.transforms.rows.types import is_list, is_text

# A cell with more classes than this for one image is taken for an error.
MAX_CLASSES = 1000


def check_class_type(kind: pa.DataType, column: str) -> bool:
    """Refuses a column without classes; returns whether it holds lists of classes.

    Raises:
      UsageError: the column holds neither text nor whole numbers, nor lists of these.
    """
    several = is_list(kind)
    value = kind.value_type if several else kind
    value = value.value_type if pa.types.is_dictionary(value) else value
    if not (is_text(value) or pa.types.is_integer(value)):
        raise UsageError(f"--truth: column {column!r} is {kind}, neither names nor whole numbers")
    return several


def classes_of(value: Any, separator: str | None) -> tuple[tuple[str, ...], bool]:
    """The classes in a value, empty for an empty value, and whether it is a list of classes.

    Args:
      value: text, a whole number, or a list of these; None. Text may be a JSON list: ``["cat", "dog"]``.
      separator: text between several classes.

    Raises:
      ValueError: it is something else.
    """
    if isinstance(value, str):
        if value.startswith("[") and (found := _json_list(value)) is not None:
            return _several(found), True
        if separator is not None:
            return _several([part.strip() for part in value.split(separator)]), True
        return ((value,) if value.strip() else ()), False
    if isinstance(value, (list, tuple)):
        return _several(value), True
    return ((_text(value),) if value is not None else ()), False


def _several(values: Any) -> tuple[str, ...]:
    texts = {_text(value) for value in values if value is not None}
    found = tuple(sorted(text for text in texts if text.strip()))
    if len(found) > MAX_CLASSES:
        raise ValueError(f"{len(found)} classes for one image are too many")
    return found


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise ValueError(f"{str(value)[:80]!r} is not a class: it is neither text nor a whole number")


def _json_list(text: str) -> list[Any] | None:
    """The list, if the text is a JSON list of strings or whole numbers."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    is_plain = isinstance(found, list) and all(type(one) in (str, int) for one in found)
    return found if is_plain else None
