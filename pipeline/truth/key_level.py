"""One way to match truths and rows: by whole names, by identities, or by file names."""

from __future__ import annotations

import numpy as np

from beamlabel.pipeline.truth.name_keys import NONE

NO_CODE = -1
"""The code of a truth that its file contradicts."""
DOUBT = -3
"""The code of a key whose truths disagree."""


class KeyLevel:
    """The sorted keys of all truths and their classes: 15 bytes per key and 4 per truth.

    Args:
      keys: uint64, one per truth; 0 for a truth without a key of this kind.
      codes: int32, the classes of each truth; ``NO_CODE`` if in doubt.

    Attributes:
      code: int32 by key; ``DOUBT`` if its truths disagree.
      several: bool by key: whether several truths have it.
      key_of: int32 by truth: position of its key; -1 for none.
      hit, many: bool by key: whether a row has it; whether rows of several images have it.
    """

    def __init__(self, keys: np.ndarray, codes: np.ndarray) -> None:
        order = np.argsort(keys, kind="stable").astype(np.int32)
        order = order[np.searchsorted(keys[order], NONE, side="right") :]
        ordered = keys[order]
        is_first = np.ones(len(ordered), bool)
        np.not_equal(ordered[1:], ordered[:-1], out=is_first[1:])
        starts = np.flatnonzero(is_first)
        self.keys = ordered[starts]
        self.several = np.diff(np.append(starts, len(ordered))) > 1
        self.key_of = np.full(len(keys), -1, np.int32)
        self.key_of[order] = np.cumsum(is_first, dtype=np.int32) - 1
        by_key = codes[order]
        self.code = by_key[starts]
        if len(starts):
            self.code[np.minimum.reduceat(by_key, starts) != np.maximum.reduceat(by_key, starts)] = DOUBT
        self.hit = np.zeros(len(starts), bool)
        self.many = np.zeros(len(starts), bool)
        self._image = np.zeros(0, np.uint64)

    def find(self, keys: np.ndarray) -> np.ndarray:
        """The position of each key, int64[N]; -1 if no truth has it."""
        if not len(self.keys):
            return np.full(len(keys), -1)
        places = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        return np.where((self.keys[places] == keys) & (keys != NONE), places, -1)

    def note(self, keys: np.ndarray, images: np.ndarray) -> None:
        """Records that these images, given by their own keys, have these keys: uint64[N] both."""
        if len(self._image) < len(self.keys):
            self._image = np.zeros(len(self.keys), np.uint64)
        places = self.find(keys)
        places, images = places[places >= 0], images[places >= 0]
        is_new = ~self.hit[places]
        self._image[places[is_new]] = images[is_new]
        self.hit[places] = True
        self.many[places[self._image[places] != images]] = True

    def forget(self) -> None:
        """Resets the hits after all rows were noted; from now on, ``find`` is for the final matches."""
        self.hit[:] = False
        self._image = np.zeros(0, np.uint64)

    def truths_hit(self) -> np.ndarray:
        """bool by truth: whether a row has its key."""
        return np.asarray((self.key_of >= 0) & self.hit[self.key_of]) if len(self.hit) else self.key_of >= 0
