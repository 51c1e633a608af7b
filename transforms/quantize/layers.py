"""The layers of an OpenVINO model that have weights."""

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
      place: among the model's layers, in the order of the computation.
      operation: OpenVINO's node, one of ``_KINDS``.
      weights: the node of the constant that its weights come from.
      between: the nodes from there to the operation, the last one first.
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
        """Whether its weights are whole numbers of 8 bits."""
        return bool(self.weights.get_element_type().get_type_name() == "i8")

    @property
    def name(self) -> str:
        """Place and kind, which are the same each time that a model is read; OpenVINO's own names are not."""
        return f"{self.place} {self.kind}"

    def scale(self) -> Any | None:
        """The node of the constant that the weights in int8 are multiplied by; None if they are made otherwise."""
        kinds = [node.get_type_name() for node in self.between]
        if kinds != ["Multiply", "Convert"]:
            return None
        scale = self.between[0].input_value(1).get_node()
        return scale if scale.get_type_name() == "Constant" else None

    def bias(self) -> Any | None:
        """The node of the constant that is added to what the operation gives; None if there is none."""
        for target in self.operation.output(0).get_target_inputs():
            node = target.get_node()
            if node.get_type_name() == "Add":
                constant = node.input_value(1).get_node()
                if constant.get_type_name() == "Constant":
                    return constant
        return None


def layers(model: Any) -> list[Layer]:
    """The layers of a model in the order of the computation."""
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
    """Puts other values of the same shape and type in a constant's place."""
    from openvino import opset13

    constant = opset13.constant(values.reshape(node.data.shape).astype(node.data.dtype))
    node.output(0).replace(constant.output(0))
