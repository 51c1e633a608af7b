"""Determines the kind of scores in an output, from its values on the probe images and from its graph.

| kind | condition | scores by ``auto`` |
| --- | --- | --- |
| probabilities | all values lie in [0, 1], and each row sums to 1, within the graph's precision | none |
| independent | the graph keeps all values in [0, 1] (sigmoid, clipping…), and rows do not sum to 1 | none |
| logits | a sum of products with weights (convolution, matrix…) which may be negative | softmax |
| log_probabilities | no value is above 0, and the exponentials of each row sum to 1 | softmax, which gives them back |
| unclear | none of these is certain | the user must choose |

Softmax is never applied to a single class, since its result would be 1 for every image.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from beamlabel.transforms.inference.artifact import ModuleError
from beamlabel.transforms.inference.lazy_tensorflow import tensorflow
from beamlabel.transforms.module.bounds import Bounds, bounds_of
from beamlabel.transforms.module.freeze import all_nodes

PROBABILITIES, INDEPENDENT, LOGITS = "probabilities", "independent", "logits"
LOG_PROBABILITIES, UNCLEAR = "log_probabilities", "unclear"
KINDS = (PROBABILITIES, INDEPENDENT, LOGITS, LOG_PROBABILITIES, UNCLEAR)

# The distance from 1 to the next number.
_EPSILONS = {"bfloat16": 2.0**-7, "float16": 2.0**-10, "float32": 2.0**-23}
# A row of many scores adds up rounding errors: a softmax over 1000 classes in bfloat16 was 0.4 % away from 1.
_ROUNDINGS = 8
_LEAST_TOLERANCE = 1e-3
_SCORE_WORDS = ("prob", "score", "sigmoid", "softmax", "logistic", "confidence")


class RanksError(ModuleError):
    """An output holds only the best scores, or sorted ones."""


@dataclass(frozen=True)
class ScoreKind:
    """The kind of an output's scores.

    Attributes:
      kind: one of ``KINDS``.
      scores: the score function that fits: ``softmax`` or ``none``, and for an own module also ``sigmoid``; None if
        that is unclear.
      reason: the reason as text.
    """

    kind: str
    scores: str | None
    reason: str


def score_kind(values: np.ndarray, key: str, graph_def: Any | None, output: str) -> ScoreKind:
    """Determines the kind of an output's scores.

    Args:
      values: float[N, C], the output for N different images.
      key: the module's name of the output.
      graph_def: the frozen ``GraphDef``; None if there is none, so that only values decide.
      output: the name of the output's node in the graph.

    Raises:
      RanksError: its columns are not classes, so no score function could make a valid row of them.
    """
    bounds = Bounds(known=False) if graph_def is None else bounds_of(graph_def, output)
    precision = "float32" if graph_def is None else coarsest_float(graph_def)
    facts = _Facts(values.astype(np.float64), key.lower(), bounds, precision)
    if not np.all(np.isfinite(values)):
        return _unclear("it gives numbers that are not finite for ordinary images")
    if bounds.picked:
        raise RanksError(
            f"the columns of {key} are ranks, not classes, because the graph sorts them; name an output with a score "
            "for each class, or leave the logits out with 'none'"
        )
    return _of_one_class(facts) if values.shape[1] == 1 else _of_classes(facts)


def coarsest_float(graph_def: Any) -> str:
    """The least precise type that a graph computes in: ``bfloat16``, ``float16`` or ``float32``."""
    tf = tensorflow()
    dtypes = {value.type for node in all_nodes(graph_def) for value in node.attr.values() if value.type}
    for name in ("bfloat16", "float16"):
        if tf.dtypes.as_dtype(name).as_datatype_enum in dtypes:
            return name
    return "float32"


@dataclass(frozen=True)
class _Facts:
    values: np.ndarray
    key: str
    bounds: Bounds
    precision: str

    @property
    def epsilon(self) -> float:
        return max(_EPSILONS[self.precision], 1e-6)

    @property
    def inside(self) -> bool:
        return bool(np.all(self.values >= -self.epsilon) and np.all(self.values <= 1 + self.epsilon))

    def sums_to(self, total: float, values: np.ndarray | None = None) -> bool:
        """Whether every row sums to ``total``."""
        sums = (self.values if values is None else values).sum(axis=1)
        tolerance = max(_LEAST_TOLERANCE, _ROUNDINGS * self.epsilon)
        return bool(np.all(np.abs(sums - total) <= tolerance * total))

    @property
    def are_unit_vectors(self) -> bool:
        """Whether rows have length 1, except a few near 0, which cannot be scaled to it."""
        over = np.linalg.norm(self.values, axis=1) - 1
        tolerance = max(_LEAST_TOLERANCE, _ROUNDINGS * self.epsilon)
        return bool(np.all(over <= tolerance) and np.mean(over >= -tolerance) >= 0.75)

    def says(self, *words: str) -> bool:
        return any(word in self.key for word in words)


def _of_one_class(facts: _Facts) -> ScoreKind:
    bounds = facts.bounds
    if bounds.largest:
        return _unclear("its only column is the largest of several, not the score of a class")
    if facts.inside and bounds.within_one:
        return ScoreKind(INDEPENDENT, "none", f"one class, whose {bounds.op} keeps its score in [0, 1]")
    if facts.inside and not bounds.known and facts.says(*_SCORE_WORDS):
        return ScoreKind(INDEPENDENT, "none", f"one class, called {facts.key}, with scores in [0, 1]")
    return _unclear(
        "it has one class, whose softmax is 1 for every image, and nothing keeps its values in [0, 1]: "
        "'sigmoid' if they are logits"
    )


def _of_classes(facts: _Facts) -> ScoreKind:
    values, bounds = facts.values, facts.bounds
    if facts.inside and facts.sums_to(1):
        return ScoreKind(
            PROBABILITIES,
            "none",
            f"they lie in [0, 1], and rows sum to 1 within the precision of {facts.precision}",
        )
    if facts.inside and bounds.within_one:
        return ScoreKind(INDEPENDENT, "none", f"{bounds.op} keeps them in [0, 1], and rows do not sum to 1")
    if np.all(values <= facts.epsilon) and facts.sums_to(1, np.exp(np.minimum(values, 1))):
        return ScoreKind(
            LOG_PROBABILITIES,
            "softmax",
            "they are logarithms of probabilities, and softmax recovers the probabilities",
        )
    if facts.are_unit_vectors:
        return _unclear("each row has the length 1, like a normalized vector and unlike logits")
    if bounds.known and bounds.linear and bounds.low < 0:
        return ScoreKind(LOGITS, "softmax", f"they come from {bounds.op}, which has no fixed range")
    if facts.inside:
        return _inside_by_chance(facts)
    totals = values.sum(axis=1)
    if np.all(values >= -facts.epsilon) and facts.sums_to(float(totals[0])):
        return _unclear(f"no value is negative and rows sum to {totals[0]:.4g}, as percentages do")
    if facts.says("logit"):
        return ScoreKind(LOGITS, "softmax", "they are called logits, and lie outside [0, 1]")
    if (
        bounds.known
        and bounds.low < -1
        and bounds.high > 1
        and (bounds.low == -np.inf) == (bounds.high == np.inf)
    ):
        return ScoreKind(LOGITS, "softmax", "nothing keeps them in [0, 1]")
    if not bounds.known and values.min() < -1 and values.max() > 1:
        return ScoreKind(LOGITS, "softmax", "they lie on both sides of [0, 1]")
    return _unclear(f"they lie outside [0, 1], and {_origin(bounds)}")


def _inside_by_chance(facts: _Facts) -> ScoreKind:
    """Classifies values in [0, 1] that the graph does not confine to it."""
    if not facts.bounds.known and facts.says(*_SCORE_WORDS) and not facts.says("logit"):
        return ScoreKind(
            INDEPENDENT, "none", f"they are called {facts.key}, lie in [0, 1], and do not sum to 1"
        )
    return _unclear(f"they lie in [0, 1] for the probe images, perhaps by chance: {_origin(facts.bounds)}")


def _origin(bounds: Bounds) -> str:
    if not bounds.known:
        return f"its graph does not show their range ({bounds.op or 'unknown'})"
    return f"they come from {bounds.op}, between {bounds.low:g} and {bounds.high:g}"


def _unclear(reason: str) -> ScoreKind:
    return ScoreKind(UNCLEAR, None, reason)
