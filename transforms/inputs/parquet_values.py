"""Arrow values as Python values, and the values that a row must not have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from beamlabel.transforms.inputs.archives.samples import MAX_KEPT_BYTES
from beamlabel.transforms.records import Reason
from beamlabel.transforms.rows.types import is_list, is_text

Problem = tuple[Reason, str]
"""Why a row has no readable reference: reason and detail."""


def to_python(values: pa.Array) -> list[Any]:
    """The values; bytes for a string that is not UTF-8."""
    try:
        return values.to_pylist()  # type: ignore[no-any-return]
    except UnicodeDecodeError:
        return [_value(scalar) for scalar in values]


def _value(scalar: Any) -> Any:
    if not scalar.is_valid:
        return None
    kind = scalar.type
    if is_text(kind):
        data = scalar.as_buffer().to_pybytes()
        try:
            return data.decode()
        except UnicodeDecodeError:
            return data
    if pa.types.is_dictionary(kind):
        return _value(scalar.value)
    if is_list(kind):
        return [_value(one) for one in scalar.values]
    if pa.types.is_struct(kind):
        return {name: _value(one) for name, one in scalar.items()}
    return scalar.as_py()


def kept_problems(names: Sequence[str], columns: Sequence[pa.Array]) -> dict[int, Problem]:
    """The rows with kept values that are not UTF-8 or exceed ``MAX_KEPT_BYTES`` together, by place in the columns."""
    found: dict[int, Problem] = {}
    for name, column in zip(names, columns, strict=True):
        if not _is_valid(column):
            detail = f"the column {name!r} is not UTF-8"
            # Not a slice: of a list column, validation checks the values of all rows.
            bad = (place for place in range(len(column)) if not _is_valid(column.take(pa.array([place]))))
            found.update(dict.fromkeys(bad, (Reason.INVALID_ROW, detail)))
    if sum(column.nbytes for column in columns) <= MAX_KEPT_BYTES:
        return found
    for place in range(len(columns[0])):
        size = sum(column.slice(place, 1).nbytes for column in columns)
        if size > MAX_KEPT_BYTES:
            detail = f"the kept values have {size} bytes, more than the limit of {MAX_KEPT_BYTES}"
            found[place] = Reason.TOO_MANY_BYTES, detail
    return found


def _is_valid(values: pa.Array) -> bool:
    try:
        values.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True
