"""What a training found out: the content of ``_TRAINING.json``, and all that its report shows."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any

from beamlabel.pipeline.truth.problem import Problem as Problem
from beamlabel.transforms.secrets.text import public_values

FORMAT = 1
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Proportion:
    """A share of images, with Wilson's interval at 95 %.

    Attributes:
      images: of how many.
      value, low, high: the share and its interval, 0 to 1; None of no images.
    """

    images: int
    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class ClassScore:
    """How well a class is told, on the test images.

    Attributes:
      name: the class.
      train, test: how many images have it.
      precision, recall, f1: 0 to 1; None if they are of nothing.
    """

    name: str
    train: int
    test: int
    precision: float | None
    recall: float | None
    f1: float | None


@dataclass(frozen=True)
class ImageNote:
    """An image that the report shows.

    Attributes:
      uri: as the row has it, without credentials.
      image_id: the row's.
      location: from which its picture is fetched; None if it cannot be, as of an image that a Parquet file holds.
      truth, predicted: classes; of several, joined by ``, ``.
      score: of the predicted class.
      quality: cleanlab's label quality, 0 (surely wrong) to 1; None if it was not asked.
      split: in which it is.
    """

    uri: str
    image_id: str
    location: str | None
    truth: str
    predicted: str
    score: float
    quality: float | None = None
    split: str = "test"


@dataclass(frozen=True)
class Confusion:
    """Test images of one class that were taken for another; the surest come first, at most a few."""

    truth: str
    predicted: str
    count: int
    examples: tuple[ImageNote, ...] = ()


@dataclass(frozen=True)
class Bin:
    """Test images whose best score lies in a range: how many, their mean score, and the share that is right."""

    low: float
    high: float
    images: int
    score: float | None
    accuracy: float | None


@dataclass(frozen=True)
class Calibration:
    """How far scores are to be believed.

    Attributes:
      temperature: that the logits are divided by, found on the validation images.
      error_before, error: expected calibration error without and with it, on the test images.
      bins_before, bins: of equal width.
    """

    temperature: float
    error_before: float | None
    error: float | None
    bins_before: tuple[Bin, ...]
    bins: tuple[Bin, ...]


@dataclass(frozen=True)
class CurvePoint:
    """Accuracy on the test images after training on so many."""

    images: int
    accuracy: Proportion


@dataclass(frozen=True)
class Epoch:
    """An epoch of training: the loss, and what the validation images gave; None if it was not asked."""

    number: int
    loss: float
    validation_loss: float | None
    validation_accuracy: float | None


@dataclass(frozen=True)
class Findings:
    """What a training found out.

    Attributes:
      classes: in the order of the logits.
      multi_label: whether an image may have several classes; accuracies are then of whole sets.
      accuracy: by split.
      class_scores: in the order of the classes.
      macro_f1: mean of their ``f1``; None if none has one.
      confusions: the most frequent first.
      calibration: None if it was not asked, as of several classes an image.
      suspects: images whose truth is likely wrong, the likeliest first.
      curve: accuracy over the amount of truth.
      history: of the training that was kept.
      problems: of truth and rows.
      facts: what the record says beside: base, truth, split, options, versions, as JSON has them.
    """

    classes: tuple[str, ...]
    multi_label: bool
    accuracy: dict[str, Proportion]
    class_scores: tuple[ClassScore, ...]
    macro_f1: float | None
    confusions: tuple[Confusion, ...] = ()
    calibration: Calibration | None = None
    suspects: tuple[ImageNote, ...] = ()
    curve: tuple[CurvePoint, ...] = ()
    history: tuple[Epoch, ...] = ()
    problems: tuple[Problem, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        """The content of ``_TRAINING.json``."""
        content = public_values({"format": FORMAT, **dataclasses.asdict(self)})
        return json.dumps(content, indent=1, ensure_ascii=False)
