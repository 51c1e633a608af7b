"""A sample of a run's embeddings for finding neighbors, small enough for the units' summaries.

It consists of the rows with the smallest ``row_number``, so it depends on their references alone. Each unit keeps as
many rows as the whole run, so the division into units does not matter.
"""

from __future__ import annotations

import base64
import heapq
from dataclasses import dataclass
from typing import Any

import numpy as np

MAX_ROWS = 2048
"""The most rows of a sample."""

MAX_BYTES = 1 << 20
"""The most bytes of its vectors: 819 rows of 1280 features."""

# A smaller vector would overflow the scale; it has no meaningful direction.
_SMALLEST = 1e-30


@dataclass(frozen=True, eq=False)
class EmbeddingSample:
    """Rows, in ascending order of their numbers.

    Attributes:
      numbers: uint64[N], ``row_number`` of their references.
      labels: N best labels.
      vectors: int8[N, D], directions of their embeddings, see ``direction``.
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
        """The sample of both samples' rows, which must have the same number of features."""
        numbers = np.concatenate((self.numbers, other.numbers))
        order = np.argsort(numbers, kind="stable")[: sample_rows(self.vectors.shape[1])]
        labels = self.labels + other.labels
        vectors = np.concatenate((self.vectors, other.vectors))
        return EmbeddingSample(numbers[order], tuple(labels[place] for place in order), vectors[order])


class EmbeddingSampler:
    """Takes rows one by one and keeps those of the sample; not thread-safe."""

    def __init__(self) -> None:
        # A heap whose first entry is displaced next; the count distinguishes rows that are in the input twice.
        self._rows: list[tuple[int, int, str, bytes]] = []
        self._offered = 0
        self._dimension = 0

    def offer(self, number: int, label: str, embedding: np.ndarray) -> None:
        """Takes a row.

        Args:
          number: ``row_number`` of its reference.
          label: its best label.
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
        """The sample of the rows taken; None without rows."""
        if not self._rows:
            return None
        rows = sorted(self._rows, reverse=True)
        vectors = np.frombuffer(b"".join(row[3] for row in rows), np.int8).reshape(-1, self._dimension)
        numbers = np.array([-row[0] for row in rows], np.uint64)
        return EmbeddingSample(numbers, tuple(row[2] for row in rows), vectors)


def sample_rows(dimension: int) -> int:
    """The most rows of a sample, by the number of features."""
    return max(1, min(MAX_ROWS, MAX_BYTES // dimension))


def direction(embedding: np.ndarray) -> np.ndarray | None:
    """Scales float[D] so that its largest number is 127 or -127, and rounds it to int8[D].

    Angles change by less than a degree. Products of such vectors are integers, whose sum does not depend on the order.
    The result is None for a vector of zeros or one that is not finite.
    """
    largest = float(np.abs(embedding).max(initial=0))
    if not _SMALLEST < largest < np.inf:
        return None
    return np.rint(embedding * np.float32(127 / largest)).astype(np.int8)
