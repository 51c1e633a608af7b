"""WebDataset's samples: consecutive members with the same key, and their kept columns.

The key is a member's path up to the first dot of its name; the rest, in lower case, is its extension. See
https://github.com/webdataset/webdataset (``base_plus_ext`` and ``group_by_keys``).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import pyarrow as pa

from beamlabel.transforms.inputs.archives.entries import ArchiveError, Broken, Entry
from beamlabel.transforms.records import Reason

KEY = "__key__"
MAX_KEPT_BYTES = 1 << 20
"""The largest kept member: it travels with its reference."""

_SPLIT = re.compile(r"((?:.*/)?[^./][^./]*)\.([^/]*)", re.DOTALL)
_MAX_SAMPLE = 1000
# The extensions that WebDataset decodes as integers.
_INTEGERS = frozenset(("cls", "cls2", "class", "count", "index", "inx", "id"))
# Not 007, nor +7: an integer would lose their text.
_INTEGER = re.compile(r"\s*(?:0|-?[1-9]\d{0,18})\s*", re.ASCII)
_INT64 = 1 << 63

T = TypeVar("T")
Value = Any
"""A value of a kept column: None, bool, int, float or str."""


def key_and_extension(name: str) -> tuple[str, str] | None:
    """A member's key and extension; None if it belongs to no sample."""
    match = _SPLIT.fullmatch(name)
    return None if match is None else (match[1], match[2].lower())


@dataclass(frozen=True)
class KeptMember:
    """A value of ``--keep_columns``: ``EXTENSION``, ``json.FIELD`` or ``__key__``, each with an optional ``=NAME``.

    Attributes:
      source: as written, without the name.
      name: of the column in the output.
      extension: of its member; ``__key__`` for the key.
      field: of its JSON; None for the whole member.
    """

    source: str
    name: str
    extension: str
    field: str | None

    @classmethod
    def parse(cls, text: str) -> KeptMember:
        """Parses ``SOURCE`` or ``SOURCE=NAME``.

        Raises:
          ValueError: one of the two is empty.
        """
        source, equals, name = text.partition("=")
        name = name if equals else source
        parts = source.split(".")
        if not source or not name or "" in parts:
            raise ValueError(
                f"--keep_columns {text!r}: for archives, use an extension such as cls, or json.FIELD, with an "
                "optional =NAME"
            )
        lower = [part.lower() for part in parts]
        if "json" in lower[:-1]:
            place = lower.index("json") + 1
            return cls(source, name, ".".join(lower[:place]), ".".join(parts[place:]))
        return cls(source, name, source if source == KEY else source.lower(), None)


@dataclass(frozen=True)
class LookedAt(Generic[T]):
    """A member that may belong to a sample.

    Attributes:
      entry: the member.
      kept: its bytes if they are kept, or why they are unreadable.
      rest: further data on it.
    """

    entry: Entry | Broken
    kept: bytes | ArchiveError | None
    rest: T


def in_samples(members: Iterable[LookedAt[T]], *, grouped: bool) -> Iterator[list[LookedAt[T]]]:
    """The members of each sample if they are ``grouped``, else each member alone.

    Raises:
      ValueError: a sample has too many members.
    """
    group: list[LookedAt[T]] = []
    key: str | None = None
    for member in members:
        split = _split(member.entry) if grouped else None
        if group and (split is None or split[0] != key):
            yield group
            group = []
        key = split[0] if split else None
        group.append(member)
        if len(group) > _MAX_SAMPLE:
            raise ValueError(f"--keep_columns: more than {_MAX_SAMPLE} members belong to the sample {key!r}")
    if group:
        yield group


def _split(entry: Entry | Broken) -> tuple[str, str] | None:
    if isinstance(entry, Broken) or entry.is_directory:
        return None
    return key_and_extension(entry.name)


def kept_bytes(
    entry: Entry, columns: Iterable[KeptMember], read: Callable[[Entry], bytes]
) -> bytes | ArchiveError | None:
    """The bytes of a kept member, or why they are unreadable; None for other members."""
    split = _split(entry)
    if split is None or all(column.extension != split[1] for column in columns):
        return None
    try:
        if entry.problem is not None:
            raise ArchiveError(*entry.problem)
        if entry.size > MAX_KEPT_BYTES:
            detail = f"the kept member has {entry.size} bytes, more than the limit of {MAX_KEPT_BYTES}"
            raise ArchiveError(Reason.TOO_MANY_BYTES, detail)
        data = read(entry)
        if len(data) < entry.size:
            raise ArchiveError(Reason.TRUNCATED, "the archive ends within it")
    except ArchiveError as error:
        reason, detail = error.problem
        return ArchiveError(reason, f"{entry.name}: {detail}")
    return data


