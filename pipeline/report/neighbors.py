"""Sampled rows whose label differs from the label of their neighbors in embedding space."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from beamlabel.transforms.writing.embedding_sample import EmbeddingSample

MAX_NEIGHBORS = 10
_MIN_NEIGHBORS = 3
# A neighbor weighs exp(cosine / 0.07): Z. Wu et al., "Unsupervised feature learning via non-parametric instance
# discrimination", CVPR 2018, section 3.4.
_TEMPERATURE = 0.07


@dataclass(frozen=True)
class AtOdds:
    """A row whose neighbors have another label.

    Attributes:
      number: ``row_number`` of its reference.
      label: the label of the weighted majority of its neighbors.
      count: the number of neighbors with that label.
      neighbors: the number of neighbors.
      disagreement: the majority's share of the weights minus the share of the row's own label, in (0, 1].
    """

    number: int
    label: str
    count: int
    neighbors: int
    disagreement: float


def neighbors_of(rows: int) -> int:
    """The number of neighbors to look at: the square root of ``rows``, at most 10; 0 if that is less than 3."""
    number = min(MAX_NEIGHBORS, math.isqrt(max(rows, 0)))
    return number if number >= _MIN_NEIGHBORS else 0


class Neighborhood:
    """The sample of a run without copies: rows with equal vectors are copies of one image and count once.

    Attributes:
      rows: the number of rows.
      neighbors: the number of neighbors that decide about a row.
    """

    def __init__(self, sample: EmbeddingSample) -> None:
        self._vectors, self._labels, self._places = _without_copies(sample)
        self.rows = len(self._labels)
        self.neighbors = neighbors_of(self.rows - 1)

    def at_odds(self, numbers: Iterable[int]) -> list[AtOdds]:
        """The rows at odds with their neighbors, by descending disagreement.

        The neighbors of a row have the largest cosine. The row is at odds with them if more than half of them, and more
        than half of their weight, have one label that is not the row's.

        Args:
          numbers: numbers of the rows to judge. Rows outside the sample and copies of earlier rows are left out.
        """
        wanted = {self._places[number]: number for number in reversed([*numbers]) if number in self._places}
        places = np.array(sorted(wanted))
        if not self.neighbors or not len(places):
            return []
        lengths = np.sqrt((self._vectors * self._vectors).sum(axis=1))
        # Sums of products of whole numbers below 2 ** 53 are exact in any order.
        products = self._vectors[places] @ self._vectors.T
        cosines = products / (lengths[places, np.newaxis] * lengths)
        cosines[np.arange(len(places)), places] = -np.inf
        nearest = np.argsort(-cosines, axis=1, kind="stable")[:, : self.neighbors]
        found = []
        for place, row, near in zip(places.tolist(), cosines, nearest, strict=True):
            weights = np.exp((row[near] - row[near[0]]) / _TEMPERATURE)
            labels = [self._labels[one] for one in near]
            judged = _judged(wanted[place], self._labels[place], labels, weights)
            found += [] if judged is None else [judged]
        return sorted(found, key=lambda one: (-one.disagreement, one.number))


def _judged(number: int, own: str, labels: list[str], weights: np.ndarray) -> AtOdds | None:
    shares: dict[str, float] = {}
    for label, weight in zip(labels, weights / weights.sum(), strict=True):
        shares[label] = shares.get(label, 0.0) + float(weight)
    label = max(shares, key=lambda name: (shares[name], name))
    if label == own or shares[label] <= 0.5 or 2 * labels.count(label) <= len(labels):
        return None
    disagreement = round(shares[label] - shares.get(own, 0.0), 6)
    return AtOdds(number, label, labels.count(label), len(labels), disagreement)


def _without_copies(sample: EmbeddingSample) -> tuple[np.ndarray, list[str], dict[int, int]]:
    """float64[M, D] distinct vectors, their labels, and each row number's index into the vectors."""
    places: dict[bytes, int] = {}
    firsts: list[int] = []
    place_of: dict[int, int] = {}
    for row, (number, vector) in enumerate(zip(sample.numbers.tolist(), sample.vectors, strict=True)):
        place = places.setdefault(vector.tobytes(), len(places))
        if place == len(firsts):
            firsts.append(row)
        place_of[number] = place
    labels = [sample.labels[row] for row in firsts]
    return sample.vectors[firsts].astype(np.float64), labels, place_of
