"""What a fine-tuning is given: the images and their truth, in batches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from beamlabel.pipeline.train.rows.rows import TrainingRows
from beamlabel.pipeline.train.rows.split import TRAIN, VALIDATION

# Steps that suffice for thousands of images, and the epochs that they may come to.
_STEPS, _FEWEST, _MOST = 1200, 6, 30


@dataclass(frozen=True, eq=False)
class Task:
    """Images and truth.

    Attributes:
      pixels: uint8[M, height, width, 3].
      index: int64[N], where in ``pixels`` the image of a row is.
      rows: N of them.
      weights: float32[N], how much each image counts.
      batch_size: images a step.
      seed: of order and augmentation.
    """

    pixels: np.ndarray
    index: np.ndarray
    rows: TrainingRows
    weights: np.ndarray
    batch_size: int
    seed: int

    @property
    def train(self) -> np.ndarray:
        """The rows that are trained on."""
        return np.flatnonzero(self.rows.split == TRAIN)

    @property
    def validation(self) -> np.ndarray:
        """The rows that decide when training stops."""
        return np.flatnonzero(self.rows.split == VALIDATION)

    def steps(self, images: int) -> int:
        """Steps of an epoch over so many images; a rest that makes no batch is left to another epoch."""
        return max(1, images // self.batch_size)

    @property
    def default_epochs(self) -> int:
        """How many epochs there are if nobody says."""
        return int(np.clip(round(_STEPS / self.steps(len(self.train))), _FEWEST, _MOST))

    def images(self, places: np.ndarray) -> np.ndarray:
        """uint8[n, height, width, 3] of rows."""
        return np.asarray(self.pixels[self.index[places]])

    def targets(self, places: np.ndarray) -> np.ndarray:
        """float32[n, C]: what the outputs for rows should be."""
        chosen = self.rows.targets[places]
        if chosen.ndim == 2:
            return chosen.astype(np.float32)
        return np.eye(len(self.rows.classes), dtype=np.float32)[chosen]


def batches(task: Task, places: np.ndarray, *, shuffled: bool) -> Any:
    """A ``keras.utils.PyDataset`` of rows; ``begin_epoch(number)`` puts shuffled ones in that epoch's order."""
    import keras

    class Batches(keras.utils.PyDataset):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self._order = places

        def __len__(self) -> int:
            return task.steps(len(places)) if shuffled else -(-len(places) // task.batch_size)

        def __getitem__(self, number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
            chosen = self._order[number * task.batch_size : (number + 1) * task.batch_size]
            return task.images(chosen), task.targets(chosen), task.weights[chosen]

        def begin_epoch(self, epoch: int) -> None:
            self._order = np.random.default_rng((task.seed, epoch)).permutation(places)

    return Batches()
