"""Rows and their truth → counts, and what is said of them."""

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
    """What was counted so far.

    Attributes:
      rows, evaluated: rows of the result, and those of them with a truth.
      correct, correct_top: of the evaluated, those whose best class is right, and with a right class among
        the best ``TOP``.
      kept: classes in a row, at most.
      failed: images that failed and have a truth; with a column, all that failed, whose truth no row tells.
      failed_without_truth: the other ones that failed.
      support: images of each class, by the truth; an image of several classes counts for each.
      predicted: images by their best class.
      right: images whose best class is right, by it.
      confused: how often an image of a class (first), none of whose classes it is, was taken for a class (second).
      seen: all classes that are among any evaluated row's.
      names: of the classes, where these are numbers and have names.
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
        """Counts rows that have a truth; returns of each whether its best class is right.

        Args:
          truth: the classes of each row.
          predicted: list[N], the kept classes, best first.
          names: list[N], their names, if they are numbers and have names.
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
        """What is said of each class of the truth or that was predicted, the commonest first."""
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
        """The classes of the lowest recall, of these the commonest, with what they are taken for."""
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
    """A share; None of nothing."""
    return part / whole if whole else None


def _distinct(first: pa.Array, second: pa.Array) -> Iterator[tuple[str, str]]:
    for group in (
        pa.table({"first": first, "second": second}).group_by(["first", "second"]).aggregate([]).to_pylist()
    ):
        yield group["first"], group["second"]
