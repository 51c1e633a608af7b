"""Trains the head of an own module on embeddings: multinomial logistic regression."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from beamlabel.pipeline.train.findings.findings import Epoch
from beamlabel.pipeline.train.findings.temperature import probabilities
from beamlabel.pipeline.train.head.choose_l2 import Chosen, choose_l2
from beamlabel.pipeline.train.head.heads import Heads, Task, train_heads
from beamlabel.pipeline.train.head.standardize import Standardizer, standardizer_of
from beamlabel.pipeline.train.rows.options import BALANCED, HeadOptions
from beamlabel.pipeline.train.rows.rows import TrainingRows
from beamlabel.pipeline.train.rows.scratch import scratch
from beamlabel.pipeline.train.rows.split import TEST, TRAIN, content_order
from beamlabel.transforms.own_module.head import SIGMOID, SOFTMAX, Head

_FOLDS = 5
_PARTS = (0.1, 0.2, 0.5)
_BLOCK = 4096

Progress = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class FittedHead:
    """A trained head and the findings of its training.

    Attributes:
      head: includes standardization and temperature; trained on training and validation images.
      temperature: divisor of its logits, found on the validation images.
      l2: strength chosen on the validation images: weight in mean loss + l2/2 · the sum of squares of the weights on
        standardized features.
      epochs: epoch after which the head was best on the validation images.
      history: epochs of the training on the training images with that strength; loss and accuracy without temperature.
      validated: head trained on the training images alone, for the results of the validation images.
      out_of_sample: float32[N, C], probabilities of each row by a head that has not seen it.
      curve: heads trained on fewer training images: number of images, and head.
    """

    head: Head
    temperature: float
    l2: float
    epochs: int
    history: tuple[Epoch, ...]
    validated: Head
    out_of_sample: np.ndarray
    curve: tuple[tuple[int, Head], ...]


def fit_head(
    features: np.ndarray,
    rows: TrainingRows,
    options: HeadOptions,
    progress: Progress = lambda text: None,
) -> FittedHead:
    """Trains on the training images, chooses L2, epochs and temperature by validation, then trains on both splits.

    Args:
      features: float32[N, D], see ``features_of``.
      rows: the N rows.
      options: options of the training.
      progress: receives lines of progress.
    """
    weights = class_weights(rows, options)
    train = np.flatnonzero(rows.split == TRAIN)
    standardizer = standardizer_of(features, train, _mean_one(weights[train]))
    chosen = choose_l2(features, rows, standardizer, weights, options.epochs, progress)

    def fit(places: np.ndarray) -> Head:
        # Statistics of its own rows: along an axis that none of them has, a step would have no right size.
        by = standardizer_of(features, places, _mean_one(weights[places]))
        # The more images, the weaker the L2 on their mean, so that it stays the same relative to the sum of losses.
        l2 = np.array([chosen.l2 * len(train) / len(places)], np.float32)
        task = Task(
            features,
            rows.targets,
            places,
            _mean_one(weights[places])[:, None],
            l2,
            len(rows.classes),
            rows.seed,
        )
        heads = train_heads(task, by, chosen.epochs, of=chosen.most_epochs)
        return _folded(heads, 0, by, rows, chosen.temperature)

    progress("training the final head on training and validation images")
    head = fit(np.flatnonzero(rows.split != TEST))
    out_of_sample = _out_of_sample(features, rows, weights, chosen, progress)
    curve = []
    for part in _PARTS:
        places = _part(rows, train, part)
        if len(places) < len(train):
            progress(f"training on {len(places)} images for the learning curve")
            curve.append((len(places), fit(places)))
    validated = _folded(chosen.heads, 0, standardizer, rows, chosen.temperature)
    curve.append((len(train), validated))
    return FittedHead(
        head=head,
        temperature=chosen.temperature,
        l2=chosen.l2,
        epochs=chosen.epochs,
        history=chosen.history,
        validated=validated,
        out_of_sample=out_of_sample,
        curve=tuple(curve),
    )


def head_of_train_images(
    features: np.ndarray, rows: TrainingRows, options: HeadOptions, progress: Progress = lambda text: None
) -> Head:
    """A head trained on the training images alone, without temperature; its L2 is chosen by validation.

    Args: see ``fit_head``.
    """
    weights = class_weights(rows, options)
    train = np.flatnonzero(rows.split == TRAIN)
    standardizer = standardizer_of(features, train, _mean_one(weights[train]))
    chosen = choose_l2(features, rows, standardizer, weights, options.epochs, progress)
    return _folded(chosen.heads, 0, standardizer, rows, 1.0)


def probabilities_of(
    features: np.ndarray, head: Head, temperature: float = 1.0, *, places: np.ndarray | None = None
) -> np.ndarray:
    """float32[n, C]: probabilities by a head, its logits times ``temperature``; in a scratch file.

    Args:
      features: float32[N, D].
      head: the head, with standardization and temperature included.
      temperature: undoes the temperature in the head.
      places: int64[n], positions of the rows; None: all rows.
    """
    count = len(features) if places is None else len(places)
    found = scratch(count, head.kernel.shape[1])
    for start in range(0, count, _BLOCK):
        block = slice(start, start + _BLOCK)
        rows = np.asarray(features[block if places is None else places[block]])
        logits = (rows @ head.kernel + head.bias) * np.float32(temperature)
        found[block] = probabilities(logits, head.scores == SIGMOID)
    return found


def class_weights(rows: TrainingRows, options: HeadOptions) -> np.ndarray:
    """float32[N]: weight of each image; for several classes the mean of theirs."""
    if options.class_weights != BALANCED:
        return np.ones(len(rows), np.float32)
    train = rows.targets[rows.split == TRAIN]
    if rows.multi_label:
        each = 1 / np.maximum(train.sum(axis=0, dtype=np.float64), 1)
        return (rows.targets @ each / rows.targets.sum(axis=1)).astype(np.float32)
    each = 1 / np.maximum(np.bincount(train, minlength=len(rows.classes)), 1)
    return each[rows.targets].astype(np.float32)


def _mean_one(weights: np.ndarray) -> np.ndarray:
    return (weights / weights.mean(axis=0, dtype=np.float64)).astype(np.float32)


def _folded(
    heads: Heads, number: int, standardizer: Standardizer, rows: TrainingRows, temperature: float
) -> Head:
    """A head for features that are not standardized."""
    kernel = heads.kernels[number].astype(np.float64) / standardizer.deviation[:, None]
    bias = heads.biases[number] - standardizer.mean.astype(np.float64) @ kernel
    return Head(
        kernel=(kernel / temperature).astype(np.float32),
        bias=(bias / temperature).astype(np.float32),
        scores=SIGMOID if rows.multi_label else SOFTMAX,
        normalizes=rows.base.normalized,
    )


def _out_of_sample(
    features: np.ndarray,
    rows: TrainingRows,
    weights: np.ndarray,
    chosen: Chosen,
    progress: Progress,
) -> np.ndarray:
    """Predictions of each image by a head that has not seen it: trains five at once, each without a fifth."""
    progress(f"training {_FOLDS} heads, each without a part of the images, to find wrong truth")
    order = content_order(rows.table.column("content_hash").to_pylist(), rows.seed + 1)
    fold = (order % np.uint64(_FOLDS)).astype(int)
    seen = (fold[:, None] != np.arange(_FOLDS)) * weights[:, None]
    train = int((rows.split == TRAIN).sum())
    counts = np.maximum((seen > 0).sum(axis=0), 1)
    task = Task(
        features,
        rows.targets,
        np.arange(len(rows)),
        _mean_one(np.maximum(seen, 1e-12)),
        (chosen.l2 * train / counts).astype(np.float32),
        len(rows.classes),
        rows.seed,
    )
    standardizer = standardizer_of(features, task.places, _mean_one(weights))
    heads = train_heads(task, standardizer, chosen.epochs, of=chosen.most_epochs)
    found = scratch(len(rows), len(rows.classes))
    for number in range(_FOLDS):
        head = _folded(heads, number, standardizer, rows, chosen.temperature)
        places = np.flatnonzero(fold == number)
        for start in range(0, len(places), _BLOCK):
            block = places[start : start + _BLOCK]
            logits = np.asarray(features[block]) @ head.kernel + head.bias
            found[block] = probabilities(logits, rows.multi_label)
    return found


def _part(rows: TrainingRows, train: np.ndarray, part: float) -> np.ndarray:
    """A part of each class's training images, at least one; copies stay together, larger parts include smaller ones."""
    order = content_order(rows.table.column("content_hash").take(train).to_pylist(), rows.seed)
    targets = rows.targets[train]
    taken = np.zeros(len(train), bool)
    for number in range(len(rows.classes)):
        members = np.flatnonzero(targets == number if targets.ndim == 1 else targets[:, number])
        if len(members):
            limit = np.sort(order[members])[max(round(len(members) * part), 1) - 1]
            taken[members[order[members] <= limit]] = True
    return train[taken]
