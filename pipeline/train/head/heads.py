"""Trains many linear heads in one pass over the features, each with its own row weights and L2 strength."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from beamlabel.pipeline.train.head.repeatable import repeatable
from beamlabel.pipeline.train.head.standardize import Standardizer

_VALUES_PER_BATCH = 1 << 24
_MAX_BATCH = 8192
_MOMENTUM = 0.9
_LEARNING_RATE = 0.5
# Passes over the rows, and steps, that suffice if the training does not stop early.
_EPOCHS, _STEPS = 8, 150


@dataclass(frozen=True, eq=False)
class Heads:
    """Linear layers on standardized features.

    Attributes:
      kernels: float32[G, D, C].
      biases: float32[G, C].
    """

    kernels: np.ndarray
    biases: np.ndarray

    def logits(self, features: np.ndarray) -> np.ndarray:
        """float32[G, n, C] of standardized features."""
        return np.matmul(features[None], self.kernels) + self.biases[:, None]


@dataclass(frozen=True, eq=False)
class Task:
    """The input of the training.

    Attributes:
      features: float32[N, D], mapped.
      targets: int32[N], or uint8[N, C] for several classes per image.
      places: int64[n], positions of the rows that any head uses, ascending.
      weights: float32[n, G], weight of each row for each head, 1 on average for each head.
      l2: float32[G], weight in mean loss + l2/2 · the sum of squares of the kernel.
      classes: number of classes.
      seed: seed for the order of the batches.
    """

    features: np.ndarray
    targets: np.ndarray
    places: np.ndarray
    weights: np.ndarray
    l2: np.ndarray
    classes: int
    seed: int

    @property
    def steps(self) -> int:
        """Batches per epoch."""
        size = max(256, min(_MAX_BATCH, _VALUES_PER_BATCH // (self.classes * len(self.l2))))
        return -(-len(self.places) // size)

    @property
    def most_epochs(self) -> int:
        """Epochs that suffice if the training does not stop early."""
        return max(_EPOCHS, -(-_STEPS // self.steps))


def train_heads(
    task: Task,
    standardizer: Standardizer,
    epochs: int,
    after_epoch: Callable[[int, Callable[[], Heads]], bool] | None = None,
    *,
    of: int,
) -> Heads:
    """Trains all heads at once.

    Args:
      task: input of the training.
      standardizer: statistics of the features.
      epochs: passes over the rows.
      after_epoch: receives the epoch's number, from 1, and a function that returns the current heads; True ends the
        training.
      of: number of epochs if the training does not end early; with several batches, the last steps are small.

    Returns:
      The heads after the last epoch.
    """
    with repeatable(task.seed):
        return _train(task, standardizer, epochs, after_epoch, of)


def _train(
    task: Task,
    standardizer: Standardizer,
    epochs: int,
    after_epoch: Callable[[int, Callable[[], Heads]], bool] | None,
    of: int,
) -> Heads:
    import keras

    layer = _layer(task, standardizer)
    inputs = keras.Input((task.features.shape[1],))
    scaled = keras.layers.Normalization(mean=standardizer.mean, variance=standardizer.deviation**2)(inputs)
    model = keras.Model(inputs, layer(scaled))
    rate: Any = _LEARNING_RATE
    if task.steps > 1:
        rate = keras.optimizers.schedules.CosineDecay(_LEARNING_RATE, of * task.steps)
    optimizer = keras.optimizers.SGD(rate, momentum=_MOMENTUM, nesterov=True)
    model.compile(optimizer, loss=_loss(task.targets.ndim == 2))

    class _AfterEpoch(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
            if after_epoch is not None and after_epoch(epoch + 1, lambda: _heads(layer)):
                self.model.stop_training = True

    model.fit(_batches(task), epochs=epochs, verbose=0, callbacks=[_AfterEpoch()], shuffle=False)
    return _heads(layer)


def _loss(multi_label: bool) -> Callable[[Any, Any], Any]:
    """The loss of each row for each head, [batch, G], so that each head's weights apply."""
    from keras import ops

    def loss(targets: Any, logits: Any) -> Any:
        heads = logits.shape[1]
        if multi_label:
            wanted = ops.cast(ops.repeat(targets[:, None, :], heads, axis=1), "float32")
            losses = ops.sum(ops.binary_crossentropy(wanted, logits, from_logits=True), axis=-1)
        else:
            wanted = ops.repeat(ops.reshape(targets, (-1, 1)), heads, axis=1)
            losses = ops.sparse_categorical_crossentropy(wanted, logits, from_logits=True)
        # Keras averages over rows and heads.
        return losses * heads

    return loss


