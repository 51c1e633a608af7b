"""The truth in a column of the output, such as a column kept from the input."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from beamlabel.pipeline.errors import UsageError
from beamlabel.pipeline.truth.class_values import check_class_type, classes_of
from beamlabel.pipeline.truth.problem import Examples, Problem
from beamlabel.pipeline.truth.truth import Classes, Truth, values_of


class ColumnTruth(Truth):
    """The classes in a column; a null or an empty text means no class.

    Args:
      name: name of the column.
      kind: its type: text, whole numbers, or lists of these.
      separator: text between several classes.
      multi_label: whether a text may be a JSON list of several classes.

    Raises:
      UsageError: the type cannot hold classes.
    """

    by = "column"

    def __init__(
        self, name: str, kind: pa.DataType, separator: str | None = None, *, multi_label: bool = False
    ) -> None:
        self.columns = (name,)
        self.multi_label = check_class_type(kind, name) or separator is not None or multi_label
        self.are_ids = pa.types.is_integer(kind)
        self._separator = separator
        self._empty = Examples()

    def of_batch(self, batch: pa.RecordBatch) -> list[Classes | None]:
        """See ``Truth``."""
        (name,) = self.columns
        return [self._of(value) for value in values_of(batch, name)]

    def _of(self, value: Any) -> Classes | None:
        try:
            found, _ = classes_of(value, self._separator)
        except ValueError as error:
            raise UsageError(f"--truth {self.columns[0]}: {error}") from error
        if len(found) > 1 and not self.multi_label:
            raise UsageError(
                f"--truth {self.columns[0]}: a row has several classes: {value!r:.80}; use --multi_label with their "
                "separator, such as ';'"
            )
        if not found:
            self._empty.add("null" if value is None else repr(value))
        return found or None

    def problems(self) -> tuple[Problem, ...]:
        """See ``Truth``."""
        return self._empty.problem(f"rows with an empty column {self.columns[0]!r}")
