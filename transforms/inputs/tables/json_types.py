"""The type of a value in JSON lines: that of JSON, in all lines."""

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
    """Which values a place has, seen line by line; nulls and absent ones fit every type.

    Attributes:
      kinds: where each kind was seen first.
      least, most: of the integers and 0.
      has_floats: whether there are numbers that are no integers.
      items, fields: of the lists' items and the objects' values.
    """

    def __init__(self) -> None:
        self.kinds: dict[str, str] = {}
        self.least, self.most, self.has_floats = 0, 0, False
        self.items: JsonTypes | None = None
        self.fields: dict[str, JsonTypes] = {}

    def add(self, value: Any, place: str) -> None:
        """Takes note of a value.

        Args:
          value: as ``json`` reads it.
          place: where it is, for messages.

        Raises:
          ValueError: it is an object of too many names.
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
            raise ValueError(f"{place}: objects there have more than {_MAX_FIELDS} different names")
        return self.fields.setdefault(name, JsonTypes())

    def merge(self, other: JsonTypes) -> None:
        """Takes note of what another has seen."""
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
        """Whether there is a string among the values, or none that is something else."""
        return not self.kinds or "a string" in self.kinds

    def type(self) -> pa.DataType:
        """The type for all values: null if there is none.

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
                raise ValueError(f"objects without names, such as in {self.kinds[kind]}")
            return pa.struct([(name, types.type()) for name, types in self.fields.items()])
        return {"a boolean": pa.bool_(), "a string": pa.string()}.get(kind or "", pa.null())

    def _number(self) -> pa.DataType:
        odd = self.most if self.most > -self.least else self.least
        if self.has_floats:
            if abs(odd) > _EXACT_IN_DOUBLE:
                raise ValueError(f"{odd} beside numbers with fractions, which are doubles and cannot hold it")
            return pa.float64()
        if self.least >= -(1 << 63) and self.most < 1 << 63:
            return pa.int64()
        if self.least == 0 and self.most < 1 << 64:
            return pa.uint64()
        raise ValueError(f"{odd}, which no integer type holds together with the others; write it as a string")