def _layer(task: Task, standardizer: Standardizer) -> Any:
    import keras
    from keras import ops

    heads, dimension = len(task.l2), task.features.shape[1]
    # Upper bound of the loss's second derivative along each axis: Böhning, Multinomial logistic regression algorithm,
    # 1992. In these units all are at most 1, so that one learning rate fits all weights.
    bound = 0.25 if task.targets.ndim == 2 else 0.5
    # A batch may vary more along an axis than all rows: Marchenko and Pastur's upper edge.
    excess = 1.0 if task.steps == 1 else (1 + np.sqrt(dimension * task.steps / len(task.places))) ** 2
    curvature = excess * bound * standardizer.spectrum[:, None] + task.l2[None, :].astype(np.float64)
    units = (1 / np.sqrt(curvature)).astype(np.float32)

    class _Layer(keras.layers.Layer):
        def build(self, shape: Any) -> None:
            size = (dimension, heads, task.classes)
            self.weights_ = self.add_weight(shape=size, initializer="zeros", name="weights")
            self.bias_ = self.add_weight(shape=(heads, task.classes), initializer="zeros", name="bias")
            self.units_ = ops.convert_to_tensor(units[:, :, None])
            self.axes_ = ops.convert_to_tensor(standardizer.axes)
            self.l2_ = ops.convert_to_tensor(task.l2.astype(np.float32))

        def kernels(self) -> Any:
            return ops.matmul(self.axes_, ops.reshape(self.weights_ * self.units_, (dimension, -1)))

        def bias(self) -> Any:
            return self.bias_ * bound**-0.5

        def call(self, features: Any) -> Any:
            kernels = self.weights_ * self.units_
            # The axes are orthonormal, so the kernel has the same sum of squares.
            squares = ops.sum(ops.square(kernels), axis=(0, 2))
            self.add_loss(0.5 * ops.sum(self.l2_ * squares))
            logits = ops.matmul(features, self.kernels())
            return ops.reshape(logits, (-1, heads, task.classes)) + self.bias()

    return _Layer()


def _heads(layer: Any) -> Heads:
    kernels = np.asarray(layer.kernels()).reshape(layer.weights_.shape)
    return Heads(np.ascontiguousarray(kernels.transpose(1, 0, 2)), np.asarray(layer.bias()))


def _batches(task: Task) -> Any:
    import keras

    count = task.steps
    # Sizes differ by one row at most.
    bounds = np.linspace(0, len(task.places), count + 1).round().astype(int)

    class _Batches(keras.utils.PyDataset):
        """Blocks of rows in a new order each epoch; a hash of the images decides which rows share a block."""

        def __init__(self) -> None:
            super().__init__(workers=1, use_multiprocessing=False)
            self.random = np.random.default_rng(task.seed)
            self.order = self.random.permutation(count)

        def __len__(self) -> int:
            return count

        def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
            number = self.order[index]
            block = slice(bounds[number], bounds[number + 1])
            places = task.places[block]
            return np.asarray(task.features[places]), task.targets[places], task.weights[block]

        def on_epoch_end(self) -> None:
            self.order = self.random.permutation(count)

    return _Batches()
