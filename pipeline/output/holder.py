"""Who holds the lock of an output, and what the lock says of it."""

from __future__ import annotations

import dataclasses
import json
import uuid
from abc import ABC, abstractmethod
from datetime import datetime, timezone

from beamlabel.pipeline import layout
from beamlabel.pipeline.output.own_files import is_marked
from beamlabel.pipeline.output.own_json import LOCK
from beamlabel.pipeline.process.process_id import ProcessId
from beamlabel.transforms.shapes import ShapeError, parse

# A lock is as long as it ever gets from its first byte on: who writes a local one anew is never seen, or killed, in
# the middle.
_BYTES = 512


class OutputLockedError(Exception):
    """Another run is at work on the output, or was a moment ago. The message says which."""


class Lock(ABC):
    """The lock of an output.

    Attributes:
      is_lost: whether another run may hold it by now.
    """

    is_lost = False

    def check(self) -> None:
        """Before what only its holder may do; raises ``OutputLockedError``."""
        if self.is_lost:
            raise OutputLockedError("the lock of the output was lost")

    @abstractmethod
    def release(self) -> None:
        """Gives it up."""


def describe(process: ProcessId) -> bytes:
    """The content of a lock, no two alike."""
    content = {"format": layout.LOCK_FORMAT, **dataclasses.asdict(process), "nonce": uuid.uuid4().hex}
    return json.dumps(content).encode().ljust(_BYTES)


def is_lock(data: bytes) -> bool:
    """Whether a file at the place of the lock is one."""
    return is_marked(data, layout.LOCK_FORMAT)


def holder_of(data: bytes) -> ProcessId | None:
    """The process that a lock names; None if it is damaged, or another version wrote it."""
    try:
        content = parse(data, LOCK)
    except ShapeError:
        return None
    return ProcessId(**{field.name: content[field.name] for field in dataclasses.fields(ProcessId)})


def at_work(output: str, holder: ProcessId | None) -> str:
    """What whoever comes second is told."""
    return f"another run is at work on {output}: {name(holder)}"


def name(holder: ProcessId | None) -> str:
    """The process, for people."""
    if holder is None:
        return "one that does not say who it is"
    started = datetime.fromtimestamp(holder.started_at, timezone.utc).isoformat(timespec="seconds")
    return f"host {holder.host}, pid {holder.pid}, started {started}"
