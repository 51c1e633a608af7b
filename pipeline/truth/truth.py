"""What a truth is to whoever asks: classes for rows, and what was wrong with it."""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pyarrow as pa

from beamlabel.pipeline.truth.problem import Problem

Classes = tuple[str, ...]
"""The classes of an image, at least one, each once, sorted."""
Batches = Callable[[Sequence[str]], Iterator[pa.RecordBatch]]
"""All rows, and the failures if there are such, with the named columns or those of them that they have."""


def values_of(batch: pa.RecordBatch, name: str) -> list[Any]:
    """A column as Python has it; nulls if the batch lacks it, as one of an older output may."""
    if name not in batch.schema.names:
        return [None] * batch.num_rows
    found: list[Any] = batch.column(name).to_pylist()
    return found


class Truth(abc.ABC):
    """The classes that images really have.

    Attributes:
      columns: of the output, which ``of_batch`` needs.
      multi_label: whether an image may have several classes.
      by: how images are told: ``uri``, ``ref_id``, ``image_id``, ``column``, ``parent``, or ``several`` of these.
      are_ids: whether classes are whole numbers by the type of their column.
    """

    columns: tuple[str, ...] = ()
    multi_label: bool = False
    by: str = ""
    are_ids: bool = False

    @abc.abstractmethod
    def of_batch(self, batch: pa.RecordBatch) -> list[Classes | None]:
        """The classes of each row, None without a truth.

        Args:
          batch: rows of an output, or failures, with ``columns``.

        Raises:
          UsageError: a value is no class.
        """

    @abc.abstractmethod
    def problems(self) -> tuple[Problem, ...]:
        """What was found to be wrong; asked after all batches."""

    def decided(self, batch: pa.RecordBatch) -> list[Classes | None]:
        """As ``of_batch``, but ``()`` for a row of which no other truth counts: this one says two different things of
        it, or that its class is not known.
        """
        return self.of_batch(batch)

    def known_classes(self) -> frozenset[str] | None:
        """All classes that it may give; None if only the rows tell."""
        return None

    def unmatched(self) -> int | None:
        """How many images it has a class of, and no row was of; None if rows themselves tell their classes."""
        return None
