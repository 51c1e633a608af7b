"""Records of the images in batches that hung: small files in the staging directory.

The first, second … hang of a unit is recorded in ``UNIT.1.json``, ``UNIT.2.json`` …, so that one read shows a unit
without any. An image that was in one such batch is a suspect and is computed alone the next time. If it hangs again,
it fails.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from beamlabel.transforms import storage
from beamlabel.transforms.records import LoadedImage
from beamlabel.transforms.shapes import TEXT, ShapeError, parse

# The number of tries per image.
_TRIES = 2
# A unit never has more records; see the runner of worker processes.
_MOST = 1000


@dataclass(frozen=True)
class Timeouts:
    """The results of a unit's earlier tries.

    Attributes:
      failed: ``ref_id`` of the images that are not tried again.
      suspects: ``ref_id`` of the images that are computed alone.
    """

    failed: frozenset[str] = frozenset()
    suspects: frozenset[str] = frozenset()


_NONE = Timeouts()
# By unit that this process opened; usually empty.
_suspects: dict[str, frozenset[str]] = {}


def directory(staging_dir: str) -> str:
    """The directory of a run's records."""
    return storage.join(staging_dir, "timeouts")


def tell(directory: str, unit_id: str, ref_ids: Sequence[str], seconds: float) -> None:
    """Records a batch that hung.

    Args:
      directory: the directory of the records.
      unit_id: the unit.
      ref_ids: the images of the unit that were in the batch.
      seconds: how long it hung.

    Raises:
      OSError: the storage cannot be written.
    """
    content = json.dumps({"unit_id": unit_id, "ref_ids": list(ref_ids), "seconds": seconds}).encode()
    for number in range(1, _MOST):
        if storage.create_if_absent(_path(directory, unit_id, number), content):
            return


def read(directory: str, unit_id: str) -> Timeouts:
    """Reads the results of a unit's earlier tries.

    Raises:
      OSError: the storage cannot be read.
    """
    times: Counter[str] = Counter()
    for number in range(1, _MOST):
        try:
            content = storage.read_bytes(_path(directory, unit_id, number))
        except FileNotFoundError:
            break
        with suppress(ShapeError):  # another program wrote into it
            times.update(set(parse(content, {"ref_ids": [TEXT]})["ref_ids"]))
    if not times:
        return _NONE
    failed = frozenset(ref_id for ref_id, count in times.items() if count >= _TRIES)
    return Timeouts(failed, frozenset(times) - failed)


def suspect(unit_id: str, timeouts: Timeouts) -> None:
    """Makes this process compute the suspects of a unit alone."""
    if timeouts.suspects:
        _suspects[unit_id] = timeouts.suspects
    else:
        _suspects.pop(unit_id, None)


def runs(images: Sequence[LoadedImage]) -> list[Sequence[LoadedImage]]:
    """Splits images into batches, in order; each suspect is a batch of its own."""
    if not _suspects:
        return [images]
    found: list[list[LoadedImage]] = [[]]
    for image in images:
        if image.ref.ref_id in _suspects.get(image.ref.unit_id or "", ()):
            found += [[image], []]
        else:
            found[-1].append(image)
    return [run for run in found if run]


def _path(directory: str, unit_id: str, number: int) -> str:
    return storage.join(directory, f"{unit_id}.{number}.json")
