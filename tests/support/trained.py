"""Made-up findings of trainings for the tests of the report."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from beamlabel.pipeline.train.findings.findings import (
    Bin,
    Calibration,
    ClassScore,
    Confusion,
    CurvePoint,
    Epoch,
    Findings,
    ImageNote,
    Problem,
    Proportion,
)


def proportion(right: int, images: int) -> Proportion:
    """A proportion with Wilson's 95 % interval."""
    if not images:
        return Proportion(0, None, None, None)
    share, z = right / images, 1.96
    middle = (share + z * z / (2 * images)) / (1 + z * z / images)
    half = z / (1 + z * z / images) * math.sqrt(share * (1 - share) / images + z * z / (4 * images**2))
    return Proportion(images, share, max(middle - half, 0.0), min(middle + half, 1.0))


def note(number: int, truth: str, predicted: str, **changed: Any) -> ImageNote:
    uri = f"gs://a-bucket/photos of the garden/{truth[:20]}/img_{number:05d}.jpg"
    values: dict[str, Any] = {
        "uri": uri,
        "image_id": f"{number:032x}",
        "location": uri,
        "truth": truth,
        "predicted": predicted,
        "score": 0.99 - number / 500,
        "quality": number / 400,
    }
    return ImageNote(**{**values, **changed})


def class_scores(names: tuple[str, ...], *, test: int) -> tuple[ClassScore, ...]:
    """Scores of classes that improve with the index; the last class has no test image."""
    scores = []
    for place, name in enumerate(names):
        last = place == len(names) - 1
        value = None if last else round(0.4 + 0.59 * place / len(names), 4)
        scores.append(ClassScore(name, 8 * test, 0 if last else test, value, value, value))
    return tuple(scores)


def curve(*values: float, test: int = 400) -> tuple[CurvePoint, ...]:
    """A learning curve at 100, 200, 400, … train images."""
    return tuple(
        CurvePoint(100 * 2**place, proportion(round(value * test), test))
        for place, value in enumerate(values)
    )


def bins(bend: float) -> tuple[Bin, ...]:
    found = []
    for place in range(10):
        low, images = place / 10, 4 + 8 * place
        score = low + 0.05
        found.append(
            Bin(
                low,
                low + 0.1,
                images if place else 0,
                score if place else None,
                score**bend if place else None,
            )
        )
    return tuple(found)


def findings(
    names: tuple[str, ...] = ("tabby", "tiger cat", "beagle", "otter", "red fox"), **changed: Any
) -> Findings:
    """Findings of a training with 400 test images; no section is empty."""
    a, b, *_ = names
    confusions = tuple(
        Confusion(one, other, 24 - place, tuple(note(100 + 10 * place + n, one, other) for n in range(3)))
        for place, (one, other) in enumerate(
            (one, other) for one in names[:8] for other in names[:8] if one != other
        )
    )
    falling = np.exp(-np.arange(1, 31) / 8)
    values: dict[str, Any] = {
        "classes": names,
        "multi_label": False,
        "accuracy": {"train": proportion(3040, 3200), "validation": proportion(298, 400), "test": proportion(292, 400)},
        "class_scores": class_scores(names, test=max(400 // len(names), 1)),
        "macro_f1": 0.7213,
        "confusions": confusions,
        "calibration": Calibration(1.62, 0.113, 0.021, bins(1.8), bins(1.05)),
        "suspects": tuple(note(number, a, b) for number in range(14)),
        "curve": curve(0.52, 0.6, 0.66, 0.7, 0.715, 0.73),
        "history": tuple(
            Epoch(number, 2.2 * left + 0.2, 2.1 * left + 0.75, 0.74 - 0.4 * left)
            for number, left in enumerate(falling.tolist(), 1)
        ),
        "problems": (
            Problem("names of the truth match no row", 12, ("img_9001.jpg", "img_9002.jpg")),
            Problem("classes have one image, and are left out", 2, ("axolotl", "newt")),
        ),
        "facts": {
            "base": {"handle": "https://tfhub.dev/google/imagenet/mobilenet_v2_100_224/classification/1"},
            "options": {"seed": 0, "split": [0.8, 0.1, 0.1], "class_weights": "none"},
            "versions": {"beamlabel": "0.9", "tensorflow": "2.21.0"},
        },
    }  # fmt: skip
    return Findings(**{**values, **changed})
