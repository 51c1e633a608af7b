"""The images of a fine-tuning and their truth, in batches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from beamlabel.pipeline.train.rows.rows import TrainingRows
from beamlabel.pipeline.train.rows.split import TRAIN, VALIDATION

# Number of steps that suffices for thousands of images, and limits of the epochs that result.
_STEPS, _FEWEST, _MOST = 1200, 6, 30


@dataclass(frozen=True, eq=False)
class Task:
    """Images and truth.

    Attributes:
      pixels: uint8[M, height, width, 3].
      index: int64[N], position in ``pixels`` of each row's image.
      rows: the N rows.
      weights: float32[N], weight of each image.
      batch_size: images per step.
      seed: seed of order and augmentation.
    """

    pixels: np.ndarray
    index: np.ndarray
    rows: TrainingRows
    weights: np.ndarray
    batch_size: int
    seed: int

    @property
    def train(self) -> np.ndarray:
        """The rows to train on."""
        return np.flatnonzero(self.rows.split == TRAIN)

    @property
    def validation(self) -> np.ndarray:
        """The rows that decide when the training stops."""
        return np.flatnonzero(self.rows.split == VALIDATION)

    def steps(self, images: int) -> int:
        """Steps of an epoch over this many images; a remainder smaller than a batch is left to another epoch."""
        return max(1, images // self.batch_size)

    @property
    def default_epochs(self) -> int:
        """Number of epochs if no option sets it."""
        return int(np.clip(round(_STEPS / self.steps(len(self.train))), _FEWEST, _MOST))

    def images(self, places: np.ndarray) -> np.ndarray:
        """uint8[n, height, width, 3]: the images of rows."""
        return np.asarray(self.pixels[self.index[places]])

    def targets(self, places: np.ndarray) -> np.ndarray:
        """float32[n, C]: the expected outputs for rows."""
        chosen = self.rows.targets[places]
        if chosen.ndim == 2:
            return chosen.astype(np.float32)
        return np.eye(len(self.rows.classes), dtype=np.float32)[chosen]


def batches(task: Task, places: np.ndarray, *, shuffled: bool) -> Any:
    """A ``keras.utils.PyDataset`` of rows; ``begin_epoch(number)`` shuffles its order for that epoch."""
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
