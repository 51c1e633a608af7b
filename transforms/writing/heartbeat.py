"""The progress of a worker process on unfinished units, in a small file in the staging directory.

A remote observer of the job adds it to the records of the finished units. Each worker overwrites its own file. Only
units without a record are read from it, so a stale file does no harm.
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
"""Seconds between two heartbeats of a worker."""

DIRECTORY = "progress"

_CLOSE_SECONDS = 1.0
_LOGGER = get_logger(__name__)


class Heartbeat:
    """The file of one worker, written by a thread of its own, so that hanging storage does not block the worker.

    Args:
      staging_dir: staging directory of the units.
    """

    def __init__(self, staging_dir: str) -> None:
        name = f"{platform.node()}-{os.getpid()}-{uuid.uuid4().hex[:8]}.json"
        self._path = storage.join(staging_dir, DIRECTORY, name)
        self._due = time.monotonic() + SECONDS
        self._thread = DaemonPool(1, "heartbeat")
        self._beat: Future[None] | None = None

    def is_due(self) -> bool:
        """Whether the next heartbeat is due; True once."""
        now = time.monotonic()
        if now < self._due:
            return False
        self._due = now + SECONDS
        return True

    def write(self, open_units: Mapping[str, Tally]) -> None:
        """Schedules a write of the open units' progress, unless the previous write is still running.

        Heartbeats are optional: their errors are ignored.
        """
        if self._beat is not None and not self._beat.done():
            return
        value = {unit: [tally.predicted, tally.failed, tally.skipped] for unit, tally in open_units.items()}
        try:
            self._beat = self._thread.submit(storage.write_bytes, self._path, json.dumps(value).encode())
        except RuntimeError as error:  # no thread can be started
            _LOGGER.debug("No heartbeat was written: %s", error)

    def close(self) -> None:
        """Waits a moment for a running write, so that it does not follow the deletion of its directory."""
        self._thread.close(_CLOSE_SECONDS)


def read(data: bytes) -> dict[str, Tally]:
    """The progress in a heartbeat, by unit; empty if the file is not a heartbeat."""
    try:
        return {unit: Tally(*counts) for unit, counts in json.loads(data).items()}
    except (ValueError, TypeError, AttributeError):
        return {}
