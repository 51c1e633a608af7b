"""A trainable network, the common form of all module formats."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

# Treatment of the batch normalization during training.
MODULE, OURS, FROZEN = "module", "ours", "frozen"

# Share of the past that averages moved by beamlabel keep in a step, until ``follow`` sets it by the number of steps.
START_MOMENTUM = 0.99

Images = Callable[[Any], Any]


@dataclass(frozen=True, eq=False)
class Network:
    """A network's features, as functions over one set of variables.

    Attributes:
      source: description of the part of the module, such as ``train graph``.
      variables: ``tf.Variable``s that are trained or moved, in the order of the layers.
      names: names of the variables, such as ``MobilenetV2/Conv/weights``.
      trainable: whether each variable can be trained.
      statistics: the variables that hold batch statistics: moving means and variances.
      infer: float32[N, height, width, 3] in the module's range → float32[N, D], for inference.
      train: the same in training mode, by the way in which the batch statistics move: ``module``, by the module's
        own update ops; ``ours``, by beamlabel's assignments. An unavailable mode is missing; ``frozen`` needs none.
      momentum: a ``tf.Variable``, the share of the past that averages moved by beamlabel keep in a step; None without
        such averages.
      is_repeatable: whether the same seed gives the same numbers.
      keeper: an object that has to live as long as the variables.
    """

    source: str
    variables: Sequence[Any]
    names: Sequence[str]
    trainable: Sequence[bool]
    statistics: Sequence[Any]
    infer: Images
    train: dict[str, Images] = field(default_factory=dict)
    momentum: Any = None
    is_repeatable: bool = True
    keeper: Any = None

    def values(self) -> list[Any]:
        """The values of the variables, as NumPy arrays."""
        return [variable.numpy() for variable in self.variables]

    def follow(self, steps: int) -> None:
        """Sets the averages moved by beamlabel to span a tenth of a training of ``steps`` steps."""
        if self.momentum is not None:
            self.momentum.assign(min(max(1 - 10 / steps, 0.5), START_MOMENTUM))

    def assign(self, values: Sequence[Any]) -> None:
        """Sets the variables to the result of an earlier ``values``."""
        for variable, value in zip(self.variables, values, strict=True):
            variable.assign(value)
