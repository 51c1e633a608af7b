"""What a worker process has done of the units that are not finished: a small file in the staging folder.

Whoever watches a job from elsewhere adds it to the records of the finished units. Each worker overwrites its own
file; it is read for what it says of units without a record, so an old one does no harm.
"""

from __future__ import annotations

import json
import os
import platform
import time
import uuid
from collections.abc import Mapping
from contextlib import suppress

from beamlabel.transforms import storage
from beamlabel.transforms.worker.tally import Tally

SECONDS = 10.0
"""Between two heartbeats of a worker."""

FOLDER = "progress"


class Heartbeat:
    """The file of one worker.

    Args:
      staging_dir: where the units are staged.
    """

    def __init__(self, staging_dir: str) -> None:
        name = f"{platform.node()}-{os.getpid()}-{uuid.uuid4().hex[:8]}.json"
        self._path = storage.join(staging_dir, FOLDER, name)
        self._due = time.monotonic() + SECONDS

    def is_due(self) -> bool:
        """Whether it is time for the next one; true once."""
        now = time.monotonic()
        if now < self._due:
            return False
        self._due = now + SECONDS
        return True

    def write(self, open_units: Mapping[str, Tally]) -> None:
        """Says how far the open units are. A storage that cannot be written is no reason to fail."""
        value = {unit: [tally.predicted, tally.failed, tally.skipped] for unit, tally in open_units.items()}
        with suppress(OSError):
            storage.write_bytes(self._path, json.dumps(value).encode())


def read(data: bytes) -> dict[str, Tally]:
    """What a heartbeat says, by unit; nothing if it is no heartbeat."""
    try:
        return {unit: Tally(*counts) for unit, counts in json.loads(data).items()}
    except (ValueError, TypeError, AttributeError):
        return {}
