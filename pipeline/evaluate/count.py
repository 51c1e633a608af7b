"""Counts rows by label and truth."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from beamlabel.pipeline.truth.truth import Classes

TOP = 5
_CONFUSIONS = 5


@dataclass
class TruthCounts:
    """Counts of rows by label and truth.

    Attributes:
      rows, evaluated: rows of the result, and those with a truth.
      correct, correct_top: evaluated rows whose best class is right, and those with a right class among the best
        ``TOP``.
      kept: largest number of classes in a row.
      failed: failed images with a truth; for a truth in a column, all failed images, since no row holds theirs.
      failed_without_truth: other failed images.
      support: images of each true class; an image of several classes counts for each.
      predicted: images by best class.
      right: images by best class, if it is right.
      confused: numbers of images of a true class (first) that were predicted as a wrong class (second).
      seen: all classes in any evaluated row.
      names: names of the classes, if classes are numbers with names.
    """

    rows: int = 0
    evaluated: int = 0
    correct: int = 0
    correct_top: int = 0
    kept: int = 0
    failed: int = 0
    failed_without_truth: int = 0
    support: Counter[str] = field(default_factory=Counter)
    predicted: Counter[str] = field(default_factory=Counter)
    right: Counter[str] = field(default_factory=Counter)
    confused: Counter[tuple[str, str]] = field(default_factory=Counter)
    seen: set[str] = field(default_factory=set)
    names: dict[str, str] = field(default_factory=dict)

    def add(self, truth: Sequence[Classes], predicted: pa.Array, names: pa.Array | None) -> list[bool]:
        """Counts rows that have a truth; returns whether the best class of each is right.

        Args:
          truth: the classes of each row.
          predicted: list[N], the classes in each row, best first.
          names: list[N], their names, if they are numbers with names.
        """
        classes = pc.cast(predicted.flatten(), pa.string())
        best = pc.list_slice(predicted, 0, TOP).to_pylist()
        self.evaluated += len(truth)
        self.kept = max(self.kept, pc.max(predicted.value_lengths()).as_py() or 0)
        self.seen.update(pc.unique(classes).to_pylist())
        are_right = [
            self._add_one(one, [str(name) for name in top]) for one, top in zip(truth, best, strict=True)
        ]
        if names is not None:
            for number, name in _distinct(classes, names.flatten()):
                self.names[number] = name
        return are_right

    def _add_one(self, truth: Classes, top: Sequence[str]) -> bool:
        first = top[0] if top else None
        is_right = first in truth
        self.support.update(truth)
        self.correct += is_right
        self.correct_top += not set(truth).isdisjoint(top)
        if first is not None:
            self.predicted[first] += 1
            if is_right:
                self.right[first] += 1
            else:
                self.confused.update((one, first) for one in truth)
        return is_right

    def classes(self) -> Iterator[dict[str, Any]]:
        """Yields the entry of each true or predicted class, the most frequent first."""
        most: dict[str, tuple[int, str | None]] = {}
        for (truth, taken_for), count in sorted(self.confused.items()):
            if count > most.get(truth, (0, None))[0]:
                most[truth] = count, taken_for
        for name in sorted(
            self.support.keys() | self.predicted.keys(), key=lambda one: (-self.support[one], one)
        ):
            times, other = most.get(name, (0, None))
            yield {
                "class": name,
                "name": self.names.get(name),
                "support": self.support[name],
                "predicted": self.predicted[name],
                "precision": ratio(self.right[name], self.predicted[name]),
                "recall": ratio(self.right[name], self.support[name]),
                "most_confused_with": other,
                "confused": times,
            }

    def worst(self, count: int) -> list[dict[str, Any]]:
        """The classes with the lowest recall, then the most frequent, each with its most frequent confusions."""
        by_class: dict[str, list[tuple[int, str]]] = {}
        for (truth, taken_for), times in self.confused.items():
            by_class.setdefault(truth, []).append((-times, taken_for))
        known: list[Mapping[str, Any]] = [one for one in self.classes() if one["support"]]
        known.sort(key=lambda one: (one["recall"], -one["support"], one["class"]))
        return [
            {
                **one,
                "confusions": [
                    {"class": name, "name": self.names.get(name), "count": -times}
                    for times, name in sorted(by_class.get(one["class"], ()))[:_CONFUSIONS]
                ],
            }
            for one in known[:count]
        ]


def ratio(part: int, whole: int) -> float | None:
    """A share; None if ``whole`` is 0."""
    return part / whole if whole else None


def _distinct(first: pa.Array, second: pa.Array) -> Iterator[tuple[str, str]]:
    for group in (
        pa.table({"first": first, "second": second}).group_by(["first", "second"]).aggregate([]).to_pylist()
    ):
        yield group["first"], group["second"]
