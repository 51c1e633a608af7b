"""Tells whether a module's batch statistics move in training, and picks a treatment if they do not.

The update ops of ``google/imagenet/mobilenet_v2_*/1`` and ``pnasnet_large/*/1`` do not run in fine-tuning. Moving
means and variances stay the same, and the served network differs from the trained one. See
https://github.com/tensorflow/hub/issues/85 and https://github.com/tensorflow/hub/issues/86.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from beamlabel.pipeline.fine_tune.network import FROZEN, MODULE, OURS, START_MOMENTUM, Network

# Averages that keep more than this share of their past over a training do not follow it.
_KEPT = 0.5


@dataclass(frozen=True)
class Movement:
    """The effect of one run of the update ops.

    Attributes:
      statistics: number of variables with batch statistics.
      moved: number of these that changed.
      kept: share of an average's past that the module's own ops keep in a step; None if unknown.
    """

    statistics: int
    moved: int
    kept: float | None = None

    def follows(self, steps: int) -> bool:
        """Whether the averages follow a training of ``steps`` steps."""
        if self.moved < self.statistics:
            return False
        return self.kept is None or self.kept**steps < _KEPT


def movement_of(network: Network, images: Any) -> Movement:
    """Runs the module's own update ops once on float32 images, then restores the variables."""
    if MODULE not in network.train:
        return Movement(len(network.statistics), 0)
    before = network.values()
    statistics = [variable.numpy() for variable in network.statistics]
    try:
        network.train[MODULE](images)
        after = [variable.numpy() for variable in network.statistics]
        kept = None
        if OURS in network.train:
            network.assign(before)
            network.momentum.assign(START_MOMENTUM)
            network.train[OURS](images)
            ours = [variable.numpy() for variable in network.statistics]
            kept = _kept(statistics, after, ours)
    finally:
        network.assign(before)
    moved = sum(bool((one != other).any()) for one, other in zip(statistics, after, strict=True))
    return Movement(len(statistics), moved, kept)


def _kept(before: Sequence[Any], module: Sequence[Any], ours: Sequence[Any]) -> float | None:
    """The share of the past that the module's averages keep, by comparison with beamlabel's, whose share is known."""
    ratios = []
    for start, end, known in zip(before, module, ours, strict=True):
        way = np.abs(known - start)
        far = way > 1e-4 * np.abs(start).max(initial=1e-6)
        ratios.extend((np.abs(end - start)[far] / way[far]).ravel().tolist())
    return None if not ratios else float(1 - np.median(ratios) * (1 - START_MOMENTUM))


def modes_to_try(network: Network, movement: Movement, steps: int) -> tuple[list[str], str]:
    """The possible treatments of batch statistics, the usual one first, and the reason in words."""
    if not network.train:
        return [FROZEN], f"the module has no graph for training ({network.source})"
    if not movement.statistics:
        return [MODULE], "the network has no batch statistics"
    if movement.follows(steps):
        return [MODULE], f"the module's update ops move all {movement.statistics} batch statistics"
    if movement.moved == movement.statistics and movement.kept is not None:
        # The ops work, but for trainings of another length.
        return [OURS], (
            f"the module's update ops keep {movement.kept:.4g} of the batch statistics per step, too much for "
            f"{steps} steps"
        )
    why = (
        f"the module's update ops move {movement.moved} of {movement.statistics} batch statistics (tensorflow/hub "
        "issues 85 and 86)"
    )
    return ([OURS, FROZEN] if OURS in network.train else [FROZEN]), why


WORDS = {
    MODULE: "by the module's update ops",
    OURS: "by assignments of our own",
    FROZEN: "not at all: they stay as they are",
}


def choose_mode(
    modes: Sequence[str], trial: Callable[[str], tuple[float, float]]
) -> tuple[str, dict[str, Any]]:
    """The mode with the best validation accuracy and, among equals, the least loss; ``trial`` returns both."""
    if len(modes) == 1:
        return modes[0], {}
    found = {mode: trial(mode) for mode in modes}
    best = max(modes, key=lambda mode: (found[mode][0], -found[mode][1]))
    return best, {
        mode: {"validation_accuracy": accuracy, "validation_loss": loss}
        for mode, (accuracy, loss) in found.items()
    }
