"""The output of a run, read back and compared with that of the hand-written script."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.dataset


@dataclass(frozen=True, eq=False)
class Answers:
    """The rows of a run.

    Attributes:
      uris: as in the list.
      best: int[N], the class with the highest score.
      embeddings: float32[N, D].
    """

    uris: list[str]
    best: np.ndarray
    embeddings: np.ndarray


@dataclass(frozen=True)
class Agreement:
    """Agreement of a run's answers with those of the hand-written script, matched by URI.

    Attributes:
      top_1: share of images with the same best class.
      cosine: median cosine of the embeddings.
    """

    top_1: float
    cosine: float


def read_answers(directory: Path) -> Answers:
    """Reads all Parquet files of a directory: columns ``uri``, ``class_ids`` and ``embedding``."""
    dataset = pyarrow.dataset.dataset(directory, format="parquet")
    rows = dataset.to_table(["uri", "class_ids", "embedding"]).combine_chunks()
    first = [ids[0] for ids in rows["class_ids"].to_pylist()]
    flat = rows["embedding"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return Answers(rows["uri"].to_pylist(), np.array(first, np.int64), flat.reshape(rows.num_rows, -1))


def compare_answers(reference: Answers, other: Answers) -> Agreement:
    """Compares two runs; raises ``ValueError`` unless both have the same images, each once."""
    where = {uri: index for index, uri in enumerate(other.uris)}
    if len(where) != len(other.uris) or where.keys() != set(reference.uris):
        raise ValueError("not the same images")
    order = [where[uri] for uri in reference.uris]
    ours, theirs = reference.embeddings, other.embeddings[order]
    lengths = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
    cosines = np.sum(ours * theirs, axis=1) / np.maximum(lengths, np.finfo(np.float32).tiny)
    return Agreement(
        top_1=float(np.mean(reference.best == other.best[order])), cosine=float(np.median(cosines))
    )
