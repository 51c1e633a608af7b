"""Finds bounds of an output that hold for any image, by reading the frozen graph op by op.

This is interval arithmetic from the output backwards: a sigmoid lies in [0, 1] for any input, and so does half of
(tanh + 1), while a convolution has no bounds. Unknown ops yield no bounds and mark the result as unknown.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from beamlabel.transforms.inference.lazy_tensorflow import tensorflow

_INF = math.inf
# Maximum number of ops on a path before it counts as unknown.
_DEPTH = 100

_SAME = frozenset(
    ("Identity", "Snapshot", "StopGradient", "PreventGradient", "CheckNumerics", "EnsureShape",
     "PlaceholderWithDefault", "Cast", "Reshape", "Squeeze", "ExpandDims", "Transpose", "BroadcastTo", "Tile",
     "ReverseV2")
)  # fmt: skip
_PARTS = frozenset(("StridedSlice", "Slice", "Split", "SplitV", "Unpack"))
_UNIONS = frozenset(("ConcatV2", "Pack"))
_PICKS = frozenset(("TopKV2", "TopK", "ArgMax"))
_GATHERS = frozenset(("GatherV2", "Gather", "GatherNd"))
_LINEAR = frozenset(
    ("MatMul", "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3", "Einsum", "Conv2D", "Conv", "DepthwiseConv2dNative",
     "FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3")
)  # fmt: skip


@dataclass(frozen=True)
class Bounds:
    """The known facts about a tensor.

    Attributes:
      low, high: no value lies outside, up to rounding.
      op: the op that set these bounds.
      known: whether all ops on the path are known; if not, the bounds are infinite.
      linear: whether it is a sum of products with weights, which nothing confines to a range.
      parts_of_one: whether no value is negative and no row sums to more than 1: a softmax, or some of its columns.
      picked: whether columns are ranks, not classes: only the best scores, or sorted scores.
      largest: whether it is the largest of several values.
    """

    low: float = -_INF
    high: float = _INF
    op: str = ""
    known: bool = True
    linear: bool = False
    parts_of_one: bool = False
    picked: bool = False
    largest: bool = False

    @property
    def within_one(self) -> bool:
        """Whether every value must lie in [0, 1]."""
        return self.known and self.low >= -1e-6 and self.high <= 1 + 1e-6


def bounds_of(graph_def: Any, output: str) -> Bounds:
    """Bounds of the first output of a node in a frozen ``GraphDef``."""
    return _Graph(graph_def).bounds(output)


class _Graph:
    """One graph, with a cache of the bounds found."""

    def __init__(self, graph_def: Any) -> None:
        self._nodes = {node.name: node for node in graph_def.node}
        self._found: dict[str, Bounds] = {}
        self._depth = 0

    def bounds(self, name: str) -> Bounds:
        if name not in self._found:
            self._found[name] = self._fresh(name)
        return self._found[name]

    def _fresh(self, name: str) -> Bounds:
        node = self._nodes[name.partition(":")[0]]
        if self._depth >= _DEPTH:
            return Bounds(op=node.op, known=False)
        self._depth += 1
        try:
            return self._by_op(node)
        finally:
            self._depth -= 1

    def _by_op(self, node: Any) -> Bounds:
        op = node.op
        inputs = [one for one in node.input if not one.startswith("^")]
        if op in _SAME:
            kept = self.bounds(inputs[0])
            # A reshape may change which values form a row.
            return replace(
                kept, parts_of_one=kept.parts_of_one and op not in ("Reshape", "Transpose", "Tile")
            )
        if op in _PARTS:
            return self.bounds(inputs[1 if op == "Split" else 0])
        if op in _UNIONS:
            return _union([self.bounds(one) for one in (inputs[:-1] if op == "ConcatV2" else inputs)], op)
        if op in ("Select", "SelectV2"):
            return _union([self.bounds(one) for one in inputs[1:]], op)
        if op in _PICKS:
            return replace(self.bounds(inputs[0]), picked=True)
        if op in _GATHERS:
            kept = self.bounds(inputs[0])
            return replace(kept, picked=kept.picked or self._made_of_ranks(inputs[1]))
        if op == "Const":
            return self._constant(node)
        if op == "Placeholder":
            is_pixels = node.attr["dtype"].type == tensorflow().uint8.as_datatype_enum
            return Bounds(0, 255, op) if is_pixels else Bounds(op=op, known=False)
        if op in _LINEAR:
            return self._linear(node, inputs)
        if op in _REDUCE:
            return _REDUCE[op](self.bounds(inputs[0]), op)
        if op in ("RealDiv", "Div", "DivNoNan", "Xdivy") and self._is_share(inputs):
            return Bounds(0, 1, op, parts_of_one=True)
        if op in _ELEMENTWISE:
            return _elementwise(op, [self.bounds(one) for one in inputs])
        return Bounds(op=op, known=False)

    def _constant(self, node: Any) -> Bounds:
        values = self._value(node)
        if values.size == 0 or values.dtype.kind not in "fiub":
            return Bounds(op="Const", known=values.dtype.kind in "fiub")
        values = values.astype(np.float64)
        return Bounds(float(values.min()), float(values.max()), "Const")

    def _value(self, node: Any) -> np.ndarray:
        value: np.ndarray = np.asarray(tensorflow().make_ndarray(node.attr["value"].tensor))
        return (
            value.astype(np.float32) if value.dtype.kind == "V" or value.dtype.name == "bfloat16" else value
        )

    def _linear(self, node: Any, inputs: list[str]) -> Bounds:
        """No bounds, unless a bounded tensor is multiplied by constants: then the bounds of the sums."""
        weights = self._nodes[self._through(inputs[1])] if len(inputs) > 1 else None
        free = Bounds(op=node.op, linear=True)
        if node.op != "MatMul" or weights is None or weights.op != "Const":
            return free
        left = self.bounds(inputs[0])
        if not left.known or not math.isfinite(left.low) or not math.isfinite(left.high):
            return free
        matrix = self._value(weights).astype(np.float64)
        matrix = matrix.T if node.attr["transpose_b"].b else matrix
        if left.parts_of_one:
            low, high = min(0.0, float(matrix.min())), max(0.0, float(matrix.max()))
        else:
            ends = (
                np.minimum(left.low * matrix, left.high * matrix),
                np.maximum(left.low * matrix, left.high * matrix),
            )
            low, high = float(ends[0].sum(axis=0).min()), float(ends[1].sum(axis=0).max())
        return Bounds(low, high, node.op, linear=True)

    def _through(self, text: str) -> str:
        name = text.partition(":")[0]
        while self._nodes[name].op in ("Identity", "Cast"):
            name = self._nodes[name].input[0].partition(":")[0]
        return name

    def _is_share(self, inputs: list[str]) -> bool:
        """Whether it is x / sum(x) of non-negative values."""
        below = self._nodes[self._through(inputs[1])]
        if below.op != "Sum" or self._through(below.input[0]) != self._through(inputs[0]):
            return False
        return self.bounds(inputs[0]).low >= 0

    def _made_of_ranks(self, text: str, left: int = 60) -> bool:
        """Whether indices come from sorting, within a number of ops."""
        waiting = [text.removeprefix("^").partition(":")[0]]
        seen: set[str] = set()
        while waiting and len(seen) < left:
            name = waiting.pop(0)
            if name in seen:
                continue
            seen.add(name)
            node = self._nodes[name]
            if node.op in _PICKS:
                return True
            waiting += [one.removeprefix("^").partition(":")[0] for one in node.input]
        return False


def _union(parts: list[Bounds], op: str) -> Bounds:
    if not all(one.known for one in parts):
        return Bounds(op=op, known=False)
    return Bounds(
        min(one.low for one in parts),
        max(one.high for one in parts),
        max(parts, key=lambda one: one.high - one.low).op,
        linear=all(one.linear for one in parts),
        picked=any(one.picked for one in parts),
    )


def _sum(one: Bounds, op: str) -> Bounds:
    if not one.known:
        return one
    low = 0.0 if one.low >= 0 else -_INF
    high = 1.0 if one.parts_of_one else 0.0 if one.high <= 0 else _INF
    return Bounds(low, high, op, linear=one.linear)


_REDUCE: dict[str, Callable[[Bounds, str], Bounds]] = {
    "Mean": lambda one, op: replace(one, parts_of_one=False),
    "AvgPool": lambda one, op: replace(one, parts_of_one=False),
    "MaxPool": lambda one, op: replace(one, parts_of_one=False),
    "Max": lambda one, op: replace(one, parts_of_one=False, largest=True),
    "Min": lambda one, op: replace(one, parts_of_one=False),
    "Sum": _sum,
    "Prod": lambda one, op: (
        replace(one, parts_of_one=False) if one.within_one else Bounds(op=op, known=one.known)
    ),
}


def _elementwise(op: str, inputs: list[Bounds]) -> Bounds:
    # These have bounds for any input.
    if op in _RANGES:
        return Bounds(*_RANGES[op], op, parts_of_one=op == "Softmax")
    if not all(one.known for one in inputs):
        clipped = _clip_of_unknown(op, inputs)
        return clipped or Bounds(op=op, known=False)
    found = _ELEMENTWISE[op](*inputs) if op != "AddN" else _add_all(inputs)
    low, high = (0.0 if math.isnan(one) else one for one in found)
    linear = op in _KEEPS_LINEAR and any(one.linear for one in inputs)
    parts = op in ("Minimum", "Maximum", "ClipByValue") and inputs[0].parts_of_one
    widest = max(inputs, key=lambda one: one.high - one.low)
    named = widest.op if op in _KEEPS_NAME and widest.op != "Const" else op
    picked, largest = (any(getattr(one, name) for one in inputs) for name in ("picked", "largest"))
    return Bounds(low, high, named, linear=linear, parts_of_one=parts, picked=picked, largest=largest)


def _clip_of_unknown(op: str, inputs: list[Bounds]) -> Bounds | None:
    """Bounds from clipping an unbounded input; squaring bounds it on one side."""
    if op == "ClipByValue" and inputs[1].known and inputs[2].known:
        return Bounds(inputs[1].low, inputs[2].high, op)
    if op in ("Relu6", "Relu", "Softplus", "Exp", "Abs", "Square", "Sqrt"):
        return Bounds(0, 6 if op == "Relu6" else _INF, op)
    return None


def _multiply(a: Bounds, b: Bounds) -> tuple[float, float]:
    ends = [_product(x, y) for x in (a.low, a.high) for y in (b.low, b.high)]
    return min(ends), max(ends)


def _product(x: float, y: float) -> float:
    return 0.0 if 0 in (x, y) else x * y


def _inverse(one: Bounds) -> tuple[float, float]:
    if one.low < 0 < one.high or one.low == one.high == 0:
        return -_INF, _INF
    ends = [(1 / end if end else math.copysign(_INF, one.low + one.high)) for end in (one.low, one.high)]
    return min(ends), max(ends)


def _divide(a: Bounds, b: Bounds) -> tuple[float, float]:
    return _multiply(a, Bounds(*_inverse(b)))


def _add_all(inputs: list[Bounds]) -> tuple[float, float]:
    return sum(one.low for one in inputs), sum(one.high for one in inputs)


def _square(one: Bounds) -> tuple[float, float]:
    ends = _product(one.low, one.low), _product(one.high, one.high)
    return (0.0 if one.low <= 0 <= one.high else min(ends)), max(ends)


def _abs(one: Bounds) -> tuple[float, float]:
    ends = abs(one.low), abs(one.high)
    return (0.0 if one.low <= 0 <= one.high else min(ends)), max(ends)


def _rising(function: Callable[[float], float]) -> Callable[[Bounds], tuple[float, float]]:
    return lambda one: (function(one.low), function(one.high))


def _exp(x: float) -> float:
    return math.exp(min(x, 700)) if x < _INF else _INF


def _log(x: float) -> float:
    return -_INF if x <= 0 else math.log(x) if x < _INF else _INF


def _elu(x: float) -> float:
    return x if x > 0 else math.expm1(x)


_RANGES: dict[str, tuple[float, float]] = {
    "Sigmoid": (0, 1), "Softmax": (0, 1), "LogSoftmax": (-_INF, 0), "Tanh": (-1, 1), "Softsign": (-1, 1),
    "Sin": (-1, 1), "Cos": (-1, 1), "Erf": (-1, 1), "Rsqrt": (0, _INF),
}  # fmt: skip
_ELEMENTWISE: dict[str, Any] = {
    **dict.fromkeys(_RANGES),
    "Relu": _rising(lambda x: max(x, 0.0)),
    "Relu6": _rising(lambda x: min(max(x, 0.0), 6.0)),
    "Elu": _rising(_elu),
    "Selu": _rising(lambda x: 1.0507 * (x if x > 0 else 1.6733 * math.expm1(x))),
    "LeakyRelu": lambda one: (min(one.low, 0.0) if one.low < 0 else one.low, one.high),
    "Softplus": _rising(lambda x: x if x > 30 else math.log1p(_exp(x))),
    "Exp": _rising(_exp),
    "Log": _rising(_log),
    "Log1p": _rising(lambda x: _log(1 + x)),
    "Sqrt": _rising(lambda x: math.sqrt(max(x, 0.0))),
    "Neg": lambda one: (-one.high, -one.low),
    "Abs": _abs,
    "Square": _square,
    "Inv": _inverse,
    "Reciprocal": _inverse,
    "Minimum": lambda a, b: (min(a.low, b.low), min(a.high, b.high)),
    "Maximum": lambda a, b: (max(a.low, b.low), max(a.high, b.high)),
    "ClipByValue": lambda x, a, b: (min(max(x.low, a.low), b.high), min(max(x.high, a.low), b.high)),
    "Add": lambda a, b: (a.low + b.low, a.high + b.high),
    "AddV2": lambda a, b: (a.low + b.low, a.high + b.high),
    "BiasAdd": lambda a, b: (a.low + b.low, a.high + b.high),
    "AddN": None,
    "Sub": lambda a, b: (a.low - b.high, a.high - b.low),
    "Mul": _multiply,
    "RealDiv": _divide,
    "Div": _divide,
    "DivNoNan": _divide,
    "SquaredDifference": lambda a, b: _square(Bounds(a.low - b.high, a.high - b.low)),
    "FakeQuantWithMinMaxVars": lambda x, *_: (min(x.low, 0.0), max(x.high, 0.0)),
}
_KEEPS_LINEAR = frozenset(
    ("Add", "AddV2", "AddN", "BiasAdd", "Sub", "Mul", "RealDiv", "Div", "Neg", "FakeQuantWithMinMaxVars")
)
_KEEPS_NAME = frozenset(
    ("Add", "AddV2", "BiasAdd", "Sub", "Mul", "Minimum", "Maximum", "ClipByValue", "FakeQuantWithMinMaxVars")
)
