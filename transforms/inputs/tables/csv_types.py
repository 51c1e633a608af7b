"""The type of a CSV column: one that preserves the text of each cell, else string."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal

import pyarrow as pa
import pyarrow.compute as pc

# Decimal digits that a double always preserves.
_SAFE_DIGITS = 15
_SPELLINGS = (("true", "false"), ("True", "False"), ("TRUE", "FALSE"))
_INTEGER = r"^(0|-?[1-9][0-9]*)$"
_DOUBLE = r"^-?(0|[1-9][0-9]*)(\.[0-9]*[1-9]|\.0)?(e[+-]?[0-9]+)?$"
_DATE = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$"
_TIMESTAMP = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?Z?$"
_UTC = pa.timestamp("us", "UTC")
_LOCAL = pa.timestamp("us")

# A form is a way to write values: a column with two forms would lose which cell had which.
_Forms = frozenset[str]


class CellTypes:
    """The types that fit the cells of a column, seen block by block.

    Attributes:
      fits: the forms of the cells for each fitting type; None until there is a value.
    """

    def __init__(self) -> None:
        self.fits: dict[str, _Forms] | None = None

    def add(self, cells: pa.Array) -> None:
        """Adds cells: strings; nulls fit every type."""
        values = cells.drop_null()
        if not len(values) or self.fits == {}:
            return
        found: dict[str, _Forms] = {}
        for kind in _TESTS if self.fits is None else self.fits:
            forms = _TESTS[kind](values)
            if forms is not None and len(forms) <= 1:
                found[kind] = forms
        self._merge(found)

    def merge(self, other: CellTypes) -> None:
        """Adds the cells of another object."""
        if other.fits is not None:
            self._merge(other.fits)

    def _merge(self, found: dict[str, _Forms]) -> None:
        if self.fits is None:
            self.fits = found
            return
        both = {kind: self.fits[kind] | forms for kind, forms in found.items() if kind in self.fits}
        self.fits = {kind: forms for kind, forms in both.items() if len(forms) <= 1}

    def type(self) -> pa.DataType:
        """The type for all cells; null if there is no value."""
        if self.fits is None:
            return pa.null()
        kind = next(iter(kind for kind in _TESTS if kind in self.fits), None)
        if kind == "timestamp":
            return _UTC if next(iter(self.fits[kind])).endswith("Z") else _LOCAL
        return {"bool": pa.bool_(), "int64": pa.int64(), "double": pa.float64(), "date": pa.date32()}.get(
            kind or "", pa.string()
        )


def _matches(values: pa.Array, pattern: str) -> bool:
    return bool(pc.all(pc.match_substring_regex(values, pattern)).as_py())


def _casts(values: pa.Array, kind: pa.DataType) -> bool:
    try:
        values.cast(kind)
    except pa.ArrowInvalid:
        return False
    return True


def _bool(values: pa.Array) -> _Forms | None:
    there = set(pc.unique(values.slice(0, 3)).to_pylist())
    for spelling in _SPELLINGS:
        if there <= set(spelling) and pc.all(pc.is_in(values, pa.array(spelling, values.type))).as_py():
            return frozenset([spelling[0]])
    return None


def _int64(values: pa.Array) -> _Forms | None:
    return frozenset() if _matches(values, _INTEGER) and _casts(values, pa.int64()) else None


def _double(values: pa.Array) -> _Forms | None:
    if not _matches(values, _DOUBLE):
        return None
    digits = pc.utf8_length(pc.replace_substring_regex(values, r"[-.]", ""))
    scientific = pc.match_substring(values, "e")
    doubtful = values.filter(pc.or_(pc.greater(digits, _SAFE_DIGITS), scientific)).to_pylist()
    for text in doubtful:
        written = repr(float(text))
        if written != text if "e" in text else Decimal(written) != Decimal(text):
            return None
    whole = {"1.0": pc.ends_with(values, ".0"), "1": pc.invert(pc.match_substring_regex(values, r"[.e]"))}
    return frozenset(form for form, are in whole.items() if pc.any(are).as_py())


def _date(values: pa.Array) -> _Forms | None:
    return frozenset() if _matches(values, _DATE) and _casts(values, pa.date32()) else None


def _timestamp(values: pa.Array) -> _Forms | None:
    if not _matches(values, _TIMESTAMP):
        return None
    forms = frozenset(pc.unique(pc.replace_substring_regex(values, "[0-9]", "0")).to_pylist())
    is_utc = all(form.endswith("Z") for form in forms)
    return forms if len(forms) == 1 and _casts(values, _UTC if is_utc else _LOCAL) else None


# In order of preference.
_TESTS: dict[str, Callable[[pa.Array], _Forms | None]] = {
    "bool": _bool,
    "int64": _int64,
    "double": _double,
    "date": _date,
    "timestamp": _timestamp,
}
