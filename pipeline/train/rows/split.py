"""Splits rows into train, validation and test by a hash of the content, class by class, keeping copies together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import xxhash

TRAIN, VALIDATION, TEST = range(3)
# Fewest images of a class for it to reach test, and validation.
_FOR_TEST, _FOR_VALIDATION = 2, 4


def content_order(contents: Sequence[str], seed: int) -> np.ndarray:
    """uint64[N]: XXH3 of each ``content_hash`` with the seed; assigns rows to splits."""
    hashes = (xxhash.xxh3_64_intdigest(content.encode(), seed=seed) for content in contents)
    return np.fromiter(hashes, np.uint64, len(contents))


def split_by_content(
    order: np.ndarray, groups: np.ndarray, strata: np.ndarray, shares: tuple[float, float, float]
) -> np.ndarray:
    """The split of each row: in each stratum the first share of groups goes to test, the next to validation.

    A stratum reaches train with one group, test with two and validation with four.

    Args:
      order: uint64[N], see ``content_order``; equal in a group.
      groups: int64[N], equal for rows of equal content.
      strata: int64[N], the class that decides; equal in a group.
      shares: shares of train, validation and test, with sum 1.

    Returns:
      uint8[N].
    """
    split = np.full(len(groups), TRAIN, np.uint8)
    _, first, inverse = np.unique(groups, return_index=True, return_inverse=True)
    of_group = np.full(len(first), TRAIN, np.uint8)
    stratum, key = strata[first], order[first]
    ranked = np.lexsort((key, stratum))
    starts = np.flatnonzero(np.r_[True, np.diff(stratum[ranked]) != 0]) if len(ranked) else np.zeros(0, int)
    for start, stop in zip(starts, [*starts[1:], len(ranked)], strict=True):
        test, validation = _counts(stop - start, shares)
        of_group[ranked[start : start + test]] = TEST
        of_group[ranked[start + test : start + test + validation]] = VALIDATION
    split[:] = of_group[inverse]
    return split


def _counts(groups: int, shares: tuple[float, float, float]) -> tuple[int, int]:
    """Numbers of a stratum's groups for test and validation."""
    test = _count(groups, shares[TEST], _FOR_TEST)
    validation = _count(groups, shares[VALIDATION], _FOR_VALIDATION)
    # Rounding must leave one group for training.
    return test, max(min(validation, groups - test - 1), 0)


def _count(groups: int, share: float, needed: int) -> int:
    if not share or groups < needed:
        return 0
    return min(max(int(groups * share + 0.5), 1), groups - 1)


_NAMES = {
    "train": TRAIN, "training": TRAIN, "validation": VALIDATION, "val": VALIDATION, "valid": VALIDATION,
    "dev": VALIDATION, "test": TEST, "testing": TEST,
}  # fmt: skip


def named_splits(names: pa.ChunkedArray) -> np.ndarray:
    """int64[N]: the split that each name means; -1 for null.

    Raises:
      ValueError: a name means no split.
    """
    coded = names.combine_chunks().dictionary_encode()
    known = coded.dictionary.to_pylist()
    unknown = [name for name in known if name.strip().lower() not in _NAMES]
    if unknown:
        raise ValueError(f"{unknown[0]!r} is none of {', '.join(_NAMES)}")
    table = np.array([_NAMES[name.strip().lower()] for name in known] + [-1], np.int64)
    return table[coded.indices.fill_null(len(known)).to_numpy()]
