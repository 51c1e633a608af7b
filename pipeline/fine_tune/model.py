"""Builds network and head as one Keras model of pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from beamlabel.pipeline.fine_tune.network import FROZEN, Network
from beamlabel.pipeline.fine_tune.options import DEFAULT, FineTuneOptions
from beamlabel.transforms.inference.lazy_tensorflow import tensorflow
from beamlabel.transforms.module.freeze import to_float
from beamlabel.transforms.own_module.head import Head

# Smallest side of a crop, and largest change of brightness, contrast and saturation.
_CROP, _COLOUR = 0.7, 0.2
_WARM_UP, _WEIGHT_DECAY, _CLIP = 0.1, 1e-4, 1.0
# Upper bound of the random numbers that a layer draws in an epoch.
_DRAWS = 1 << 20


@dataclass(frozen=True, eq=False)
class TrainedModel:
    """The model that Keras trains.

    Attributes:
      keras: uint8[N, height, width, 3] → logits float32[N, C].
      seeds: seed generators of the layers with randomness.
      trained: whether each variable of the network is trained.
    """

    keras: Any
    seeds: Sequence[Any]
    trained: Sequence[bool]

    def begin_epoch(self, seed: int, epoch: int) -> None:
        """Makes random numbers a function of seed and epoch, so that a resumed training gives the same result."""
        for number, generator in enumerate(self.seeds):
            generator.state.assign(np.array([seed + number, epoch * _DRAWS], np.uint32))

    def head(self, scores: str, temperature: float = 1.0) -> Head:
        """The current head, with its logits divided by a temperature."""
        kernel, bias = (np.asarray(one.numpy(), np.float32) for one in self.keras.get_layer("head").weights)
        return Head(kernel / np.float32(temperature), bias / np.float32(temperature), scores)


def build_model(
    network: Network,
    trained: Sequence[bool],
    mode: str,
    size: tuple[int, int],
    input_range: tuple[float, float],
    head: Head,
    options: FineTuneOptions,
) -> TrainedModel:
    """Builds a model with the batch statistics in ``mode``, see ``network``, and ``head`` as the initial head."""
    import keras

    images = keras.Input((*size, 3), dtype="uint8")
    augmentation = _augmentation() if options.augment == DEFAULT else []
    values = keras.layers.Rescaling(1.0)(images)
    for layer in augmentation:
        values = layer(values)
    base = _layer(network, trained, mode, input_range, head.kernel.shape[0])
    dropout = keras.layers.Dropout(options.dropout, seed=0)
    last = keras.layers.Dense(head.kernel.shape[1], name="head", dtype="float32")
    model = keras.Model(images, last(dropout(base(values))))
    last.set_weights([head.kernel, head.bias])
    seeds = [layer.generator for layer in augmentation]
    if options.dropout:
        seeds.append(dropout.seed_generator)
    return TrainedModel(model, seeds, trained)


def compile_model(
    model: TrainedModel, options: FineTuneOptions, steps: int, multi_label: bool, *, is_16_bits: bool
) -> None:
    """Sets loss, optimizer and learning rate: a warm-up, then a cosine down to zero, over ``steps`` steps in all."""
    import keras

    warm_up = max(1, int(steps * _WARM_UP))
    rate = keras.optimizers.schedules.CosineDecay(
        0.0, max(1, steps - warm_up), warmup_target=options.learning_rate, warmup_steps=warm_up
    )
    optimizer = keras.optimizers.AdamW(rate, weight_decay=_WEIGHT_DECAY, global_clipnorm=_CLIP)
    if is_16_bits:
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    smoothing = options.label_smoothing
    if multi_label:
        loss: Any = keras.losses.BinaryCrossentropy(from_logits=True, label_smoothing=smoothing)
        accuracy: Any = keras.metrics.BinaryAccuracy(name="accuracy", threshold=0.0)
    else:
        loss = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=smoothing)
        accuracy = keras.metrics.CategoricalAccuracy(name="accuracy")
    model.keras.compile(optimizer, loss, weighted_metrics=[], metrics=[accuracy], jit_compile=False)


def use_16_bits(mode: str) -> bool:
    """Whether to compute in 16 bits. If so, turns it on in TensorFlow's graph optimizer, which picks the safe ops."""
    tf = tensorflow()
    has_gpu = bool(tf.config.list_physical_devices("GPU"))
    for gpu in tf.config.list_physical_devices("GPU"):
        tf.config.experimental.set_memory_growth(gpu, True)
    if mode == "off" or (mode == "auto" and not has_gpu):
        return False
    name = "auto_mixed_precision" if has_gpu else "auto_mixed_precision_onednn_bfloat16"
    tf.config.optimizer.set_experimental_options({name: True})
    # Bfloat16 has the range of float32, so the loss needs no scaling.
    return has_gpu


def _augmentation() -> list[Any]:
    """Keras layers for values from 0 to 255; zoom and shift together act as a random resized crop."""
    import keras

    layers = keras.layers
    shift = (1 - _CROP) / 4
    return [
        layers.RandomFlip("horizontal", seed=1),
        layers.RandomZoom((_CROP - 1, 0.0), (_CROP - 1, 0.0), fill_mode="reflect", seed=2),
        layers.RandomTranslation(shift, shift, fill_mode="reflect", seed=3),
        layers.RandomBrightness(_COLOUR, value_range=(0, 255), seed=4),
        layers.RandomContrast(_COLOUR, value_range=(0, 255), seed=5),
        layers.RandomSaturation((0.5 - _COLOUR / 2, 0.5 + _COLOUR / 2), value_range=(0, 255), seed=6),
    ]


def augmentation_facts() -> list[dict[str, Any]]:
    """The layers of the augmentation in the form of the record."""
    return [
        {
            "layer": type(layer).__name__,
            **{key: value for key, value in layer.get_config().items() if _is_told(key)},
        }
        for layer in _augmentation()
    ]


def _is_told(key: str) -> bool:
    return key not in ("name", "dtype", "trainable", "seed", "data_format", "interpolation", "fill_value")


def _layer(
    network: Network, trained: Sequence[bool], mode: str, input_range: tuple[float, float], dimension: int
) -> Any:
    """The network as a layer that takes values from 0 to 255."""
    import keras

    class Base(keras.layers.Layer):  # type: ignore[misc]
        """Tracks the variables, as ``keras.layers.TFSMLayer`` does."""

        def __init__(self) -> None:
            super().__init__(name="base", dtype="float32")
            self.network_variables = [
                keras.Variable(variable, trainable=is_trained, dtype=variable.dtype.name, name=f"v{place}")
                for place, (variable, is_trained) in enumerate(zip(network.variables, trained, strict=True))
            ]

        def call(self, values: Any, training: bool = False) -> Any:
            function = network.train[mode] if training and mode != FROZEN else network.infer
            return function(to_float(values, input_range))

        def compute_output_shape(self, shape: Any) -> tuple[Any, int]:
            return (shape[0], dimension)

    return Base()
