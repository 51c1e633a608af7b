"""Which images a worker process was at when it was ended for a batch that hung: small files in the staging folder.

The first, second … time that this happens to a unit is told by ``UNIT.1.json``, ``UNIT.2.json`` …: whoever tries the
unit again finds in one read that there is none. An image that was in such a batch once is a suspect, and computed alone
the next time; if it hangs then, it is the one, and fails.
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

# So often an image is tried.
_TRIES = 2
# More are never written of one unit; see the runner of worker processes.
_MOST = 1000


@dataclass(frozen=True)
class Timeouts:
    """What happened to the earlier tries of a unit.

    Attributes:
      failed: ``ref_id`` of the images that are not tried again.
      suspects: of those that are computed alone.
    """

    failed: frozenset[str] = frozenset()
    suspects: frozenset[str] = frozenset()


_NONE = Timeouts()
# Of the units that this process has opened; empty as a rule.
_suspects: dict[str, frozenset[str]] = {}


def folder(staging_dir: str) -> str:
    """Where a run's files lie."""
    return storage.join(staging_dir, "timeouts")


def tell(folder: str, unit_id: str, ref_ids: Sequence[str], seconds: float) -> None:
    """Remembers that a batch hung.

    Args:
      folder: see above.
      unit_id: the unit.
      ref_ids: the images of the unit that were in the batch.
      seconds: for which it hung.

    Raises:
      OSError: the storage cannot be written.
    """
    content = json.dumps({"unit_id": unit_id, "ref_ids": list(ref_ids), "seconds": seconds}).encode()
    for number in range(1, _MOST):
        if storage.create_if_absent(_path(folder, unit_id, number), content):
            return


def read(folder: str, unit_id: str) -> Timeouts:
    """What happened to the earlier tries of a unit.

    Raises:
      OSError: the storage cannot be read.
    """
    times: Counter[str] = Counter()
    for number in range(1, _MOST):
        try:
            content = storage.read_bytes(_path(folder, unit_id, number))
        except FileNotFoundError:
            break
        with suppress(ShapeError):  # somebody else has written in it
            times.update(set(parse(content, {"ref_ids": [TEXT]})["ref_ids"]))
    if not times:
        return _NONE
    failed = frozenset(ref_id for ref_id, count in times.items() if count >= _TRIES)
    return Timeouts(failed, frozenset(times) - failed)


def suspect(unit_id: str, timeouts: Timeouts) -> None:
    """Has this process compute the suspects of a unit alone."""
    if timeouts.suspects:
        _suspects[unit_id] = timeouts.suspects
    else:
        _suspects.pop(unit_id, None)


def runs(images: Sequence[LoadedImage]) -> list[Sequence[LoadedImage]]:
    """The images in batches, in their order: each suspect is alone in one."""
    if not _suspects:
        return [images]
    found: list[list[LoadedImage]] = [[]]
    for image in images:
        if image.ref.ref_id in _suspects.get(image.ref.unit_id or "", ()):
            found += [[image], []]
        else:
            found[-1].append(image)
    return [run for run in found if run]


def _path(folder: str, unit_id: str, number: int) -> str:
    return storage.join(folder, f"{unit_id}.{number}.json")
