"""A record of where the module in a directory was fetched from.

It is ``FOLDER.fetched.json`` beside the directory: every file within is part of the module's fingerprint.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass

from beamlabel.transforms import storage

_SUFFIX = ".fetched.json"


@dataclass(frozen=True)
class Provenance:
    """A record of ``beamlabel fetch``.

    Attributes:
      handle: the module's, without the query of a signed URL.
      fingerprint: of the fetched module.
      fetched_at: ISO 8601, UTC.
      version: of beamlabel.
    """

    handle: str
    fingerprint: str
    fetched_at: str
    version: str

    def write(self, folder: str) -> None:
        """Writes the record beside a directory, local or remote."""
        data = json.dumps(dataclasses.asdict(self), indent=1).encode() + b"\n"
        storage.write_bytes(provenance_path(folder), data)


def provenance_path(folder: str) -> str:
    """The path of the record of a directory."""
    return storage.absolute(folder).rstrip("/") + _SUFFIX


def read_provenance(folder: str, fingerprint: str) -> Provenance | None:
    """The record of a directory; None if there is none, or it is of another module than the one there now."""
    path = provenance_path(folder)
    try:
        if not storage.exists(path):
            return None
        record = Provenance(**json.loads(storage.read_bytes(path)))
    except (OSError, ValueError, TypeError, RecursionError):
        return None
    return record if record.fingerprint == fingerprint else None
