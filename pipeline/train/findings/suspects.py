"""Images whose truth is likely wrong, found by confident learning with cleanlab.

Northcutt et al., Confident Learning: Estimating Uncertainty in Dataset Labels, 2021: https://arxiv.org/abs/1911.00068
"""

from __future__ import annotations

import logging
import warnings
from typing import Any

import numpy as np

from beamlabel.pipeline.train.findings.confusions import note_of
from beamlabel.pipeline.train.findings.findings import ImageNote
from beamlabel.pipeline.train.findings.temperature import THRESHOLD
from beamlabel.pipeline.train.rows.rows import TrainingRows

# With more probabilities than this, cleanlab reads them in batches, with nearly the same result.
_MANY = 20_000_000


def suspects_of(probabilities: np.ndarray, rows: TrainingRows, most: int) -> tuple[ImageNote, ...]:
    """The images whose truth is likely wrong, the likeliest first.

    Args:
      probabilities: float32[N, C], of each row by a head that has not seen it.
      rows: the N rows.
      most: largest number of images.
    """
    if not most:
        return ()
    # Otherwise cleanlab sets up its own handler.
    logging.getLogger("cleanlab").addHandler(logging.NullHandler())
    with warnings.catch_warnings():
        # It warns of every class with few images, where it may find fewer.
        warnings.filterwarnings("ignore", module=r"cleanlab\b")
        places, quality = (_of_sets if rows.multi_label else _of_classes)(probabilities, rows.targets)
    order = np.lexsort((places, quality))[:most]
    return tuple(_note(probabilities, rows, int(places[one]), float(quality[one])) for one in order)


def _of_classes(probabilities: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positions and label qualities of suspects among images of one class each."""
    from cleanlab.experimental.label_issues_batched import find_label_issues_batched
    from cleanlab.filter import find_label_issues

    labels = targets.astype(np.int64)
    if not len(labels) or labels.min() == labels.max():  # cleanlab refuses one class
        return np.zeros(0, np.int64), np.zeros(0)
    if probabilities.size > _MANY:
        found: Any = find_label_issues_batched(labels, probabilities, n_jobs=1, verbose=False)
    else:
        is_issue = find_label_issues(labels, np.asarray(probabilities, np.float64), n_jobs=1)
        found = np.flatnonzero(is_issue)
    places = np.sort(np.asarray(found, np.int64))
    return places, np.asarray(probabilities[places, labels[places]], np.float64)


def _of_sets(probabilities: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positions and label qualities of suspects among images of several classes each."""
    from cleanlab.multilabel_classification.filter import find_label_issues
    from cleanlab.multilabel_classification.rank import get_label_quality_scores

    given = np.asarray(probabilities, np.float64)
    # cleanlab refuses a class that all images have, or none, since it lacks examples of one side.
    count = targets.sum(axis=0, dtype=np.int64)
    told = np.flatnonzero((count > 0) & (count < len(targets)))
    if not len(told):
        return np.zeros(0, np.int64), np.zeros(0)
    labels = [np.flatnonzero(row).tolist() for row in targets[:, told]]
    places = np.flatnonzero(find_label_issues(labels, given[:, told], n_jobs=1))
    if not len(places):
        return places, np.zeros(0)
    # Adds an image of no class and one of all classes: cleanlab misreads targets that contain only 0 or only 1.
    classes = targets.shape[1]
    labels = [np.flatnonzero(row).tolist() for row in targets[places]] + [[], list(range(classes))]
    scores = get_label_quality_scores(labels, np.vstack([given[places], np.full((2, classes), 0.5)]))
    return places, scores[:-2]


def _note(probabilities: np.ndarray, rows: TrainingRows, place: int, quality: float) -> ImageNote:
    row = probabilities[place]
    best = int(row.argmax())
    chosen = [best]
    if rows.multi_label:
        chosen = np.flatnonzero(row > THRESHOLD).tolist() or chosen
    predicted = ", ".join(rows.classes[one] for one in chosen)
    return note_of(rows, place, predicted=predicted, score=float(row[best]), quality=quality)
