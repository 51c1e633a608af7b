"""JSON with one value of a wrong type, as a reader may find it in files from elsewhere."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any

# Includes values that are special in JSON: non-finite numbers and very long text.
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
    """Copies of a value in which one place is replaced or missing, each with a description of the change."""
    for path in places(value):
        for other in values:
            yield f"{path} = {other!r}", replaced(value, path, other)
        if path and isinstance(path[-1], str):
            yield f"without {path}", replaced(value, path)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The places in a value as keys and indices; of a list, only the first and the last item."""
    yield path
    if isinstance(value, dict):
        for key, one in value.items():
            yield from places(one, (*path, key))
    elif isinstance(value, list):
        for number in sorted({0, len(value) - 1}) if value else ():
            yield from places(value[number], (*path, number))


def replaced(value: Any, path: Sequence[Any], *other: Any) -> Any:
    """A copy with a replacement at one place, or without that place if no replacement is given."""
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
