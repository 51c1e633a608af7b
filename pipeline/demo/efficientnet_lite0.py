"""EfficientNet-Lite0 as a TensorFlow 1 graph, around the weights of a PyTorch checkpoint.

The network is EfficientNet-B0 (Tan and Le, "EfficientNet", 2019, table 1) in its Lite form: without
squeeze-and-excitation, with ReLU6 instead of swish, and with a stem and a head of fixed width. Paddings are
TensorFlow's ``SAME``, with which the weights were trained; batch norm is folded into the convolutions.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

IMAGE_SIZE = 224
BATCH_NORM_EPSILON = 1e-3
SCOPE = "EfficientnetLite0"


class BlockGroup(NamedTuple):
    """A row of the paper's table. The first of the ``repeats`` blocks has the stride; the others have stride 1."""

    repeats: int
    kernel: int
    stride: int
    expansion: int
    filters: int


BLOCK_GROUPS = (
    BlockGroup(repeats=1, kernel=3, stride=1, expansion=1, filters=16),
    BlockGroup(repeats=2, kernel=3, stride=2, expansion=6, filters=24),
    BlockGroup(repeats=2, kernel=5, stride=2, expansion=6, filters=40),
    BlockGroup(repeats=3, kernel=3, stride=2, expansion=6, filters=80),
    BlockGroup(repeats=3, kernel=5, stride=1, expansion=6, filters=112),
    BlockGroup(repeats=4, kernel=5, stride=2, expansion=6, filters=192),
    BlockGroup(repeats=1, kernel=3, stride=1, expansion=6, filters=320),
)


class Block(NamedTuple):
    """An inverted residual block; ``inputs`` and ``filters`` are its numbers of input and output channels."""

    number: int
    kernel: int
    stride: int
    expansion: int
    inputs: int
    filters: int


def blocks() -> list[Block]:
    """The blocks of all groups; the first one's input is the stem's 32 channels."""
    found: list[Block] = []
    inputs = 32
    for group in BLOCK_GROUPS:
        for repeat in range(group.repeats):
            stride = group.stride if repeat == 0 else 1
            found.append(Block(len(found), group.kernel, stride, group.expansion, inputs, group.filters))
            inputs = group.filters
    return found


class Network(NamedTuple):
    """The built graph.

    Attributes:
      logits: float32[batch, 1000].
      features: float32[batch, 1280], the input of the last layer.
      endpoints: intermediate tensors by name, as in the genuine modules.
      values: each variable with its value.
    """

    logits: tf.Tensor
    features: tf.Tensor
    endpoints: dict[str, tf.Tensor]
    values: list[tuple[tf.Variable, np.ndarray]]


def build(images: tf.Tensor, state: dict[str, np.ndarray]) -> Network:
    """Adds the network to the current graph, in inference mode.

    Args:
      images: float32[batch, 224, 224, 3], RGB in [0, 1].
      state: the checkpoint's tensors by name.

    Raises:
      ValueError: the checkpoint lacks a tensor, has an extra one, or one of another shape.
    """
    layers = _Layers(state)
    ends: dict[str, tf.Tensor] = {}
    x = tf.divide(images * 255.0 - 127.0, 128.0, name=f"{SCOPE}/scaled")
    x = ends["stem"] = layers.conv(x, "stem", "_conv_stem", "_bn0", shape=(3, 3, 3, 32), stride=2)
    for block in blocks():
        x = ends[f"block_{block.number}"] = _add_block(layers, x, block)
    x = ends["head"] = layers.conv(x, "head", "_conv_head", "_bn1", shape=(1, 1, 320, 1280))
    pooled = ends["global_pool"] = tf.reduce_mean(x, [1, 2], keepdims=True, name=f"{SCOPE}/global_pool")
    features = tf.squeeze(pooled, [1, 2], name=f"{SCOPE}/features")
    logits = ends["Logits"] = layers.dense(features, "Logits", "_fc", shape=(1280, 1000))
    ends["Predictions"] = tf.nn.softmax(logits, name=f"{SCOPE}/Predictions")
    layers.check_all_taken()
    endpoints = {f"{SCOPE}/{name}": tensor for name, tensor in ends.items()}
    return Network(logits, features, endpoints, layers.values)


def _add_block(layers: _Layers, x: tf.Tensor, block: Block) -> tf.Tensor:
    name, source = f"block_{block.number}", f"_blocks.{block.number}."
    hidden = block.inputs * block.expansion
    residual = x
    if block.expansion > 1:
        shape = (1, 1, block.inputs, hidden)
        x = layers.conv(x, f"{name}/expand", f"{source}_expand_conv", f"{source}_bn0", shape=shape)
    shape = (block.kernel, block.kernel, hidden, 1)
    x = layers.depthwise(
        x, f"{name}/depthwise", f"{source}_depthwise_conv", f"{source}_bn1", shape=shape, stride=block.stride
    )
    shape = (1, 1, hidden, block.filters)
    x = layers.conv(
        x, f"{name}/project", f"{source}_project_conv", f"{source}_bn2", shape=shape, activation=False
    )
    if block.stride == 1 and block.inputs == block.filters:
        x = tf.add(x, residual, name=f"{SCOPE}/{name}/add")
    return x


