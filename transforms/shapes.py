"""The shape of JSON that is read back from a file of ours: each value has its type, whoever wrote it.

A shape is a ``Kind``; a list of one shape; a dict of shapes by key, in which ``"key?"`` need not be there and keys that
it does not name may be; or ``each`` or ``optional`` of a shape.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from datetime import datetime
from typing import Any, NamedTuple

_SHOWN_CHARACTERS = 60
# The end of the year 9999, behind which no date can be told.
_LAST_SECOND = 253_402_300_799


class ShapeError(ValueError):
    """A value is not of the type that it should be; the message says where it is."""


class Kind(NamedTuple):
    """A type of values: what it is called, and whether a value is one."""

    name: str
    holds: Callable[[Any], bool]


class _Each(NamedTuple):
    shape: Any


class _Optional(NamedTuple):
    shape: Any


def each(shape: Any) -> Any:
    """An object of any keys, whose values have a shape."""
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


TEXT = Kind("a text", lambda value: isinstance(value, str))
FLAG = Kind("true or false", lambda value: isinstance(value, bool))
COUNT = Kind("a whole number from 0", lambda value: type(value) is int and 0 <= value < 1 << 63)
NUMBER = Kind("a number", lambda value: type(value) in (int, float) and -1e300 < value < 1e300)
SECONDS = Kind("seconds since 1970", lambda value: _is_number(value) and 0 <= value <= _LAST_SECOND)
DATE = Kind("a date with its time zone", _is_date)
OBJECT = Kind("an object", lambda value: isinstance(value, dict))
ANYTHING = Kind("anything", lambda _: True)

# A unit's record, see ``UnitRecord.to_json``.
FILE_RECORD = {
    "name": TEXT,
    "kind": TEXT,
    "rows": COUNT,
    "bytes": COUNT,
    "sha256": TEXT,
    "computed_by?": optional(TEXT),
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
    """JSON of a shape.

    Raises:
      ShapeError: it is none, or of another.
    """
    try:
        value = json.loads(data)
    except RecursionError as error:
        raise ShapeError("it is nested too deeply") from error
    except ValueError as error:
        raise ShapeError(f"it is no JSON: {error}") from error
    check(value, shape)
    return value


def check(value: Any, shape: Any, place: str = "") -> None:
    """Checks a value and all that is in it.

    Args:
      value: as ``json.loads`` gave it.
      shape: see above.
      place: where the value is, for the message.

    Raises:
      ShapeError: it is of another shape.
    """
    if isinstance(shape, Kind):
        if not shape.holds(value):
            raise _wrong(value, shape.name, place)
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
            check(one, shape.shape, _within(place, key))
    else:
        for key, inner in shape.items():
            name = key.removesuffix("?")
            if name in value:
                check(value[name], inner, _within(place, name))
            elif name == key:
                raise ShapeError(f"{_within(place, name)} is not there")


def _within(place: str, key: str) -> str:
    return f"{place}.{key[:_SHOWN_CHARACTERS]}" if place else key[:_SHOWN_CHARACTERS]


def _wrong(value: Any, name: str, place: str) -> ShapeError:
    shown = type(value).__name__ if isinstance(value, (dict, list)) else repr(value)[:_SHOWN_CHARACTERS]
    return ShapeError(f"{place or 'it'} is {shown}, and should be {name}")
