"""Kept columns of Parquet inputs: their names, their types, and their unchanged values."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from beamlabel.transforms.inputs.class_labels import class_features, named, named_type
from beamlabel.transforms.inputs.hive_directories import directory_values
from beamlabel.transforms.rows.exact_cast import exact_cast, is_always_exact
from beamlabel.transforms.rows.types import duplicate_field, normalized_type

_ID = ":id"


@dataclass(frozen=True)
class KeptColumn:
    """One kept column.

    Attributes:
      source: its name in the input.
      name: its name in the output.
      type: of the output.
      as_ids: whether classes of Hugging Face's metadata stay numbers.
    """

    source: str
    name: str
    type: pa.DataType
    as_ids: bool = False


def parse_kept(text: str, names: Sequence[str]) -> tuple[str, str, bool] | None:
    """Parses a value of ``--keep_columns``: source, name in the output, and whether classes stay numbers.

    The forms are ``SOURCE``, ``SOURCE=NAME``, ``SOURCE:id`` and ``SOURCE:id=NAME``. A column may have ``=`` or ``:id``
    in its own name: the longest existing source is used.

    Returns:
      None if there is no such column.
    """
    places = [place for place, character in enumerate(text) if character == "="]
    for source, name in ((text, None), *((text[:place], text[place + 1 :]) for place in reversed(places))):
        if source in names:
            return source, source if name is None else name, False
        column = source.removesuffix(_ID)
        if column != source and column in names:
            return column, column if name is None else name, True
    return None


def sources_of(text: str) -> list[str]:
    """The columns that a value of ``--keep_columns`` may mean, see ``parse_kept``."""
    places = [place for place, character in enumerate(text) if character == "="]
    sources = [text, *(text[:place] for place in reversed(places))]
    return [one for source in sources for one in dict.fromkeys((source, source.removesuffix(_ID)))]


def kept_column(text: str, schema: pa.Schema, path: str) -> KeptColumn:
    """The column named by ``--keep_columns``, with the type in which this file alone would be stored.

    Raises:
      ValueError: there is no such column, or two; or it has no name in the output.
    """
    option = f"--keep_columns {text!r}"
    directories = [name for name in directory_values(path) if name not in schema.names]
    parsed = parse_kept(text, [*schema.names, *directories])
    several = text.split(",")
    is_renamed = parsed is None or parsed[0] != parsed[1]
    # Otherwise the rest of the list would become a part of the new name.
    if is_renamed and len(several) > 1 and all(parse_kept(one.strip(), schema.names) for one in several):
        raise ValueError(f"{option}: separate columns with blanks: --keep_columns {' '.join(several)}")
    if parsed is None:
        there = ", ".join([*(f"{field.name} ({field.type})" for field in schema), *directories])
        raise ValueError(f"{option}: no such column in {path}; columns: {there}")
    source, name, as_ids = parsed
    if source not in directories:
        check_once(option, source, schema, path)
    if not name:
        raise ValueError(f"{option}: give the column a name in the output: --keep_columns {source}=NAME")
    kind = pa.string() if source in directories else schema.field(source).type
    feature = class_features(schema).get(source)
    with_names = named_type(kind, feature)
    if as_ids and with_names == kind:
        raise ValueError(f"{option}: {source!r} has no names of classes in {path}; omit {_ID}")
    return KeptColumn(source, name, normalized_type(kind if as_ids else with_names), as_ids)


def check_once(option: str, name: str, schema: pa.Schema, path: str) -> None:
    """Refuses a column with an ambiguous name.

    Raises:
      ValueError: the file has two columns of this name, or the column two fields of one name.
    """
    if (count := schema.names.count(name)) != 1:
        raise ValueError(f"{option}: {path} has {count} columns named {name!r}; rename all but one")
    if (field := duplicate_field(schema.field(name).type)) is not None:
        raise ValueError(
            f"{option}: the column {name!r} of {path} has two fields named {field!r}; rename one"
        )


class KeptReader:
    """Casts the kept columns of one file.

    Args:
      schema: of the file.
      columns: the kept columns.
      path: of the file, for messages.
    """

    def __init__(self, schema: pa.Schema, columns: Sequence[KeptColumn], path: str) -> None:
        features = class_features(schema) if columns else {}
        self._columns = [(each, None if each.as_ids else features.get(each.source)) for each in columns]
        self._path = path
        self._names = frozenset(schema.names)
        self._directories = directory_values(path) if columns else {}

    def read(self, batch: pa.RecordBatch, row: int) -> Iterator[pa.Array]:
        """The columns of a batch, in the types of the output.

        Args:
          batch: has at least the sources of the columns from the file; those from directories' names are not needed.
          row: of the batch's first row in the file.

        Raises:
          ValueError: names the column, its type, the file, and the first row whose value does not fit.
        """
        for column, feature in self._columns:
            if column.source not in self._names:
                text = pa.scalar(self._directories.get(column.source), pa.string())
                yield pa.repeat(text, batch.num_rows).cast(column.type)
                continue
            values = batch.column(column.source)
            try:
                yield _cast(values, feature, column.type)
            except (ValueError, pa.ArrowException) as error:
                raise ValueError(self._message(column, feature, values, row, error)) from error

    def _message(self, column: KeptColumn, feature: Any, values: pa.Array, row: int, error: Exception) -> str:
        for place in range(len(values)):
            try:
                _cast(values.slice(place, 1), feature, column.type)
            except (ValueError, pa.ArrowException) as first:
                row, error = row + place, first
                break
        return (
            f"{self._path}: column {column.source!r} has the type {values.type}, and the value in row {row} cannot be "
            f"kept as {column.type}: {error}; change the column, or leave it out of --keep_columns"
        )


def _cast(values: pa.Array, feature: Any, target: pa.DataType) -> pa.Array:
    return exact_cast(values if feature is None else named(values, feature), target)


def is_always_kept(column: KeptColumn, schema: pa.Schema) -> bool:
    """Whether every value of the column fits, so that its values need no check before the run."""
    if column.source not in schema.names:
        return True  # from a directory's name, which is a string
    kind = schema.field(column.source).type
    if not column.as_ids and named_type(kind, class_features(schema).get(column.source)) != kind:
        return False
    return is_always_exact(kind, column.type)


def directory_columns(path: str, columns: Sequence[KeptColumn]) -> tuple[pa.Array, ...]:
    """The kept columns of an input without columns of its own, each an array of length one.

    Args:
      path: of the input file or of a listed image; a value is null if no directory has the name.
      columns: the kept columns.
    """
    if not columns:
        return ()
    values = directory_values(path)
    return tuple(pa.array([values.get(column.source)], column.type) for column in columns)
