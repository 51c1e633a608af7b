"""The pairs of classes that are confused most often, with the clearest examples."""

from __future__ import annotations

import numpy as np

from beamlabel.pipeline.train.findings.findings import SPLITS, Confusion, ImageNote
from beamlabel.pipeline.train.rows.rows import TrainingRows
from beamlabel.pipeline.train.rows.split import TEST

_PAIRS, _EXAMPLES = 20, 6


def confusions_of(probabilities: np.ndarray, rows: TrainingRows) -> tuple[Confusion, ...]:
    """The most frequent confusions of the test images, at most 20, each with its highest-scoring images.

    Args:
      probabilities: float32[N, C], of all rows.
      rows: the N rows, of one class each.
    """
    places = np.flatnonzero(rows.split == TEST)
    tested = probabilities[places]
    best, score = tested.argmax(axis=1), tested.max(axis=1, initial=0)
    truth = rows.targets[places]
    wrong = np.flatnonzero(best != truth)
    pairs = truth[wrong].astype(np.int64) * len(rows.classes) + best[wrong]
    found, counts = np.unique(pairs, return_counts=True)
    result = []
    for pair in np.lexsort((found, -counts))[:_PAIRS]:
        members = wrong[pairs == found[pair]]
        surest = members[np.argsort(-score[members], kind="stable")][:_EXAMPLES]
        names = (
            rows.classes[found[pair] // len(rows.classes)],
            rows.classes[found[pair] % len(rows.classes)],
        )
        notes = tuple(
            note_of(rows, int(places[one]), predicted=names[1], score=float(score[one])) for one in surest
        )
        result.append(Confusion(*names, count=int(counts[pair]), examples=notes))
    return tuple(result)


def note_of(
    rows: TrainingRows, place: int, *, predicted: str, score: float, quality: float | None = None
) -> ImageNote:
    """A row in the form of the report."""
    target = rows.targets[place]
    names = [rows.classes[target]] if rows.targets.ndim == 1 else _names(rows, np.flatnonzero(target))
    table = rows.table
    return ImageNote(
        uri=table.column("uri")[place].as_py(),
        image_id=table.column("image_id")[place].as_py(),
        location=table.column("location")[place].as_py(),
        truth=", ".join(names),
        predicted=predicted,
        score=score,
        quality=quality,
        split=SPLITS[rows.split[place]],
    )


def _names(rows: TrainingRows, places: np.ndarray) -> list[str]:
    return [rows.classes[place] for place in places]
