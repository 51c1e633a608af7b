"""Whether a module's batch statistics move when it is trained, and what is done if they do not.

The update ops of ``google/imagenet/mobilenet_v2_*/1`` and ``pnasnet_large/*/1`` do not run when they are fine-tuned:
moving means and variances stay, and the network that is served is another than the one that was trained. See
https://github.com/tensorflow/hub/issues/85 and https://github.com/tensorflow/hub/issues/86.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from beamlabel.pipeline.fine_tune.network import FROZEN, MODULE, OURS, START_MOMENTUM, Network

# Averages that keep more than this share of their past in a training do not follow it.
_KEPT = 0.5


@dataclass(frozen=True)
class Movement:
    """What update ops did when they ran once.

    Attributes:
      statistics: how many variables hold batch statistics.
      moved: how many of them changed.
      kept: the share of an average's past that a step keeps, by the module's own ops; None if unknown.
    """

    statistics: int
    moved: int
    kept: float | None = None

    def follows(self, steps: int) -> bool:
        """Whether the averages follow a training of so many steps."""
        if self.moved < self.statistics:
            return False
        return self.kept is None or self.kept**steps < _KEPT


def movement_of(network: Network, images: Any) -> Movement:
    """Runs the module's own update ops once on float32 images, and puts everything back as it was."""
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
    """How much of the past the module's averages keep: ours, whose share is known, tell where they were going."""
    ratios = []
    for start, end, known in zip(before, module, ours, strict=True):
        way = np.abs(known - start)
        far = way > 1e-4 * np.abs(start).max(initial=1e-6)
        ratios.extend((np.abs(end - start)[far] / way[far]).ravel().tolist())
    return None if not ratios else float(1 - np.median(ratios) * (1 - START_MOMENTUM))


def modes_to_try(network: Network, movement: Movement, steps: int) -> tuple[list[str], str]:
    """The ways to treat batch statistics that come into question, the usual one first, and why, in words."""
    if not network.train:
        return [FROZEN], f"the module has no graph for training ({network.source})"
    if not movement.statistics:
        return [MODULE], "the network has no batch statistics"
    if movement.follows(steps):
        return [MODULE], f"the module's update ops move all {movement.statistics} batch statistics"
    if movement.moved == movement.statistics and movement.kept is not None:
        # They work, but for trainings of another length.
        return [OURS], (
            f"the module's update ops keep {movement.kept:.4g} of the batch statistics a step, too much to follow "
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
    """The way with the best validation accuracy, of equals with the least loss; ``trial`` gives both."""
    if len(modes) == 1:
        return modes[0], {}
    found = {mode: trial(mode) for mode in modes}
    best = max(modes, key=lambda mode: (found[mode][0], -found[mode][1]))
    return best, {
        mode: {"validation_accuracy": accuracy, "validation_loss": loss}
        for mode, (accuracy, loss) in found.items()
    }
