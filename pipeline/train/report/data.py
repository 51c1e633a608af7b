"""Turns findings and pictures into the content of the page: plain JSON values of bounded size."""

from __future__ import annotations

import base64
import itertools
import math
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from beamlabel import __version__
from beamlabel.pipeline.report.data import embedded_json
from beamlabel.pipeline.train.findings.findings import (
    SPLITS,
    Bin,
    Calibration,
    ClassScore,
    Confusion,
    Epoch,
    Findings,
    ImageNote,
    Proportion,
)
from beamlabel.pipeline.train.report.advice import curve_advice
from beamlabel.pipeline.train.report.pictures import MAX_EXAMPLES, shown_notes, shown_pairs, shown_suspects
from beamlabel.transforms.storage.uris import encodable
from beamlabel.transforms.writing.unit_summary import MAX_TEXT, cut

PAGE_BYTES = 3_000_000
"""Upper bound of the size of the page for any texts."""

# A class name that was cut is not exact, and cannot be chosen for a correction.
CLASS_FIELDS = ("name", "is_exact", "train", "test", "precision", "recall", "f1")

# Bounds for style, script and numbers, then for texts; the pictures get the rest.
_FRAME_BYTES = 120_000
_CLASS_BYTES = 900_000
_NOTE_BYTES = 500_000
_PAIR_BYTES = 60_000
_PROBLEM_BYTES = 60_000
_FACT_BYTES = 60_000
_MAX_PAIRS = 100
_MAX_POINTS = 300
_MAX_FACTS = 200
_MAX_TRUTHS = 8
_EXAMPLES_OF_PROBLEM = 5


def page_data(findings: Findings, pictures: Mapping[str, bytes]) -> dict[str, Any]:
    """The content of the page, a function of findings and pictures.

    A note names its classes twice: as text, cut if it is long, and as a list of exact names. The list is null if the
    names are not known exactly, so that no correction ever names a class that does not exist.
    """
    classes = _fitting(_worst_first(findings.class_scores), _CLASS_BYTES)
    suspects = _fitting((_note(note, findings) for note in shown_suspects(findings)), _NOTE_BYTES)
    pairs = _fitting((_pair(pair, findings) for pair in findings.confusions[:_MAX_PAIRS]), _PAIR_BYTES)
    examples = _fitting((_examples(pair, findings) for pair in shown_pairs(findings)), _NOTE_BYTES)
    problems = _fitting(
        (
            {
                "what": _text(problem.what),
                "count": problem.count,
                "examples": [_text(example) for example in problem.examples[:_EXAMPLES_OF_PROBLEM]],
            }
            for problem in findings.problems
        ),
        _PROBLEM_BYTES,
    )
    facts = _fitting(itertools.islice(_flat(findings.facts), _MAX_FACTS), _FACT_BYTES)
    data = {
        "version": __version__,
        "base": _base(findings),
        "multi_label": findings.multi_label,
        "accuracy": {
            split: _proportion(findings.accuracy[split]) for split in SPLITS if split in findings.accuracy
        },
        "macro_f1": _number(findings.macro_f1),
        "most_frequent": _most_frequent(findings),
        "class_fields": CLASS_FIELDS,
        "classes": classes,
        "class_count": len(findings.classes),
        "scored_count": len(findings.class_scores),
        "pairs": pairs,
        "pair_count": len(findings.confusions),
        "examples": examples,
        "calibration": _calibration(findings.calibration),
        "suspects": suspects,
        "suspect_count": len(findings.suspects),
        "truth_from": _truth_from(findings),
        "is_fine_tuned": "fine_tuning" in findings.facts,
        "head_alone": _number(_looked_up(findings, "fine_tuning", "head_alone", "test")),
        "curve": [
            {**_proportion(point.accuracy), "images": point.images, "images_of": point.accuracy.images}
            for point in sorted(findings.curve, key=lambda point: point.images)[:_MAX_POINTS]
        ],
        "curve_advice": curve_advice(findings.curve),
        "history": [_epoch(epoch) for epoch in _thinned(findings.history)],
        "epoch_count": len(findings.history),
        "epoch_kept": _looked_up(findings, "fine_tuning", "epochs", "best")
        or _looked_up(findings, "head", "epochs"),
        "problems": problems,
        "problem_count": len(findings.problems),
        "facts": facts,
    }
    room = PAGE_BYTES - _FRAME_BYTES - len(embedded_json(data).encode())
    return {**data, "pictures": _pictures(findings, pictures, room)}


def _base(findings: Findings) -> str | None:
    """The handle of the base, if the facts have it."""
    base = findings.facts.get("base")
    handle = base.get("handle") if isinstance(base, dict) else base
    return _text(handle) if isinstance(handle, str) else None


def _truth_from(findings: Findings) -> list[str]:
    """The values of ``--truth``, for a command line; a placeholder if unknown."""
    truth = findings.facts.get("truth")
    given = truth.get("from") if isinstance(truth, Mapping) else None
    return [_text(shlex.quote(str(one))) for one in given[:_MAX_TRUTHS]] if given else ["truth.csv"]


def _looked_up(findings: Findings, *keys: str) -> Any:
    """A number in the nested facts; None if it is missing."""
    found: Any = findings.facts
    for key in keys:
        found = found.get(key) if isinstance(found, Mapping) else None
    return found if isinstance(found, int | float) else None


