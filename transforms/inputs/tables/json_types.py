"""The types of JSON lines: one for each place, over all lines."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from beamlabel.transforms.rows.types import list_of

_MAX_FIELDS = 1000
_EXACT_IN_DOUBLE = 1 << 53
_KINDS: dict[type, str] = {
    bool: "a boolean",
    int: "a number",
    float: "a number",
    str: "a string",
    list: "a list",
    dict: "an object",
}


class JsonTypes:
    """The values at one place, seen line by line; nulls and absent values fit every type.

    Attributes:
      kinds: the first place of each kind.
      least, most: of the integers and 0.
      has_floats: whether some numbers are not integers.
      items, fields: the types of the lists' items and the objects' values.
    """

    def __init__(self) -> None:
        self.kinds: dict[str, str] = {}
        self.least, self.most, self.has_floats = 0, 0, False
        self.items: JsonTypes | None = None
        self.fields: dict[str, JsonTypes] = {}

    def add(self, value: Any, place: str) -> None:
        """Adds a value.

        Args:
          value: as ``json`` reads it.
          place: its location, for messages.

        Raises:
          ValueError: it is an object with too many names.
        """
        if value is None:
            return
        self.kinds.setdefault(_KINDS[type(value)], place)
        if isinstance(value, float):
            self.has_floats = True
        elif isinstance(value, int) and not isinstance(value, bool):
            self.least, self.most = min(self.least, value), max(self.most, value)
        elif isinstance(value, list):
            self.items = self.items or JsonTypes()
            for item in value:
                self.items.add(item, place)
        elif isinstance(value, dict):
            for name, one in value.items():
                self._field(name, place).add(one, place)

    def _field(self, name: str, place: str) -> JsonTypes:
        if name not in self.fields and len(self.fields) == _MAX_FIELDS:
            raise ValueError(f"{place}: the objects here have more than {_MAX_FIELDS} different names")
        return self.fields.setdefault(name, JsonTypes())

    def merge(self, other: JsonTypes) -> None:
        """Adds the values of another object."""
        for kind, place in other.kinds.items():
            self.kinds.setdefault(kind, place)
        self.least, self.most = min(self.least, other.least), max(self.most, other.most)
        self.has_floats = self.has_floats or other.has_floats
        if other.items is not None:
            self.items = self.items or JsonTypes()
            self.items.merge(other.items)
        for name, types in other.fields.items():
            self._field(name, next(iter(other.kinds.values()))).merge(types)

    @property
    def may_be_text(self) -> bool:
        """Whether one of the values is a string, or there are none."""
        return not self.kinds or "a string" in self.kinds

    def type(self) -> pa.DataType:
        """The type for all values; null if there are none.

        Raises:
          ValueError: there are values of two kinds, or numbers that no type holds.
        """
        if len(self.kinds) > 1:
            raise ValueError("; ".join(f"{kind} in {place}" for kind, place in self.kinds.items()))
        kind = next(iter(self.kinds), None)
        if kind == "a number":
            return self._number()
        if kind == "a list":
            assert self.items is not None
            return list_of(self.items.type())
        if kind == "an object":
            if not self.fields:
                raise ValueError(f"objects without names, for example in {self.kinds[kind]}")
            return pa.struct([(name, types.type()) for name, types in self.fields.items()])
        return {"a boolean": pa.bool_(), "a string": pa.string()}.get(kind or "", pa.null())

    def _number(self) -> pa.DataType:
        odd = self.most if self.most > -self.least else self.least
        if self.has_floats:
            if abs(odd) > _EXACT_IN_DOUBLE:
                raise ValueError(f"a double cannot hold {odd}, and the column has fractions")
            return pa.float64()
        if self.least >= -(1 << 63) and self.most < 1 << 63:
            return pa.int64()
        if self.least == 0 and self.most < 1 << 64:
            return pa.uint64()
        raise ValueError(f"no integer type holds {odd} and the other values; write it as a string")
