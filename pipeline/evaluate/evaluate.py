"""Evaluates a result against the truth: how often the best class, or one of the best five, is right."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from beamlabel.pipeline.errors import UsageError
from beamlabel.pipeline.evaluate.count import TOP, TruthCounts, ratio
from beamlabel.pipeline.evaluate.interval import LEVEL, wilson
from beamlabel.pipeline.evaluate.result import Result, read_result
from beamlabel.pipeline.evaluate.wrong_images import WrongImages, best_of
from beamlabel.pipeline.truth.file_truth import FileTruth
from beamlabel.pipeline.truth.layered_truth import LayeredTruth
from beamlabel.pipeline.truth.open_truth import open_truth
from beamlabel.pipeline.truth.options import TruthOptions
from beamlabel.pipeline.truth.problem import Problem
from beamlabel.pipeline.truth.truth import Classes
from beamlabel.transforms.writing.unit_summary import class_name

SINGLE = "an image is right if its best class is its class"
MULTI = "an image is right if its best class is one of its classes"
_CLASS_NAME = class_name(0).removesuffix("0")


@dataclass(frozen=True)
class Evaluation:
    """The counts of an evaluation, and the source of the truth.

    Attributes:
      by: how images were identified: ``uri``, ``ref_id``, ``image_id``, ``column``, ``parent``, or ``several``.
      unmatched: number of images with a truth but without row or failure; None for a column.
      multi_label: whether an image may have several classes.
      problems: problems of the truth.
      errors: the file of wrong images, and their number.
      trained_module: the handle of the module, if ``beamlabel train`` wrote it.
    """

    counts: TruthCounts
    by: str
    unmatched: int | None
    multi_label: bool = False
    problems: tuple[Problem, ...] = field(default=())
    errors: tuple[str, int] | None = None
    trained_module: str | None = None

    def to_json(self, worst: int = 0) -> dict[str, Any]:
        """A plain dict for ``json.dumps``; an undefined value, such as the precision of an unused class, is None.

        Args:
          worst: number of classes with the lowest recall to list with their confusions.
        """
        counts = self.counts
        tried = counts.evaluated + counts.failed
        interval = wilson(counts.correct, counts.evaluated)
        found: dict[str, Any] = {
            "truth_by": self.by,
            "trained_module": self.trained_module,
            "multi_label": self.multi_label,
            "measure": MULTI if self.multi_label else SINGLE,
            "rows": counts.rows,
            "evaluated": counts.evaluated,
            "rows_without_truth": counts.rows - counts.evaluated,
            "failed": counts.failed,
            "failed_without_truth": counts.failed_without_truth,
            "truths_without_row": self.unmatched,
            "coverage": ratio(counts.evaluated, tried),
            "top_1": ratio(counts.correct, counts.evaluated),
            "top_1_interval": None
            if interval is None
            else {"level": LEVEL, "low": interval[0], "high": interval[1]},
            "top_k": {"k": min(TOP, counts.kept), "accuracy": ratio(counts.correct_top, counts.evaluated)},
            "top_1_failures_wrong": ratio(counts.correct, tried),
            "truths_in_no_row": sorted(counts.support.keys() - counts.seen),
            "problems": [
                {"what": one.what, "count": one.count, "examples": list(one.examples)}
                for one in self.problems
            ],
            "classes": list(counts.classes()),
        }
        if worst:
            found["worst"] = counts.worst(worst)
        if self.errors:
            found["errors"] = {"file": self.errors[0], "images": self.errors[1]}
        return found


def evaluate(
    output: str,
    truth: str | Sequence[str],
    column: str | None = None,
    *,
    key: str | None = None,
    separator: str | None = None,
    errors: str | None = None,
) -> Evaluation:
    """Evaluates the rows of a result, a few thousand at a time.

    Args:
      output: a published result.
      truth: kept columns, ``parent``, or paths of files; later ones take precedence.
      column, key, separator: see ``TruthOptions``.
      errors: a file for the wrong images; None: do not write them.

    Raises:
      UsageError: a result, column or file is missing or unsuitable.
    """
    result = read_result(output)
    names = (truth,) if isinstance(truth, str) else tuple(truth)
    options = TruthOptions(truth=names, truth_column=column, truth_key=key, multi_label=separator)

    def batches(columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        return itertools.chain(result.batches(columns), result.failure_batches())

    known = open_truth(options, result.schema(), manifests=[result.manifest], batches=batches)
    assert isinstance(known, LayeredTruth)
    _refuse_conflicts(known)
    wrong = WrongImages(errors, multi_label=known.multi_label) if errors else None
    counting = _Counting(result, known, wrong, ", ".join(names))
    counting.count_rows()
    counting.count_failures()
    written = (errors, wrong.write()) if errors and wrong else None
    return Evaluation(
        counting.counts, known.by, known.unmatched(), known.multi_label, known.problems(), written,
        result.trained_module,
    )  # fmt: skip


def _refuse_conflicts(truth: LayeredTruth) -> None:
    for one in truth.truths:
        if isinstance(one, FileTruth) and one.entries.conflicts.count:
            conflicts = one.entries.conflicts
            raise UsageError(
                f"--truth {one.entries.path!r}: two classes for {conflicts.texts[0]} ({conflicts.count} images in all)"
            )


class _Counting:
    """Counts over rows and failures.

    Args:
      result: the rows.
      truth: their truth.
      wrong: collects the wrong images; may be None.
      name: name of the truth, for messages.
    """

    def __init__(self, result: Result, truth: LayeredTruth, wrong: WrongImages | None, name: str) -> None:
        self.counts = TruthCounts()
        self._result, self._truth, self._wrong, self._name = result, truth, wrong, name
        self._by_id: bool | None = None
        # Reports name unnamed classes this way, and so do corrections exported from them.
        corrections = [
            one for one in truth.truths if isinstance(one, FileTruth) and one.entries.are_corrections
        ]
        self._from_report = bool(corrections) and not result.has_names
        # Corrections of classes with names are always names, even if they look like numbers.
        self._are_named = bool(corrections) and result.has_names
        self._are_alone = len(corrections) == len(truth.truths)
        columns = [*truth.columns, "class_ids", *(["labels"] if result.has_names else [])]
        if wrong is not None:
            there = result.schema().names
            columns += [name for name in ("uri", "image_id", "score") if name in there]
        self._columns = list(dict.fromkeys(columns))
        others = [one for one in truth.truths if one not in corrections] or [truth]
        known = [one.known_classes() for one in others]
        if None not in known:
            self._decide(itertools.chain(*(one for one in known if one is not None)))

    def _decide(self, classes: Iterable[str]) -> None:
        """Decides whether classes are numbers that index the logits: only if all are whole numbers."""
        names = sorted(classes)
        by_id = self._truth.are_ids or all(map(self._is_id, names))
        if by_id and self._are_named:
            if not self._are_alone:
                raise UsageError(
                    f"--truth {self._name}: it has class ids, but the corrections from a report have names: use names "
                    "in both"
                )
            by_id = False
        if not (by_id or self._result.has_names):
            odd = next(name for name in names if not self._is_id(name))
            raise UsageError(
                f"--truth {self._name!r}: {odd!r} is not a class id, and the classes of the result have no names"
            )
        self._by_id = by_id

    def _is_id(self, name: str) -> bool:
        return self._number(name).isdecimal()

    def _number(self, name: str) -> str:
        return name.removeprefix(_CLASS_NAME) if self._from_report else name

    def count_rows(self) -> None:
        """Counts all rows.

        Raises:
          UsageError: the truth mixes numbers and names, or does not fit the result's classes.
        """
        for batch in self._result.batches(self._columns):
            self.counts.rows += batch.num_rows
            truth = self._truth.of_batch(batch.select(list(self._truth.columns)))
            if self._by_id is None and any(truth):
                self._decide({one for classes in truth for one in classes or ()})
            self._count(batch, truth)

    def _count(self, batch: pa.RecordBatch, truth: Sequence[Classes | None]) -> None:
        known = [self._as_predicted(classes) for classes in truth if classes is not None]
        if len(known) < batch.num_rows:
            batch = batch.filter(pa.array([classes is not None for classes in truth], pa.bool_()))
        named = self._result.has_names and bool(self._by_id)
        predicted = batch.column("class_ids" if self._by_id in (True, None) else "labels")
        are_right = self.counts.add(known, predicted, batch.column("labels") if named else None)
        if self._wrong is None:
            return
        is_wrong = pa.array([not one for one in are_right], pa.bool_())
        names = best_of(batch.column("labels").filter(is_wrong)) if named else None
        best = best_of(predicted.filter(is_wrong))
        self._wrong.add(
            batch.filter(is_wrong),
            [one for one, right in zip(known, are_right, strict=True) if not right],
            best,
            names or [None] * len(best),
        )

    def _as_predicted(self, classes: Classes) -> Classes:
        if not self._by_id:
            return classes
        try:
            return tuple(sorted({str(int(self._number(one))) for one in classes}))
        except ValueError as error:
            raise UsageError(f"--truth {self._name}: it mixes class ids with names: {error}") from error

    def count_failures(self) -> None:
        """Counts all failures; for a truth in a column, no row holds the truth of a failed image."""
        if self._truth.by in ("column", "several") and "column" in {one.by for one in self._truth.truths}:
            self.counts.failed = self._result.failed
            return
        for batch in self._result.failure_batches():
            truth = self._truth.of_batch(batch)
            self.counts.failed += sum(classes is not None for classes in truth)
            self.counts.failed_without_truth += sum(classes is None for classes in truth)