def _worst_first(scores: Sequence[ClassScore]) -> Iterator[list[Any]]:
    """Rows of ``CLASS_FIELDS`` as plain lists, without field names, so that ten thousand fit.

    Sorted by F1, then by falling number of test images, which makes F1 surer; classes without any come last.
    """

    def order(score: ClassScore) -> tuple[bool, float, int, str]:
        f1 = _number(score.f1)
        return f1 is None, f1 or 0.0, -score.test, score.name

    for score in sorted(scores, key=order):
        rates = (_number(value, 4) for value in (score.precision, score.recall, score.f1))
        yield [_text(score.name), int(_is_exact(score.name)), score.train, score.test, *rates]


def _most_frequent(findings: Findings) -> dict[str, Any] | None:
    """The class with the most test images and their number: the accuracy of always predicting it."""
    scores = findings.class_scores
    total = sum(score.test for score in scores)
    if findings.multi_label or not total:
        return None
    most = max(scores, key=lambda score: score.test)
    return {"name": _text(most.name), "images": most.test, "of": total}


def _note(note: ImageNote, findings: Findings) -> dict[str, Any]:
    return {
        "uri": cut(encodable(note.uri), 4 * MAX_TEXT),
        "image_id": note.image_id,
        "truth": _text(note.truth),
        "predicted": _text(note.predicted),
        "truth_labels": exact_labels(note.truth, findings),
        "predicted_labels": exact_labels(note.predicted, findings),
        "score": _number(note.score),
        "quality": _number(note.quality),
        "split": note.split,
        "can_be_fetched": note.location is not None,
    }


def exact_labels(joined: str, findings: Findings) -> list[str] | None:
    """The classes in a note, where several are joined by ``, ``; None if the text is ambiguous."""
    if not findings.multi_label:
        return [joined] if _is_exact(joined) else None
    known = set(findings.classes)
    parts = joined.split(", ") if joined else []
    if len(parts) > MAX_TEXT or not all(map(_is_exact, parts)):
        return None
    # ways[n]: ways to read the first n parts as classes; two are enough to show ambiguity.
    ways: list[list[list[str]]] = [[[]]]
    for end in range(1, len(parts) + 1):
        found = [
            [*before, name]
            for start in range(end)
            if (name := ", ".join(parts[start:end])) in known
            for before in ways[start]
        ]
        ways.append(found[:2])
    return ways[-1][0] if len(ways[-1]) == 1 else None


def _pair(pair: Confusion, findings: Findings) -> dict[str, Any]:
    return {
        "truth": _text(pair.truth),
        "predicted": _text(pair.predicted),
        "count": pair.count,
        "of": next((score.test for score in findings.class_scores if score.name == pair.truth), None),
    }


def _examples(pair: Confusion, findings: Findings) -> list[dict[str, Any]]:
    return [_note(note, findings) for note in pair.examples[:MAX_EXAMPLES]]


def _calibration(found: Calibration | None) -> dict[str, Any] | None:
    if found is None:
        return None

    def shown(of: Bin) -> dict[str, Any]:
        return {
            "low": of.low,
            "high": of.high,
            "images": of.images,
            "score": _number(of.score),
            "accuracy": _number(of.accuracy),
        }

    return {
        "temperature": _number(found.temperature),
        "error_before": _number(found.error_before),
        "error": _number(found.error),
        "bins_before": [shown(of) for of in found.bins_before[:_MAX_POINTS]],
        "bins": [shown(of) for of in found.bins[:_MAX_POINTS]],
    }


def _thinned(history: Sequence[Epoch]) -> list[Epoch]:
    """At most ``_MAX_POINTS`` epochs, evenly spaced, including the first and the last."""
    if len(history) <= _MAX_POINTS:
        return list(history)
    step = (len(history) - 1) / (_MAX_POINTS - 1)
    return [history[round(place * step)] for place in range(_MAX_POINTS)]


def _epoch(epoch: Epoch) -> dict[str, Any]:
    return {
        "number": epoch.number,
        "loss": _number(epoch.loss),
        "validation_loss": _number(epoch.validation_loss),
        "validation_accuracy": _number(epoch.validation_accuracy),
    }


def _proportion(found: Proportion) -> dict[str, Any]:
    return {
        "images": found.images,
        "value": _number(found.value),
        "low": _number(found.low),
        "high": _number(found.high),
    }


def _flat(value: object, name: str = "") -> Iterator[list[str]]:
    """Yields [name, value] of nested facts; a list of plain values counts as one value."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(inner, f"{name} {key}".strip())
    elif isinstance(value, list | tuple) and any(isinstance(inner, Mapping) for inner in value):
        for number, inner in enumerate(value, 1):
            yield from _flat(inner, f"{name} {number}".strip())
    elif value is not None:
        shown = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
        yield [_text(name), _text(shown)]


def _fitting(values: Any, room: int) -> list[Any]:
    """The first values, as many as fit."""
    fitting = []
    for value in values:
        room -= len(embedded_json(value).encode()) + 1
        if room < 0:
            break
        fitting.append(value)
    return fitting


def _pictures(findings: Findings, pictures: Mapping[str, bytes], room: int) -> dict[str, str]:
    """``image_id`` → JPEG in base64 for the first notes, as many as fit."""
    fitting: dict[str, str] = {}
    for note in shown_notes(findings):
        if note.image_id in fitting or note.image_id not in pictures:
            continue
        picture = base64.b64encode(pictures[note.image_id]).decode()
        size = len(picture) + len(note.image_id) + 6
        if size <= room:
            fitting[note.image_id] = picture
            room -= size
    return fitting


def _number(value: float | None, digits: int = 5) -> float | None:
    """The value with ``digits`` digits; None for a value that JSON cannot express."""
    return float(f"{value:.{digits}g}") if value is not None and math.isfinite(value) else None


def _text(text: str) -> str:
    return cut(encodable(text))


def _is_exact(name: str) -> bool:
    return _text(name) == name
