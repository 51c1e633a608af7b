"""The images of earlier outputs that a unit refers to; the images that no unit refers to are gone.

Each unit leaves a small file in the staging directory, ``seen/UNIT``: the places of its images in the index of live
images. Every unit has one, also a unit that was finished before, so that together they cover the whole input.
"""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from beamlabel.transforms import storage
from beamlabel.transforms.inputs.key_index import KeyIndex
from beamlabel.transforms.inputs.selection import identity_of
from beamlabel.transforms.records import Failure, ImageRef

_DIRECTORY = "seen"
_THREADS = 16
# The number of 0 bits of each byte.
_ZEROS = np.array([8 - byte.bit_count() for byte in range(256)])


class SeenImages:
    """Gathers the images of one unit.

    Args:
      live: the index of the images that existed in earlier runs.
    """

    def __init__(self, live: KeyIndex) -> None:
        self._live = live
        self._places: set[int] = set()

    def see(self, element: ImageRef | Failure) -> ImageRef | Failure:
        """Records a reference and returns it with its identity, so that it is computed only once."""
        if isinstance(element, Failure):
            return element
        identity = identity_of(element)
        place = self._live.find(bytes.fromhex(identity))
        if place is not None:
            self._places.add(place)
        return element if element.image_id else dataclasses.replace(element, image_id=identity)

    def stage(self, staging_dir: str, unit_id: str) -> None:
        """Writes the unit's file unless it exists: another try of the unit saw the same.

        Raises:
          OSError: the staging directory cannot be written.
        """
        places = np.array(sorted(self._places), "<u8")
        storage.create_if_absent(_path(staging_dir, unit_id), zlib.compress(places.tobytes()))

    @staticmethod
    def is_staged(staging_dir: str, unit_id: str) -> bool:
        """Whether the unit's file exists."""
        return storage.exists(_path(staging_dir, unit_id))


def _path(staging_dir: str, unit_id: str) -> str:
    return storage.join(staging_dir, _DIRECTORY, unit_id)


class UnseenImages:
    """The live images that no unit refers to; holds one bit per image.

    Args:
      seen: uint8[⌈N/8⌉], the bit of each image that a unit refers to, the lowest first; bits after the last are 1.

    Attributes:
      count: the number of unseen images.
    """

    def __init__(self, seen: np.ndarray) -> None:
        self._seen = seen
        self.count = int(_ZEROS[seen].sum())

    def places(self) -> Iterator[int]:
        """Their places, ascending."""
        for byte in np.flatnonzero(self._seen != 0xFF):
            for bit in range(8):
                if not self._seen[byte] >> bit & 1:
                    yield int(byte) * 8 + bit


def unseen_images(staging_dir: str, unit_ids: Iterable[str], count: int) -> UnseenImages:
    """The live images that no unit refers to.

    Args:
      staging_dir: of the run.
      unit_ids: all of its units.
      count: the number of live images.

    Raises:
      OSError: a unit's file cannot be read.
    """
    seen = np.zeros(-(-count // 8), np.uint8)
    if count % 8:
        seen[-1] = 0xFF << count % 8 & 0xFF
    with ThreadPoolExecutor(_THREADS) as threads:
        for data in threads.map(lambda unit: storage.read_bytes(_path(staging_dir, unit)), unit_ids):
            places = np.frombuffer(zlib.decompress(data), "<u8")
            np.bitwise_or.at(seen, places >> 3, (1 << (places & 7)).astype(np.uint8))
    return UnseenImages(seen)