class _Layers:
    """Builds layers from the checkpoint's tensors, each of which is used exactly once."""

    def __init__(self, state: dict[str, np.ndarray]) -> None:
        # The training's step counters are not part of the network.
        self._state = {k: v for k, v in state.items() if not k.endswith(".num_batches_tracked")}
        self.values: list[tuple[tf.Variable, np.ndarray]] = []

    def conv(
        self,
        x: tf.Tensor,
        name: str,
        conv: str,
        norm: str,
        *,
        shape: tuple[int, ...],
        stride: int = 1,
        activation: bool = True,
    ) -> tf.Tensor:
        """Convolution, batch norm and ReLU6. The checkpoint's kernel is OIHW, ``shape`` is HWIO."""
        kernel, bias = self._take_folded(conv, norm)
        weights = self._variable(f"{name}/weights", kernel.transpose(2, 3, 1, 0), shape)
        x = tf.nn.conv2d(x, weights, stride, "SAME", name=f"{SCOPE}/{name}/Conv2D")
        x = self._add_bias(x, name, bias)
        return tf.nn.relu6(x, name=f"{SCOPE}/{name}/Relu6") if activation else x

    def depthwise(
        self, x: tf.Tensor, name: str, conv: str, norm: str, *, shape: tuple[int, ...], stride: int
    ) -> tf.Tensor:
        """Depthwise convolution, batch norm and ReLU6. The checkpoint's kernel is C1HW, ``shape`` HWC1."""
        kernel, bias = self._take_folded(conv, norm)
        weights = self._variable(f"{name}/weights", kernel.transpose(2, 3, 0, 1), shape)
        strides = [1, stride, stride, 1]
        x = tf.nn.depthwise_conv2d(x, weights, strides, "SAME", name=f"{SCOPE}/{name}/depthwise")
        return tf.nn.relu6(self._add_bias(x, name, bias), name=f"{SCOPE}/{name}/Relu6")

    def dense(self, x: tf.Tensor, name: str, source: str, *, shape: tuple[int, ...]) -> tf.Tensor:
        """A fully connected layer without activation."""
        weights = self._variable(f"{name}/weights", self._take(f"{source}.weight").T, shape)
        x = tf.matmul(x, weights, name=f"{SCOPE}/{name}/MatMul")
        return self._add_bias(x, name, self._take(f"{source}.bias"))

    def check_all_taken(self) -> None:
        """Raises ``ValueError`` if a tensor is left over: the checkpoint then is of another network."""
        if self._state:
            raise ValueError(f"EfficientNet-Lite0 does not use {', '.join(sorted(self._state))}")

    def _add_bias(self, x: tf.Tensor, name: str, bias: np.ndarray) -> tf.Tensor:
        biases = self._variable(f"{name}/biases", bias, (x.shape[-1],))
        return tf.nn.bias_add(x, biases, name=f"{SCOPE}/{name}/BiasAdd")

    def _take(self, name: str) -> np.ndarray:
        if name not in self._state:
            raise ValueError(f"the checkpoint lacks {name}")
        return self._state.pop(name)

    def _take_folded(self, conv: str, norm: str) -> tuple[np.ndarray, np.ndarray]:
        return fold_batch_norm(
            self._take(f"{conv}.weight"),
            gamma=self._take(f"{norm}.weight"),
            beta=self._take(f"{norm}.bias"),
            mean=self._take(f"{norm}.running_mean"),
            variance=self._take(f"{norm}.running_var"),
        )

    def _variable(self, name: str, value: np.ndarray, shape: tuple[int, ...]) -> tf.Variable:
        if value.shape != shape:
            raise ValueError(f"{name}: expected shape {shape}, but the checkpoint has {value.shape}")
        # Initialized with zeros, since a constant would store the value in the graph a second time.
        variable = tf.compat.v1.get_variable(
            f"{SCOPE}/{name}", shape, tf.float32, tf.compat.v1.zeros_initializer(), use_resource=True
        )
        self.values.append((variable, value))
        return variable


def fold_batch_norm(
    kernel: np.ndarray, *, gamma: np.ndarray, beta: np.ndarray, mean: np.ndarray, variance: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Folds batch norm into the convolution before it; returns the kernel and bias of the combined convolution.

    ``gamma · (W∗x − mean) / √(variance + ε) + beta = (s·W)∗x + (beta − s·mean)`` with
    ``s = gamma / √(variance + ε)``, computed in float64.

    Args:
      kernel: float32[out, ...], output channels first.
      gamma, beta, mean, variance: float32[out].

    Returns:
      The kernel, float32 of the same shape, and the bias, float32[out].
    """
    scale = gamma.astype(np.float64) / np.sqrt(variance.astype(np.float64) + BATCH_NORM_EPSILON)
    per_channel: Any = (-1, *[1] * (kernel.ndim - 1))
    folded = kernel * scale.reshape(per_channel)
    return folded.astype(np.float32), (beta - scale * mean).astype(np.float32)
