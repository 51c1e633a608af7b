"""Checks that a module gives the same answer for an image each time, with any other images in its batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from beamlabel.transforms.inference.artifact import ModuleError
from beamlabel.transforms.inference.lazy_tensorflow import tensorflow
from beamlabel.transforms.inference.probe import PROBE_IMAGES, difference, extreme_batch
from beamlabel.transforms.module.freeze import INFERENCE_ONLY

Answers = Sequence["np.ndarray | None"]
Ask = Callable[[np.ndarray], Answers]

# Batches of other sizes add up in another order. Differences up to the limit of `check_outputs` are rounding; more is
# allowed if the module computes in less than float32.
_TOLERANCES = {"float32": 1e-3, "float16": 4e-3, "bfloat16": 3e-2}
_REPEATS = 3
# Random flips spare all four images in one run of sixteen. If the graph draws random numbers, run it often enough to
# rule that out.
_REPEATS_IF_RANDOM = 8


def check_steady(
    ask: Ask,
    pixels: np.ndarray,
    first: Answers,
    *,
    precision: str = "float32",
    random_ops: Sequence[str] = (),
) -> None:
    """Runs the module again on the probe images: together, one by one, and in another order among other images.

    Args:
      ask: maps uint8[N, H, W, 3] to logits and features, float32[N, D] or None.
      pixels: the probe images.
      first: the answers from the first run, which took them together.
      precision: the least precise float type in the graph.
      random_ops: ops in the graph that draw random numbers.

    Raises:
      ModuleError: the answers change; the message names the cause.
    """
    tolerance = _TOLERANCES[precision]
    for _ in range(_REPEATS_IF_RANDOM if random_ops else _REPEATS):
        if not _equal(first, ask(pixels), tolerance):
            drawn = f" draws random numbers ({', '.join(random_ops)})" if random_ops else " keeps a state"
            raise ModuleError(
                f"its answers for the same images change from call to call: its graph{drawn}; {INFERENCE_ONLY}"
            )
    alone = [ask(image[None]) for image in pixels]
    one_by_one = [_joined([answers[place] for answers in alone]) for place in range(len(first))]
    strangers = extreme_batch(*pixels.shape[1:3])
    try:
        mixed = ask(np.concatenate([strangers, pixels[::-1]]))
    except tensorflow().errors.OpError:
        # The module may refuse a black or a white image by an assertion.
        strangers = pixels[:1]
        mixed = ask(np.concatenate([strangers, pixels[::-1]]))
    in_company = [None if one is None else one[len(strangers) :][::-1] for one in mixed]
    for answers in (one_by_one, in_company):
        if not _equal(first, answers, tolerance):
            raise ModuleError(
                "its rows depend on the other images of their batch, for example because batch normalization uses the "
                f"batch's own mean and variance, so a row would reflect its neighbors; {INFERENCE_ONLY}"
            )


def _joined(parts: Sequence[np.ndarray | None]) -> np.ndarray | None:
    there = [part for part in parts if part is not None]
    return np.concatenate(there) if there else None


def _equal(expected: Answers, found: Answers, tolerance: float) -> bool:
    return all(
        before is None
        or (after is not None and len(after) == PROBE_IMAGES and difference(before, after) <= tolerance)
        for before, after in zip(expected, found, strict=True)
    )
