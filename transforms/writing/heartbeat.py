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
from concurrent.futures import Future

from beamlabel.transforms import storage
from beamlabel.transforms.secrets.logs import get_logger
from beamlabel.transforms.worker.daemon_pool import DaemonPool
from beamlabel.transforms.worker.tally import Tally

SECONDS = 10.0
"""Between two heartbeats of a worker."""

FOLDER = "progress"

_CLOSE_SECONDS = 1.0
_LOGGER = get_logger(__name__)


class Heartbeat:
    """The file of one worker, written by a thread of its own: a storage that hangs holds up nobody.

    Args:
      staging_dir: where the units are staged.
    """

    def __init__(self, staging_dir: str) -> None:
        name = f"{platform.node()}-{os.getpid()}-{uuid.uuid4().hex[:8]}.json"
        self._path = storage.join(staging_dir, FOLDER, name)
        self._due = time.monotonic() + SECONDS
        self._thread = DaemonPool(1, "heartbeat")
        self._beat: Future[None] | None = None

    def is_due(self) -> bool:
        """Whether it is time for the next one; true once."""
        now = time.monotonic()
        if now < self._due:
            return False
        self._due = now + SECONDS
        return True

    def write(self, open_units: Mapping[str, Tally]) -> None:
        """Says how far the open units are, soon; not if the heartbeat before is still on its way.

        It is advice: what goes wrong with it is no reason to fail.
        """
        if self._beat is not None and not self._beat.done():
            return
        value = {unit: [tally.predicted, tally.failed, tally.skipped] for unit, tally in open_units.items()}
        try:
            self._beat = self._thread.submit(storage.write_bytes, self._path, json.dumps(value).encode())
        except RuntimeError as error:  # no thread can be started
            _LOGGER.debug("no heartbeat: %s", error)

    def close(self) -> None:
        """Waits a moment for the one that is on its way, so that it does not come after its folder is deleted."""
        self._thread.close(_CLOSE_SECONDS)


def read(data: bytes) -> dict[str, Tally]:
    """What a heartbeat says, by unit; nothing if it is no heartbeat."""
    try:
        return {unit: Tally(*counts) for unit, counts in json.loads(data).items()}
    except (ValueError, TypeError, AttributeError):
        return {}
