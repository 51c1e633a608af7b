"""Chooses the strength of L2, the number of epochs and the temperature on the validation images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from beamlabel.pipeline.train.findings.evaluate_head import right
from beamlabel.pipeline.train.findings.findings import Epoch
from beamlabel.pipeline.train.findings.temperature import loss_of, probabilities, temperature_of
from beamlabel.pipeline.train.head.heads import Heads, Task, train_heads
from beamlabel.pipeline.train.head.standardize import Standardizer
from beamlabel.pipeline.train.rows.rows import TrainingRows
from beamlabel.pipeline.train.rows.split import TRAIN, VALIDATION

# Multiplied by dimension / images: from a strength that leaves only the class means to almost none.
_STRENGTHS = 10.0 ** np.arange(1, -3.5, -0.5)
# Most images, of training and of validation, that one check of the training reads; most logits of all heads.
_LOOK, _LOGITS = 16_384, 1 << 24
# Checks without a better head that end the training, and the least relative improvement.
_PATIENCE, _BETTER = 4, 1e-3
_STEPS_BETWEEN = 5


@dataclass(frozen=True, eq=False)
class Chosen:
    """The choice made on the validation images.

    Attributes:
      l2: weight in mean loss + l2/2 · the sum of squares.
      epochs: epoch after which the head was best, of ``most_epochs``.
      temperature: divisor of its logits.
      heads: this head alone.
      history: epochs of its training.
    """

    l2: float
    epochs: int
    most_epochs: int
    temperature: float
    heads: Heads
    history: tuple[Epoch, ...]


@dataclass
class _Best:
    """The best state of a head so far."""

    loss: float = float("inf")
    epoch: int = 0
    kernel: np.ndarray | None = None
    bias: np.ndarray | None = None


def choose_l2(
    features: np.ndarray,
    rows: TrainingRows,
    standardizer: Standardizer,
    weights: np.ndarray,
    epochs: int | None,
    progress: Callable[[str], None],
) -> Chosen:
    """Trains heads of all strengths at once on the training images and returns the best state of the best head.

    A head is better if it has a smaller validation loss at its own best temperature. Overconfidence does not count,
    since the temperature corrects it.

    Args:
      features: float32[N, D].
      rows: the N rows.
      standardizer: statistics of the training images.
      weights: float32[N], weights of the images.
      epochs: largest number of epochs; None: set by the number of images.
      progress: receives lines of progress.
    """
    train, validation = (np.flatnonzero(rows.split == where) for where in (TRAIN, VALIDATION))
    l2 = (_STRENGTHS * features.shape[1] / len(train)).astype(np.float32)
    own = weights[train] / weights[train].mean(dtype=np.float64)
    task = Task(
        features, rows.targets, train, np.repeat(own[:, None], len(l2), axis=1).astype(np.float32), l2,
        len(rows.classes), rows.seed,
    )  # fmt: skip
    most = epochs or task.most_epochs
    look = _Look(features, rows, standardizer, train, validation, len(l2), most, progress)
    every = max(1, _STEPS_BETWEEN // task.steps)

    def after_epoch(number: int, heads: Callable[[], Heads]) -> bool:
        is_idle = (number % every == 0 or number == most) and look.at(number, heads())
        # With several batches per epoch, the steps have to become small first.
        return is_idle and task.steps == 1

    train_heads(task, standardizer, most, after_epoch, of=most)
    number = min(range(len(l2)), key=lambda one: look.best[one].loss)
    best = look.best[number]
    assert best.kernel is not None and best.bias is not None
    heads = Heads(best.kernel[None], best.bias[None])
    logits = np.concatenate(
        [
            heads.logits(look.scaled(validation[start : start + _LOOK]))[0]
            for start in range(0, len(validation), _LOOK)
        ]
    )
    temperature, _ = temperature_of(logits, rows.targets[validation])
    return Chosen(float(l2[number]), best.epoch, most, temperature, heads, tuple(look.history[number]))


class _Look:
    """Checks heads in training, and keeps the best state and the history of each."""

    def __init__(
        self,
        features: np.ndarray,
        rows: TrainingRows,
        standardizer: Standardizer,
        train: np.ndarray,
        validation: np.ndarray,
        heads: int,
        most: int,
        progress: Callable[[str], None],
    ) -> None:
        self._features, self._rows, self._standardizer = features, rows, standardizer
        size = max(256, min(_LOOK, _LOGITS // (heads * len(rows.classes))))
        self._train, self._validation = train[:size], validation[:size]
        self._most, self._progress = most, progress
        self._idle = 0
        self.best = [_Best() for _ in range(heads)]
        self.history: list[list[Epoch]] = [[] for _ in range(heads)]

    def scaled(self, places: np.ndarray) -> np.ndarray:
        return (self._features[places] - self._standardizer.mean) / self._standardizer.deviation

    def at(self, number: int, heads: Heads) -> bool:
        """Checks the heads; returns whether none of them improves any more."""
        targets = self._rows.targets
        trained = heads.logits(self.scaled(self._train))
        validated = heads.logits(self.scaled(self._validation))
        is_better = False
        for place, best in enumerate(self.best):
            logits, truth = validated[place], targets[self._validation]
            accuracy = right(probabilities(logits, self._rows.multi_label), truth).mean()
            self.history[place].append(
                Epoch(
                    number,
                    loss_of(trained[place], targets[self._train]),
                    loss_of(logits, truth),
                    float(accuracy),
                )
            )
            _, loss = temperature_of(logits, truth)
            if loss < best.loss:
                is_better |= loss < best.loss * (1 - _BETTER)
                best.loss, best.epoch = loss, number
                best.kernel, best.bias = heads.kernels[place].copy(), heads.biases[place].copy()
        self._idle = 0 if is_better else self._idle + 1
        leader = min(range(len(self.best)), key=lambda one: self.best[one].loss)
        last = self.history[leader][-1]
        self._progress(
            f"epoch {number} of {self._most} at most: loss {last.loss:.4f}, validation loss "
            f"{last.validation_loss:.4f}, validation accuracy {last.validation_accuracy:.1%}"
        )
        return self._idle >= _PATIENCE
