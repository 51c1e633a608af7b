"""Records of JSON lines, each with its bytes.

``json`` reads them, not ``pyarrow.json``, which turns strings that look like timestamps into timestamps, misses
duplicate names in an object, and fails a whole block for one line.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

from beamlabel.transforms.inputs.text_blocks import MAX_RECORD_BYTES, CutLine, lines_of

# Arrow's files nest types up to 64 levels.
_MOST_DEEP = 50


class JsonRecord(NamedTuple):
    """A line.

    Attributes:
      raw: its bytes; a ``CutLine`` if it has too many.
      value: the object; None for a blank line, or if there is a problem.
      problem: why it is no object, else None.
    """

    raw: bytes
    value: dict[str, Any] | None
    problem: str | None


def json_records(blocks: Iterator[bytes]) -> Iterator[JsonRecord]:
    """The lines of a text, in order, including blank ones."""
    return map(json_record, lines_of(blocks))


def json_record(raw: bytes) -> JsonRecord:
    """The record in a line."""
    if isinstance(raw, CutLine):
        return JsonRecord(
            raw, None, f"the line has {raw.size} bytes, more than the limit of {MAX_RECORD_BYTES}"
        )
    if not raw.strip():
        return JsonRecord(raw, None, None)
    try:
        value = _DECODER.decode(raw.decode().strip())
        if b"\\u" in raw:
            json.dumps(value, ensure_ascii=False).encode()  # fails for half a surrogate pair
    except UnicodeError:
        return JsonRecord(raw, None, "not UTF-8")
    except RecursionError:
        return JsonRecord(raw, None, "nested too deeply")
    except ValueError as error:
        return JsonRecord(raw, None, f"not JSON: {error}"[:200])
    if not isinstance(value, dict):
        return JsonRecord(raw, None, "not a JSON object")
    if raw.count(b"[") + raw.count(b"{") > _MOST_DEEP and _is_deep(value):
        return JsonRecord(raw, None, "nested too deeply")
    return JsonRecord(raw, value, None)


def _is_deep(value: Any) -> bool:
    """Whether lists and objects are nested more than ``_MOST_DEEP`` levels."""
    level = [value]
    for _ in range(_MOST_DEEP):
        inner = (child for one in level for child in (one.values() if isinstance(one, dict) else one))
        level = [child for child in inner if isinstance(child, (dict, list))]
    return bool(level)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen = set[str]()
        for name, _ in pairs:
            if name in seen:
                raise ValueError(f"the name {name!r} appears twice in an object")
            seen.add(name)
    return found


def _float(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError("a number exceeds the range of a double")
    return value


def _constant(text: str) -> float:
    raise ValueError(f"{text} is not a JSON number")


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_float=_float, parse_constant=_constant)
