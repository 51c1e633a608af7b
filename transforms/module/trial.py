"""Tries a module's outputs on images before one is chosen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from beamlabel.transforms.inference.artifact import LOGITS, ModuleError
from beamlabel.transforms.inference.lazy_tensorflow import tensorflow
from beamlabel.transforms.inference.probe import extreme_batch, probe_batch
from beamlabel.transforms.module.freeze import freeze_function, to_float
from beamlabel.transforms.module.outputs import ImageInput, ModuleSource, OptionError, Output, format_shape
from beamlabel.transforms.module.score_kind import (
    INDEPENDENT,
    LOG_PROBABILITIES,
    PROBABILITIES,
    RanksError,
    score_kind,
)

ImageFunction = Callable[[Any], Sequence[Any]]


class _NoVectorError(ModuleError):
    """An output does not have a vector of floats for each image."""


class ModuleTrial:
    """Implements ``choose.Trial``.

    Args:
      source: the module.
      image_size: returns (height, width) for an input, or raises ``OptionError``.
      input_range: the input values for black and white.
    """

    def __init__(
        self,
        source: ModuleSource,
        image_size: Callable[[ImageInput], tuple[int, int]],
        input_range: tuple[float, float],
    ) -> None:
        self._source = source
        self._image_size = image_size
        self._input_range = input_range

    def image_input(self, outputs: Sequence[Output]) -> ImageInput:
        """The input that the outputs share, apart from its name."""
        inputs = [self._source.signatures[output.signature].image_input() for output in outputs]
        if len({(one.height, one.width, one.channels_first, one.batch, one.dtype) for one in inputs}) > 1:
            shapes = " and ".join(
                format_shape(self._source.signatures[output.signature].inputs[0].shape) for output in outputs
            )
            raise ModuleError(f"its logits and features take images of different shapes: {shapes}")
        return inputs[0]

    def values(self, outputs: Sequence[Output]) -> list[np.ndarray]:
        """See ``choose.Trial``."""
        image_input = self.image_input(outputs)
        height, width = self._image_size(image_input)
        return self._ask(outputs, image_input, probe_batch(height, width))

    def is_scores(self, output: Output) -> bool:
        """See ``choose.Trial``."""
        image_input = self.image_input([output])
        height, width = self._image_size(image_input)
        probes = probe_batch(height, width)
        try:
            (values,) = self._ask_also_extremes(output, image_input, probes)
        except _NoVectorError:
            return False
        if values.min() < -1 and values.max() > 1:
            return False
        run = adapted(self._source.function_of([output]), image_input)
        try:
            graph_def = freeze_function(
                lambda images: list(run(to_float(images, self._input_range))),
                (image_input.batch, height, width, 3),
                [LOGITS],
            )
        except Exception:
            # TensorFlow may raise anything for a graph that cannot be frozen; then only values decide.
            graph_def = None
        try:
            kind = score_kind(values, output.key, graph_def, LOGITS)
        except RanksError:
            return False
        return kind.kind in (PROBABILITIES, INDEPENDENT, LOG_PROBABILITIES)

    def _ask_also_extremes(
        self, output: Output, image_input: ImageInput, probes: np.ndarray
    ) -> list[np.ndarray]:
        extremes = extreme_batch(*probes.shape[1:3])
        try:
            return self._ask([output], image_input, np.concatenate([probes, extremes]))
        except tensorflow().errors.OpError:
            # The module may refuse a black or a white image by an assertion.
            return self._ask([output], image_input, probes)

    def _ask(
        self, outputs: Sequence[Output], image_input: ImageInput, pixels: np.ndarray
    ) -> list[np.ndarray]:
        """Runs the outputs on images, each float32[N, D]."""
        dtype = tensorflow().dtypes.as_dtype(image_input.dtype)
        if dtype.is_integer and self._input_range != (0, 255):
            raise OptionError(f"it takes {dtype.name} images; use --input_range 0,255")
        height, width = pixels.shape[1:3]
        try:
            run = adapted(self._source.function_of(outputs), image_input)
            results = [result.numpy() for result in run(to_float(pixels, self._input_range))]
        except Exception as error:
            # Any exception from the network is the module's fault.
            raise ModuleError(
                f"it fails on a batch of {height}x{width} images ({type(error).__name__}: {error})"
            ) from error
        return [
            _vectors(output, result, len(pixels)) for output, result in zip(outputs, results, strict=True)
        ]


def adapted(function: ImageFunction, image_input: ImageInput) -> ImageFunction:
    """Adapts the module's function to float32[N, H, W, 3] for any N.

    For a module with a fixed batch size, N must equal it or be known, so that images can be cut and padded.
    """
    tf = tensorflow()
    size = image_input.batch

    def once(images: Any) -> Sequence[Any]:
        images = tf.cast(images, image_input.dtype)
        results = function(tf.transpose(images, [0, 3, 1, 2]) if image_input.channels_first else images)
        # A batch of one may lack its batch dimension.
        return [tf.expand_dims(one, 0) if size == 1 and one.shape.rank == 1 else one for one in results]

    def run(images: Any) -> Sequence[Any]:
        if size is None or images.shape[0] == size:
            return once(images)
        count = images.shape[0]
        filling = -count % size
        whole = tf.concat([images, tf.repeat(images[-1:], filling, axis=0)], 0)
        parts = [once(whole[start : start + size]) for start in range(0, count + filling, size)]
        return [tf.concat(ones, 0)[:count] for ones in zip(*parts, strict=True)]

    return run


def _vectors(output: Output, values: np.ndarray, count: int) -> np.ndarray:
    """Reshapes a result [N, D], [N, 1, 1, D] or [N, D, 1, 1] to float32[N, D].

    Raises:
      ModuleError: it does not have a vector for each image, or is not of floats.
    """
    shape = values.shape
    if values.dtype.kind not in "fV":
        raise _NoVectorError(
            f"{output.name} has dtype {values.dtype}, but scores and features must be floats"
        )
    if len(shape) == 4 and 1 not in (shape[1] * shape[2], shape[2] * shape[3]):
        raise _NoVectorError(
            f"{output.name} is a feature map {format_shape((None, *shape[1:]))}, not a vector; name a pooled output, "
            "or export the module with global average pooling"
        )
    if len(shape) not in (2, 4) or 0 in shape:
        raise _NoVectorError(
            f"{output.name} is {format_shape((None, *shape[1:]))}, not [?, D]; name another output, or leave it out "
            "with 'none'"
        )
    if shape[0] != count:
        raise _NoVectorError(f"{output.name} has {shape[0]} rows for {count} images")
    return values.reshape(count, -1).astype(np.float32)
