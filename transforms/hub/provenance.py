"""Records the source of a fetched module.

The record is ``DIR.fetched.json`` beside the module's directory, since files inside count for its fingerprint.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass

from beamlabel.transforms import storage

_SUFFIX = ".fetched.json"


@dataclass(frozen=True)
class Provenance:
    """The record that ``beamlabel fetch`` writes.

    Attributes:
      handle: the module's handle, without the query of a signed URL.
      fingerprint: fingerprint of the fetched module.
      fetched_at: time of the fetch, ISO 8601, UTC.
      version: version of beamlabel.
    """

    handle: str
    fingerprint: str
    fetched_at: str
    version: str

    def write(self, directory: str) -> None:
        """Writes the record beside a directory, local or remote."""
        data = json.dumps(dataclasses.asdict(self), indent=1).encode() + b"\n"
        storage.write_bytes(provenance_path(directory), data)


def provenance_path(directory: str) -> str:
    """The path of a directory's record."""
    return storage.absolute(directory).rstrip("/") + _SUFFIX


def read_provenance(directory: str, fingerprint: str) -> Provenance | None:
    """Reads a directory's record; None if there is none, or if it describes another module."""
    path = provenance_path(directory)
    try:
        if not storage.exists(path):
            return None
        record = Provenance(**json.loads(storage.read_bytes(path)))
    except (OSError, ValueError, TypeError, RecursionError):
        return None
    return record if record.fingerprint == fingerprint else None
