"""A sample of a run's embeddings, small enough to travel in the units' summaries: whose neighbours are which.

Which rows are in it depends on their references alone: those with the smallest ``row_number``, as many of each unit as
of the whole run, so that it does not matter how rows are divided into units.
"""

from __future__ import annotations

import base64
import heapq
from dataclasses import dataclass
from typing import Any

import numpy as np

MAX_ROWS = 2048
"""Rows of a sample, at most."""

MAX_BYTES = 1 << 20
"""Bytes of its vectors, at most: 819 rows of 1280 features."""

# Below this, a scale would overflow; such a vector has no direction worth the name.
_SMALLEST = 1e-30


@dataclass(frozen=True, eq=False)
class EmbeddingSample:
    """Rows, those with the smallest numbers first.

    Attributes:
      numbers: uint64[N], ``row_number`` of their references.
      labels: N best labels.
      vectors: int8[N, D], the directions of their embeddings, see ``direction``.
    """

    numbers: np.ndarray
    labels: tuple[str, ...]
    vectors: np.ndarray

    def to_json(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "dimension": self.vectors.shape[1],
            "numbers": self.numbers.tolist(),
            "labels": list(self.labels),
            "vectors": base64.b64encode(self.vectors.tobytes()).decode(),
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> EmbeddingSample:
        """The inverse of ``to_json``."""
        vectors = np.frombuffer(base64.b64decode(value["vectors"]), np.int8).reshape(-1, value["dimension"])
        return cls(np.array(value["numbers"], np.uint64), tuple(value["labels"]), vectors)

    def merged(self, other: EmbeddingSample) -> EmbeddingSample:
        """The sample of the rows of both; of the same number of features."""
        numbers = np.concatenate((self.numbers, other.numbers))
        order = np.argsort(numbers, kind="stable")[: sample_rows(self.vectors.shape[1])]
        labels = self.labels + other.labels
        vectors = np.concatenate((self.vectors, other.vectors))
        return EmbeddingSample(numbers[order], tuple(labels[place] for place in order), vectors[order])


class EmbeddingSampler:
    """Takes rows one by one and keeps those of the sample; not for two threads at a time."""

    def __init__(self) -> None:
        # A heap: the first entry is the one to be displaced next; a count for rows that are in the input twice.
        self._rows: list[tuple[int, int, str, bytes]] = []
        self._offered = 0
        self._dimension = 0

    def offer(self, number: int, label: str, embedding: np.ndarray) -> None:
        """Takes a row.

        Args:
          number: ``row_number`` of its reference.
          label: its best.
          embedding: float[D].
        """
        is_full = bool(self._rows) and len(self._rows) >= sample_rows(self._dimension)
        if is_full and number >= -self._rows[0][0]:
            return
        vector = direction(embedding)
        if vector is None:
            return
        self._offered += 1
        self._dimension = len(embedding)
        entry = (-number, -self._offered, label, vector.tobytes())
        if is_full:
            heapq.heapreplace(self._rows, entry)
        else:
            heapq.heappush(self._rows, entry)

    def sample(self) -> EmbeddingSample | None:
        """What was kept; None of nothing."""
        if not self._rows:
            return None
        rows = sorted(self._rows, reverse=True)
        vectors = np.frombuffer(b"".join(row[3] for row in rows), np.int8).reshape(-1, self._dimension)
        numbers = np.array([-row[0] for row in rows], np.uint64)
        return EmbeddingSample(numbers, tuple(row[2] for row in rows), vectors)


def sample_rows(dimension: int) -> int:
    """How many rows of so many features a sample has, at most."""
    return max(1, min(MAX_ROWS, MAX_BYTES // dimension))


def direction(embedding: np.ndarray) -> np.ndarray | None:
    """int8[D]: float[D], scaled so that its largest number is 127 or -127, and rounded.

    Angles change by less than a degree, and products of such vectors are whole numbers, which do not depend on the
    order in which they are summed. None of a vector without a direction: of zeros, or not finite.
    """
    largest = float(np.abs(embedding).max(initial=0))
    if not _SMALLEST < largest < np.inf:
        return None
    return np.rint(embedding * np.float32(127 / largest)).astype(np.int8)
