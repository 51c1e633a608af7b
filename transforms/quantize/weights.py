"""Widens int8 weights as far as the CPU's sums of two products allow, and corrects biases for their rounding.

CPUs without VNNI multiply unsigned by signed bytes with ``vpmaddubsw``, which adds the products of two adjacent
channels in 16 bits and saturates: 255 · 127 + 255 · 127 exceeds 32,767. NNCF's default lets that happen in all layers
but the first, and its ``OverflowFix.ENABLE`` halves all weights to 7 bits. The true requirement is weaker: among any
two weights of channels 2k and 2k + 1, the positive ones must sum to at most 128, and so must the absolute values of the
negative ones, since 255 · 128 is 32,640. So each output channel gets the smallest scale that meets it. With VNNI there
is no such sum, and the results are the same.

A depthwise convolution has no sum over channels, so its weights keep their 8 bits. See Intel's Intrinsics Guide,
``_mm256_maddubs_epi16``, and https://uxlfoundation.github.io/oneDNN/dev_guide_int8_computations.html.

The means of a layer's inputs determine the mean change that weight rounding causes in its output. The bias takes it
back (Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction", 4.2).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from beamlabel.transforms.quantize.layers import (
    CONVOLUTION,
    DENSE,
    GROUP_CONVOLUTION,
    Layer,
    layers,
    replace_constant,
)

_LARGEST = 127
_LARGEST_PAIR = 128
_STEP = 1.005


def original_weights(model: Any) -> dict[str, np.ndarray]:
    """The weights of a model's layers in float32, by the operation's name."""
    return {one.operation.get_friendly_name(): np.array(one.weights.data) for one in layers(model)}


def channel_means(model: Any, images: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """The mean of each input channel of each layer, float64[channels], by the operation's name.

    Args:
      model: a model that takes one image at a time.
      images: uint8[height, width, 3] each.
    """
    import openvino
    from openvino import opset13

    found = layers(model)
    results = []
    for one in found:
        source = one.operation.input_value(0)
        axes = [0] if one.kind == DENSE else [0, *range(2, len(source.get_partial_shape()))]
        mean = opset13.reduce_mean(source, opset13.constant(np.array(axes, np.int64)), keep_dims=False)
        results.append(opset13.result(mean))
    observed = openvino.Model(results, model.get_parameters(), "means")
    compiled = openvino.Core().compile_model(observed, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    sums: list[Any] = [0.0] * len(found)
    for image in images:
        answers = compiled(image[None])
        sums = [before + answers[place].astype(np.float64).ravel() for place, before in enumerate(sums)]
    return {
        one.operation.get_friendly_name(): total / len(images) for one, total in zip(found, sums, strict=True)
    }


def widen(model: Any, originals: dict[str, np.ndarray], means: dict[str, np.ndarray]) -> None:
    """Gives NNCF's model the widest weights that cannot saturate, and corrects its biases.

    Args:
      model: a model quantized with ``OverflowFix.ENABLE`` and without NNCF's own bias correction.
      originals, means: weights and channel means of the original model, see above.
    """
    for layer in layers(model):
        name = layer.operation.get_friendly_name()
        scale_node = layer.scale() if layer.is_int8 else None
        if scale_node is None or name not in originals:
            continue
        weights = originals[name].astype(np.float64)
        if layer.kind == CONVOLUTION:
            quantized, scale = _quantized(weights)
            replace_constant(layer.weights, quantized)
            replace_constant(scale_node, scale)
        else:
            quantized, scale = layer.weights.data, scale_node.data
        rounded = quantized.astype(np.float64) * scale.astype(np.float32).astype(np.float64)
        _correct_bias(layer, weights - rounded.reshape(weights.shape), means[name])


def _quantized(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Integers and the scale of each output channel, for weights float64[out, in, ...]."""
    widest = np.abs(weights).reshape(len(weights), -1).max(axis=1) / _LARGEST
    scale = np.maximum(widest, largest_pair(weights) / _LARGEST_PAIR)
    scale[scale == 0] = 1
    while True:
        column = scale.reshape(-1, *[1] * (weights.ndim - 1))
        quantized = np.clip(np.rint(weights / column), -_LARGEST, _LARGEST)
        # Rounding may have increased the sum of a pair.
        over = largest_pair(quantized) > _LARGEST_PAIR
        if not over.any():
            return quantized, column
        scale = np.where(over, scale * _STEP, scale)


def largest_pair(weights: np.ndarray) -> np.ndarray:
    """The largest sum of same-sign weights in channels 2k and 2k + 1, for each output channel; float64[out]."""
    flat = weights.reshape(*weights.shape[:2], -1)
    if flat.shape[1] % 2:
        flat = np.concatenate([flat, np.zeros_like(flat[:, :1])], axis=1)
    sums = [part[:, 0::2] + part[:, 1::2] for part in (np.maximum(flat, 0), np.maximum(-flat, 0))]
    largest: np.ndarray = np.maximum(*(one.max(axis=(1, 2)) for one in sums))
    return largest


def _correct_bias(layer: Layer, lost: np.ndarray, means: np.ndarray) -> None:
    """Adds the mean that the rounding took away; leaves a layer without a bias as it is."""
    bias = layer.bias()
    if bias is None:
        return
    if layer.kind == GROUP_CONVOLUTION:
        groups, _, inputs = lost.shape[:3]
        sums = lost.reshape(*lost.shape[:3], -1).sum(axis=3)
        shift = np.einsum("goi,gi->go", sums, means.reshape(groups, inputs)).ravel()
    elif layer.kind == CONVOLUTION:
        shift = lost.reshape(*lost.shape[:2], -1).sum(axis=2) @ means
    else:
        is_transposed = layer.operation.get_attributes().get("transpose_b", False)
        shift = (lost if is_transposed else lost.T) @ means
    if bias.data.size == shift.size:
        replace_constant(bias, bias.data.astype(np.float64).ravel() + shift)
