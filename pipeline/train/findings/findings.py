"""The findings of a training: the content of ``_TRAINING.json`` and everything in its report."""

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
    """A share of images, with the 95 % Wilson interval.

    Attributes:
      images: number of all images.
      value, low, high: the share and its interval, 0 to 1; None without images.
    """

    images: int
    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class ClassScore:
    """Scores of a class on the test images.

    Attributes:
      name: the class.
      train, test: number of its images in these splits.
      precision, recall, f1: 0 to 1; None if undefined.
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
      uri: URI in the row, without credentials.
      image_id: ID in the row.
      location: address to fetch the picture from; None if there is none, as for an image inside a Parquet file.
      truth, predicted: classes; several are joined by ``, ``.
      score: score of the predicted class.
      quality: cleanlab's label quality, 0 (surely wrong) to 1; None if not computed.
      split: split of the image.
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
    """Test images of one class that were predicted as another; a few examples, the highest-scoring first."""

    truth: str
    predicted: str
    count: int
    examples: tuple[ImageNote, ...] = ()


@dataclass(frozen=True)
class Bin:
    """Test images with their best score in a range: their number, mean score and share of right ones."""

    low: float
    high: float
    images: int
    score: float | None
    accuracy: float | None


@dataclass(frozen=True)
class Calibration:
    """The calibration of the scores.

    Attributes:
      temperature: divisor of the logits, found on the validation images.
      error_before, error: expected calibration error on the test images, without and with the temperature.
      bins_before, bins: ranges of equal width, without and with it.
    """

    temperature: float
    error_before: float | None
    error: float | None
    bins_before: tuple[Bin, ...]
    bins: tuple[Bin, ...]


@dataclass(frozen=True)
class CurvePoint:
    """Accuracy on the test images after training on ``images`` images."""

    images: int
    accuracy: Proportion


@dataclass(frozen=True)
class Epoch:
    """An epoch of training: the loss, and the results on the validation images; None if not computed."""

    number: int
    loss: float
    validation_loss: float | None
    validation_accuracy: float | None


@dataclass(frozen=True)
class Findings:
    """The findings of a training.

    Attributes:
      classes: class names in the order of the logits.
      multi_label: whether an image may have several classes; accuracies then count whole sets.
      accuracy: accuracy by split.
      class_scores: scores in the order of the classes.
      macro_f1: mean of their ``f1``; None if no class has one.
      confusions: the most frequent first.
      calibration: None if not computed, as for several classes per image.
      suspects: images whose truth is likely wrong, the likeliest first.
      curve: accuracy by number of training images.
      history: epochs of the training that was kept.
      problems: problems of truth and rows.
      facts: other entries of the record, as JSON values: base, truth, split, options, versions.
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
