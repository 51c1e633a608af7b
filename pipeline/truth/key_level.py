"""One way in which truths and rows are matched: by whole names, by identities, by file names."""

from __future__ import annotations

import numpy as np

from beamlabel.pipeline.truth.name_keys import NONE

NO_CODE = -1
"""The code of a truth that the file itself contradicts."""
DOUBT = -3
"""The code of a key whose truths do not agree."""


class KeyLevel:
    """The keys of all truths, sorted, with what they stand for; 17 bytes a key and 4 a truth.

    Args:
      keys: uint64, one a truth; 0 for a truth that has none of this kind.
      codes: int32, the classes of each truth; ``NO_CODE`` if they are in doubt.

    Attributes:
      code: int32 by key; ``DOUBT`` if its truths do not agree.
      several: bool by key: more than one truth has it.
      key_of: int32 by truth: the place of its key; -1 for none.
      hit, many: bool by key: a row has it; rows of several images have it.
    """

    def __init__(self, keys: np.ndarray, codes: np.ndarray) -> None:
        found = keys
        order = np.argsort(found, kind="stable")
        ordered = found[order]
        starts = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))[: len(ordered)]
        counts = np.diff(np.append(starts, len(ordered)))
        self.keys = ordered[starts]
        self.several = counts > 1
        by_key = codes[order]
        same = (
            np.minimum.reduceat(by_key, starts) == np.maximum.reduceat(by_key, starts)
            if len(starts)
            else np.zeros(0, bool)
        )
        self.code = np.where(same, by_key[starts], DOUBT).astype(np.int32)
        self.key_of = np.empty(len(found), np.int32)
        self.key_of[order] = np.repeat(np.arange(len(starts), dtype=np.int32), counts)
        self.first = order[starts].astype(np.int32)
        self.key_of[found == NONE] = -1
        self.hit = np.zeros(len(starts), bool)
        self.many = np.zeros(len(starts), bool)
        self._image = np.zeros(len(starts), np.uint64)

    def find(self, keys: np.ndarray) -> np.ndarray:
        """The place of each key, int64[N]; -1 for one that no truth has."""
        if not len(self.keys):
            return np.full(len(keys), -1)
        places = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        return np.where((self.keys[places] == keys) & (keys != NONE), places, -1)

    def note(self, keys: np.ndarray, images: np.ndarray) -> None:
        """Takes note that the images, by their own keys, have these keys: uint64[N] both."""
        places = self.find(keys)
        for place, image in zip(places[places >= 0].tolist(), images[places >= 0].tolist(), strict=True):
            if not self.hit[place]:
                self.hit[place], self._image[place] = True, image
            elif self._image[place] != image:
                self.many[place] = True

    def truths_hit(self) -> np.ndarray:
        """bool by truth: whether a row has its key."""
        return np.asarray((self.key_of >= 0) & self.hit[self.key_of]) if len(self.hit) else self.key_of >= 0
