"""The interface of a truth: classes for rows, and its problems."""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pyarrow as pa

from beamlabel.pipeline.truth.problem import Problem

Classes = tuple[str, ...]
"""The classes of an image: at least one, sorted and distinct."""
Batches = Callable[[Sequence[str]], Iterator[pa.RecordBatch]]
"""Reads all rows, and failures if any, with those of the named columns that they have."""


def values_of(batch: pa.RecordBatch, name: str) -> list[Any]:
    """A column as a Python list; None values if the batch lacks it, as an older output may."""
    if name not in batch.schema.names:
        return [None] * batch.num_rows
    found: list[Any] = batch.column(name).to_pylist()
    return found


class Truth(abc.ABC):
    """The true classes of images.

    Attributes:
      columns: columns of the output that ``of_batch`` needs.
      multi_label: whether an image may have several classes.
      by: how images are identified: ``uri``, ``ref_id``, ``image_id``, ``column``, ``parent``, or ``several`` of these.
      are_ids: whether classes are whole numbers by the type of their column.
    """

    columns: tuple[str, ...] = ()
    multi_label: bool = False
    by: str = ""
    are_ids: bool = False

    @abc.abstractmethod
    def of_batch(self, batch: pa.RecordBatch) -> list[Classes | None]:
        """The classes of each row; None without a truth.

        Args:
          batch: rows of an output, or failures, with ``columns``.

        Raises:
          UsageError: a value is not a class.
        """

    @abc.abstractmethod
    def problems(self) -> tuple[Problem, ...]:
        """All problems found; call it after all batches."""

    def decided(self, batch: pa.RecordBatch) -> list[Classes | None]:
        """Like ``of_batch``, but ``()`` for a row for which no other truth may count.

        This truth contradicts itself about such a row, or says that its class is unknown.
        """
        return self.of_batch(batch)

    def known_classes(self) -> frozenset[str] | None:
        """All classes that the truth may give; None if only the rows tell."""
        return None

    def unmatched(self) -> int | None:
        """Number of its images without a row; None if the rows themselves hold their classes."""

        return None
