"""JSON with one value of another type: what a reader of files finds that somebody else has written."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any

# Also what JSON has and other languages have not: numbers that are not finite, and text without an end.
VALUES: tuple[Any, ...] = (
    None,
    True,
    7,
    -1,
    10**30,
    1.5,
    float("nan"),
    float("inf"),
    "x",
    "\x1b[2J",
    [],
    [7],
    {},
    {"x": 7},
)


def damaged(value: Any, values: Sequence[Any] = VALUES) -> Iterator[tuple[str, Any]]:
    """Copies of a value, in each of which one place was replaced, or is lacking; and what was done."""
    for path in places(value):
        for other in values:
            yield f"{path} = {other!r}", replaced(value, path, other)
        if path and isinstance(path[-1], str):
            yield f"without {path}", replaced(value, path)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where something stands in a value: keys and numbers; of a list, the first and the last."""
    yield path
    if isinstance(value, dict):
        for key, one in value.items():
            yield from places(one, (*path, key))
    elif isinstance(value, list):
        for number in sorted({0, len(value) - 1}) if value else ():
            yield from places(value[number], (*path, number))


def replaced(value: Any, path: Sequence[Any], *other: Any) -> Any:
    """A copy with something else at a place; with nothing there, if nothing is given."""
    if not path:
        return other[0]
    value = copy.deepcopy(value)
    at = value
    for step in path[:-1]:
        at = at[step]
    if other:
        at[path[-1]] = other[0]
    else:
        del at[path[-1]]
    return value
