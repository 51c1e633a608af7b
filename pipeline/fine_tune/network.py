"""A network that can be trained: what every format of module is brought to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

# How the batch normalization of a network is treated while it is trained.
MODULE, OURS, FROZEN = "module", "ours", "frozen"

# Share of the past that averages moved by us keep in a step, until ``follow`` is told how many steps there are.
START_MOMENTUM = 0.99

Images = Callable[[Any], Any]


@dataclass(frozen=True, eq=False)
class Network:
    """A network's features, as functions over one set of variables.

    Attributes:
      source: in words, what of the module it is, such as ``train graph``.
      variables: ``tf.Variable``s that are trained or moved, those of the first layers first.
      names: of the variables, such as ``MobilenetV2/Conv/weights``.
      trainable: of each variable, whether it is trained.
      statistics: the variables that hold batch statistics, moving means and variances.
      infer: float32[N, height, width, 3] in the module's range → float32[N, D], for inference.
      train: the same in training mode, by how the batch statistics move: ``module``, by the module's own update
        ops; ``ours``, by assignments of ours. A mode that there is not is missing; ``frozen`` needs none.
      momentum: a ``tf.Variable``, the share of the past that averages moved by us keep in a step; None without such.
      is_repeatable: whether the same seed gives the same numbers.
      keeper: whatever has to live as long as the variables.
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
        """What the variables hold, as NumPy arrays."""
        return [variable.numpy() for variable in self.variables]

    def follow(self, steps: int) -> None:
        """Has averages moved by us follow a training of so many steps: they span a tenth of it."""
        if self.momentum is not None:
            self.momentum.assign(min(max(1 - 10 / steps, 0.5), START_MOMENTUM))

    def assign(self, values: Sequence[Any]) -> None:
        """The inverse of ``values``."""
        for variable, value in zip(self.variables, values, strict=True):
            variable.assign(value)
