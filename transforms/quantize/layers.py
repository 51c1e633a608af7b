"""Finds the layers with weights in an OpenVINO model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

CONVOLUTION, GROUP_CONVOLUTION, DENSE = "Convolution", "GroupConvolution", "MatMul"
_KINDS = (CONVOLUTION, GROUP_CONVOLUTION, DENSE)


@dataclass(frozen=True)
class Layer:
    """A layer with weights.

    Attributes:
      place: index among the model's layers, in the order of computation.
      operation: OpenVINO's node, one of ``_KINDS``.
      weights: the constant node that supplies its weights.
      between: the nodes from the constant to the operation, the last one first.
    """

    place: int
    operation: Any
    weights: Any
    between: tuple[Any, ...]

    @property
    def kind(self) -> str:
        """The kind of the operation."""
        kind: str = self.operation.get_type_name()
        return kind

    @property
    def is_int8(self) -> bool:
        """Whether its weights are 8-bit integers."""
        return bool(self.weights.get_element_type().get_type_name() == "i8")

    @property
    def name(self) -> str:
        """Place and kind. Unlike OpenVINO's own names, they are the same each time a model is read."""
        return f"{self.place} {self.kind}"

    def scale(self) -> Any | None:
        """The constant node that scales the int8 weights; None if the weights are computed otherwise."""
        kinds = [node.get_type_name() for node in self.between]
        if kinds != ["Multiply", "Convert"]:
            return None
        scale = self.between[0].input_value(1).get_node()
        return scale if scale.get_type_name() == "Constant" else None

    def bias(self) -> Any | None:
        """The constant node that is added to the operation's output; None if there is none."""
        for target in self.operation.output(0).get_target_inputs():
            node = target.get_node()
            if node.get_type_name() == "Add":
                constant = node.input_value(1).get_node()
                if constant.get_type_name() == "Constant":
                    return constant
        return None


def layers(model: Any) -> list[Layer]:
    """The layers of a model in the order of computation."""
    found: list[Layer] = []
    for operation in model.get_ordered_ops():
        if operation.get_type_name() not in _KINDS:
            continue
        node, between = operation.input_value(1).get_node(), []
        while node.get_type_name() in ("Convert", "Multiply", "Subtract", "FakeQuantize", "Reshape"):
            between.append(node)
            node = node.input_value(0).get_node()
        if node.get_type_name() == "Constant":
            found.append(Layer(len(found), operation, node, tuple(between)))
    return found


def replace_constant(node: Any, values: np.ndarray) -> None:
    """Replaces a constant with values of the same shape and type."""
    from openvino import opset13

    constant = opset13.constant(values.reshape(node.data.shape).astype(node.data.dtype))
    node.output(0).replace(constant.output(0))
