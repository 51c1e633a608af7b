"""Checks the shape of JSON read back from beamlabel's own files, which others may have changed: the types of values.

A shape is a ``Kind``; a list of one shape; a dict of shapes by key, in which ``"key?"`` is optional and other keys are
allowed; or ``each``, ``optional`` or ``all_of`` shapes.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from datetime import datetime
from typing import Any, NamedTuple

_SHOWN_CHARACTERS = 60
# Far more levels than we write, and far fewer than Python's recursion limit.
_LEVELS = 50
# The end of the year 9999, the latest date that can be represented.
_LAST_SECOND = 253_402_300_799


class ShapeError(ValueError):
    """A value has the wrong type; the message states its place."""


class Kind(NamedTuple):
    """A type of values: its name, and a test for values."""

    name: str
    holds: Callable[[Any], bool]


class _Each(NamedTuple):
    shape: Any


class _Optional(NamedTuple):
    shape: Any


class _All(NamedTuple):
    shapes: tuple[Any, ...]


def all_of(*shapes: Any) -> Any:
    """Several shapes that a value has at the same time."""
    return _All(shapes)


def each(shape: Any) -> Any:
    """An object with any keys, whose values have one shape."""
    return _Each(shape)


def optional(shape: Any) -> Any:
    """A shape, or null."""
    return _Optional(shape)


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _is_date(value: Any) -> bool:
    try:
        return datetime.fromisoformat(value).tzinfo is not None
    except (ValueError, TypeError):
        return False


# JSON can spell halves of characters, which no file can hold. Some stand for bytes of file names, see PEP 383.
_HALF = re.compile("[\ud800-\udfff]")
_NO_BYTE = re.compile("[\ud800-\udc7f\udd00-\udfff]")

TEXT = Kind("a text", lambda value: isinstance(value, str) and not _NO_BYTE.search(value))
UTF8 = Kind("a text in UTF-8", lambda value: isinstance(value, str) and not _HALF.search(value))
DIGITS = Kind(
    "digits", lambda value: isinstance(value, str) and re.fullmatch("[0-9]{1,9}", value) is not None
)
FLAG = Kind("true or false", lambda value: isinstance(value, bool))
COUNT = Kind("a whole number from 0", lambda value: type(value) is int and 0 <= value < 1 << 63)
NUMBER = Kind("a number", lambda value: type(value) in (int, float) and -1e300 < value < 1e300)
SECONDS = Kind("seconds since 1970", lambda value: _is_number(value) and 0 <= value <= _LAST_SECOND)
DATE = Kind("a date with its time zone", _is_date)
ENGINES = Kind(
    "engines and precisions",
    lambda value: (
        isinstance(value, str) and re.fullmatch(r"[^\s,]+ [^\s,]+(?:, [^\s,]+ [^\s,]+)*", value) is not None
    ),
)
OBJECT = Kind("an object", lambda value: isinstance(value, dict))
ANYTHING = Kind("anything", lambda _: True)

# A unit's record, see ``UnitRecord.to_json``.
FILE_RECORD = {
    "name": TEXT,
    "kind": TEXT,
    "rows": COUNT,
    "bytes": COUNT,
    "sha256": TEXT,
    "computed_by?": optional(ENGINES),
    "started_at?": optional(SECONDS),
    "finished_at?": optional(SECONDS),
}
UNIT_RECORD = {
    "unit_id": TEXT,
    "ranges": [
        {"input_path": TEXT, "start": COUNT, "stop": COUNT, "last": FLAG, "file_rows?": optional(COUNT)}
    ],
    "input": COUNT,
    "predicted": COUNT,
    "failed": each(COUNT),
    "skipped": COUNT,
    "files": [FILE_RECORD],
    "out_of_time?": FLAG,
    "color_converted?": COUNT,
    "left_out?": each(COUNT),
    "skipped_by_reason?": each(COUNT),
    "relabeled?": COUNT,
}


def parse(data: str | bytes, shape: Any = ANYTHING) -> Any:
    """Parses JSON and checks its shape.

    Raises:
      ShapeError: it is not JSON, or has another shape.
    """
    try:
        value = json.loads(data)
    except RecursionError as error:
        raise ShapeError("it is nested too deeply") from error
    except ValueError as error:
        raise ShapeError(f"it is not JSON: {error}") from error
    if _is_deep(value):
        raise ShapeError("it is nested too deeply")
    check(value, shape)
    return value


def _is_deep(value: Any) -> bool:
    """Whether a value has more levels than ``_LEVELS``."""
    level = [value]
    for _ in range(_LEVELS):
        level = [
            one
            for outer in level
            if isinstance(outer, (dict, list))
            for one in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return False
    return True


def check(value: Any, shape: Any, place: str = "") -> None:
    """Checks a value and everything in it.

    Args:
      value: a result of ``json.loads``.
      shape: see above.
      place: the place of the value, for the message.

    Raises:
      ShapeError: it has another shape.
    """
    if isinstance(shape, Kind):
        if not shape.holds(value):
            raise _wrong(value, shape.name, place)
    elif isinstance(shape, _All):
        for one in shape.shapes:
            check(value, one, place)
    elif isinstance(shape, _Optional):
        if value is not None:
            check(value, shape.shape, place)
    elif isinstance(shape, list):
        if not isinstance(value, list):
            raise _wrong(value, "a list", place)
        for number, one in enumerate(value):
            check(one, shape[0], f"{place}[{number}]")
    elif not isinstance(value, dict):
        raise _wrong(value, "an object", place)
    elif isinstance(shape, _Each):
        for key, one in value.items():
            check(key, UTF8, f"a key of {place}")
            check(one, shape.shape, _within(place, key))
    else:
        for key, inner in shape.items():
            name = key.removesuffix("?")
            if name in value:
                check(value[name], inner, _within(place, name))
            elif name == key:
                raise ShapeError(f"{_within(place, name)} is missing")


def _within(place: str, key: str) -> str:
    return f"{place}.{key[:_SHOWN_CHARACTERS]}" if place else key[:_SHOWN_CHARACTERS]


def _wrong(value: Any, name: str, place: str) -> ShapeError:
    shown = type(value).__name__ if isinstance(value, (dict, list)) else repr(value)[:_SHOWN_CHARACTERS]
    return ShapeError(f"{place or 'it'} is {shown}, but should be {name}")
