"""The holder of an output's lock, and the content of the lock."""

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

# A lock has its full length from the start, so that nobody ever sees a rewrite of a local one half done, even after a
# kill.
_BYTES = 512


class OutputLockedError(Exception):
    """Another run holds the lock of the output, or held it a moment ago. The message names it."""


class Lock(ABC):
    """The lock of an output.

    Attributes:
      is_lost: whether another run may hold the lock now.
    """

    is_lost = False

    def check(self) -> None:
        """Raises ``OutputLockedError`` if the lock is lost; call it before anything that only the holder may do."""
        if self.is_lost:
            raise OutputLockedError("the lock of the output was lost")

    @abstractmethod
    def release(self) -> None:
        """Releases the lock."""


def describe(process: ProcessId) -> bytes:
    """The content of a lock, different each time."""
    content = {"format": layout.LOCK_FORMAT, **dataclasses.asdict(process), "nonce": uuid.uuid4().hex}
    return json.dumps(content).encode().ljust(_BYTES)


def is_lock(data: bytes) -> bool:
    """Whether the content is that of a lock."""
    return is_marked(data, layout.LOCK_FORMAT)


def holder_of(data: bytes) -> ProcessId | None:
    """The process that a lock names; None if it is damaged, or another version wrote it."""
    try:
        content = parse(data, LOCK)
    except ShapeError:
        return None
    return ProcessId(**{field.name: content[field.name] for field in dataclasses.fields(ProcessId)})


def at_work(output: str, holder: ProcessId | None) -> str:
    """The message for a second run."""
    return f"{output} is locked by another run ({name(holder)})"


def name(holder: ProcessId | None) -> str:
    """A description of the process for people."""
    if holder is None:
        return "owner unknown"
    started = datetime.fromtimestamp(holder.started_at, timezone.utc).isoformat(timespec="seconds")
    return f"host {holder.host}, pid {holder.pid}, started {started}"