def kept_values(group: Sequence[LookedAt[T]], columns: Sequence[KeptMember]) -> list[Value]:
    """The value of each column for a sample; None if the sample lacks the member or the field.

    Members are text. In JSON, objects and lists become JSON text; other values stay as they are.

    Raises:
      ArchiveError: a member is duplicate, unreadable, too large, not UTF-8, or not JSON.
    """
    found: dict[str, str] = {}
    for member in group:
        split = _split(member.entry)
        if split is None or isinstance(member.entry, Broken):
            continue
        if any(column.extension == KEY for column in columns):
            found[KEY] = _text(member.entry, split[0].encode("utf-8", "surrogateescape"))
        if isinstance(member.kept, ArchiveError):
            raise member.kept
        if member.kept is not None:
            if split[1] in found:
                raise ArchiveError(
                    Reason.CORRUPT, f"the sample has two members with the extension {split[1]!r}"
                )
            found[split[1]] = _text(member.entry, member.kept)
    parsed: dict[str, Any] = {}
    return [_value(column, found, parsed) for column in columns]


def _text(entry: Entry, data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise ArchiveError(Reason.CORRUPT, f"{entry.name}: not UTF-8: {error}") from error


def _value(column: KeptMember, found: Mapping[str, str], parsed: dict[str, Any]) -> Value:
    text = found.get(column.extension)
    if text is None or column.field is None:
        return text
    if column.extension not in parsed:
        parsed[column.extension] = _json(column.extension, text)
    value = _field(parsed[column.extension], column.field)
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise ArchiveError(Reason.CORRUPT, f"{column.source}: {error}") from error
    return json.dumps(value, ensure_ascii=False) if isinstance(value, (dict, list)) else value


def _json(extension: str, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ArchiveError(Reason.CORRUPT, f"the sample's {extension} is not JSON: {error}") from error


def _field(value: Any, path: str) -> Any:
    """A field of an object: with this name, including dots, or in nested objects."""
    if not isinstance(value, dict):
        return None
    if path in value:
        return value[path]
    first, dot, rest = path.partition(".")
    return _field(value.get(first), rest) if dot else None


@dataclass
class SeenValues:
    """The kinds of values of a column, which decide its type in all archives.

    Attributes:
      column: the kept column.
      kinds: each with its first place.
      problem: why no type holds all values, and where.
    """

    column: KeptMember
    kinds: dict[str, str] = field(default_factory=dict)
    problem: str | None = None

    def add(self, value: Value, place: str, output_format: str) -> None:
        """Adds a value."""
        kind = self._kind(value)
        self.kinds.setdefault(kind, place)
        if kind == "integer" and self.column.field is not None:
            if not -_INT64 <= value < _INT64:
                self.problem = self.problem or f"{value} in {place} exceeds 64 bits"
            elif int(float(value)) != value:
                self.kinds.setdefault("large integer", place)
        if kind == "number" and output_format == "tfrecord":
            short = (
                pa.scalar(value, pa.float32()).as_py()
                if abs(value) < 3e38 or not math.isfinite(value)
                else None
            )
            if short != value and not math.isnan(value):
                self.problem = self.problem or f"the floats of TFRecords cannot hold {value} in {place}"

    def merge(self, other: SeenValues) -> None:
        """Adds the values of another archive."""
        for kind, place in other.kinds.items():
            self.kinds.setdefault(kind, place)
        self.problem = self.problem or other.problem

    def type(self) -> pa.DataType:
        """The type that holds all values.

        Raises:
          ValueError: there is none.
        """
        if self.problem is not None:
            raise ValueError(f"--keep_columns {self.column.source!r}: {self.problem}")
        kinds = set(self.kinds) - {"null"}
        if self.column.field is None:
            return pa.int64() if kinds == {"integer"} else pa.string()
        if kinds <= {"integer", "large integer"} and kinds:
            return pa.int64()
        if kinds <= {"integer", "number"} and kinds:
            return pa.float64()
        if len(kinds) > 1:
            there = ", ".join(f"{kind} in {self.kinds[kind]}" for kind in sorted(kinds))
            raise ValueError(
                f"--keep_columns {self.column.source!r}: its values are of different kinds: {there}"
            )
        return pa.bool_() if kinds == {"boolean"} else pa.string()

    def _kind(self, value: Value) -> str:
        if value is None:
            return "null"
        if self.column.field is None:
            is_integer = self.column.extension.rpartition(".")[2] in _INTEGERS and _INTEGER.fullmatch(value)
            return "integer" if is_integer and -_INT64 <= int(value) < _INT64 else "text"
        kinds = {bool: "boolean", int: "integer", float: "number", str: "text"}
        return kinds[type(value)]


def stored_value(value: Value, kind: pa.DataType) -> Value:
    """A value in the form of its column's type: the text of an integer becomes an integer."""
    return int(value) if isinstance(value, str) and pa.types.is_integer(kind) else value
