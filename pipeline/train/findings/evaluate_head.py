"""Computes the findings of a training from probabilities and truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from beamlabel.pipeline.evaluate.interval import wilson
from beamlabel.pipeline.train.findings.confusions import confusions_of
from beamlabel.pipeline.train.findings.findings import (
    SPLITS,
    Bin,
    Calibration,
    ClassScore,
    CurvePoint,
    Epoch,
    Findings,
    ImageNote,
    Proportion,
)
from beamlabel.pipeline.train.findings.temperature import THRESHOLD
from beamlabel.pipeline.train.rows.rows import TrainingRows
from beamlabel.pipeline.train.rows.split import TEST, TRAIN

_BINS = 10
_BLOCK = 8192


def findings_of(
    probabilities: np.ndarray,
    rows: TrainingRows,
    *,
    temperature: float | None = None,
    uncalibrated: np.ndarray | None = None,
    suspects: Sequence[ImageNote] = (),
    curve: Sequence[CurvePoint] = (),
    history: Sequence[Epoch] = (),
    facts: Mapping[str, Any] | None = None,
) -> Findings:
    """Compares the probabilities of all rows with their truth.

    Args:
      probabilities: float32[N, C], of all rows: softmax, or sigmoid for several classes per image.
      rows: the N rows.
      temperature: divisor of the logits; None if there was none.
      uncalibrated: like ``probabilities``, of the test images alone, without the temperature.
      suspects, curve, history, facts: see ``Findings``.
    """
    is_right = right(probabilities, rows.targets)
    test = rows.split == TEST
    scores = class_scores(probabilities, rows)
    told = [one.f1 for one in scores if one.f1 is not None]
    calibration = None
    if temperature is not None and uncalibrated is not None and not rows.multi_label:
        before, after = uncalibrated, probabilities[test]
        bins_before, bins = bins_of(before, is_right[test]), bins_of(after, is_right[test])
        calibration = Calibration(
            temperature, calibration_error(bins_before), calibration_error(bins), bins_before, bins
        )
    return Findings(
        classes=rows.classes,
        multi_label=rows.multi_label,
        accuracy={name: proportion(is_right[rows.split == place]) for place, name in enumerate(SPLITS)},
        class_scores=scores,
        macro_f1=float(np.mean(told)) if told else None,
        confusions=() if rows.multi_label else confusions_of(probabilities, rows),
        calibration=calibration,
        suspects=tuple(suspects),
        curve=tuple(curve),
        history=tuple(history),
        problems=rows.problems,
        facts=dict(facts or {}),
    )


def right(probabilities: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """bool[N]: whether the best class is the truth; for several classes per image, whether the whole set is."""
    found = np.empty(len(targets), bool)
    for start in range(0, len(targets), _BLOCK):
        block = slice(start, start + _BLOCK)
        if targets.ndim == 1:
            found[block] = probabilities[block].argmax(axis=1) == targets[block]
        else:
            found[block] = ((probabilities[block] > THRESHOLD) == targets[block].astype(bool)).all(axis=1)
    return found


def proportion(is_right: np.ndarray) -> Proportion:
    """The share that is right, with the 95 % Wilson interval."""
    count = int(is_right.sum())
    interval = wilson(count, len(is_right))
    if interval is None:
        return Proportion(0, None, None, None)
    return Proportion(len(is_right), count / len(is_right), *interval)


def class_scores(probabilities: np.ndarray, rows: TrainingRows) -> tuple[ClassScore, ...]:
    """Precision, recall and F1 of each class, on the test images."""
    truth, said = _counts(rows, TEST), np.zeros(len(rows.classes), np.int64)
    both = np.zeros(len(rows.classes), np.int64)
    places = np.flatnonzero(rows.split == TEST)
    for start in range(0, len(places), _BLOCK):
        block = places[start : start + _BLOCK]
        if rows.multi_label:
            chosen = probabilities[block] > THRESHOLD
            said += chosen.sum(axis=0)
            both += (chosen & rows.targets[block].astype(bool)).sum(axis=0)
        else:
            best, target = probabilities[block].argmax(axis=1), rows.targets[block]
            said += np.bincount(best, minlength=len(said))
            both += np.bincount(target[best == target], minlength=len(said))
    train = _counts(rows, TRAIN)
    return tuple(
        ClassScore(
            name=name,
            train=int(train[place]),
            test=int(truth[place]),
            precision=_share(both[place], said[place]),
            recall=_share(both[place], truth[place]),
            f1=_share(2 * both[place], said[place] + truth[place]),
        )
        for place, name in enumerate(rows.classes)
    )


def bins_of(probabilities: np.ndarray, is_right: np.ndarray) -> tuple[Bin, ...]:
    """Counts the images by their best score, in ranges of equal width."""
    best = probabilities.max(axis=1, initial=0).astype(np.float64)
    place = np.minimum((best * _BINS).astype(int), _BINS - 1)
    found = []
    for number in range(_BINS):
        here = place == number
        count = int(here.sum())
        score = float(best[here].mean()) if count else None
        accuracy = float(is_right[here].mean()) if count else None
        found.append(Bin(number / _BINS, (number + 1) / _BINS, count, score, accuracy))
    return tuple(found)


def calibration_error(bins: Sequence[Bin]) -> float | None:
    """Expected calibration error: Guo et al., On Calibration of Modern Neural Networks, 2017, equation 3."""
    images = sum(one.images for one in bins)
    if not images:
        return None
    return sum(
        one.images / images * abs(one.score - one.accuracy)
        for one in bins
        if one.score is not None and one.accuracy is not None
    )


def _counts(rows: TrainingRows, where: int) -> np.ndarray:
    """int64[C]: number of images of each class in a split."""
    targets = rows.targets[rows.split == where]
    if rows.multi_label:
        return targets.sum(axis=0, dtype=np.int64)
    return np.bincount(targets, minlength=len(rows.classes))


def _share(part: int, whole: int) -> float | None:
    return float(part / whole) if whole else None
