"""Where the module in a folder was fetched from: a record beside the folder.

It is ``FOLDER.fetched.json`` and not within, since every file within is part of the module's fingerprint.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass

from beamlabel.transforms import storage

_SUFFIX = ".fetched.json"


@dataclass(frozen=True)
class Provenance:
    """What ``beamlabel fetch`` did.

    Attributes:
      handle: the module's, without the query of a signed URL.
      fingerprint: of the module that was fetched.
      fetched_at: ISO 8601, UTC.
      version: of beamlabel.
    """

    handle: str
    fingerprint: str
    fetched_at: str
    version: str

    def write(self, folder: str) -> None:
        """Writes the record beside a folder, local or remote."""
        data = json.dumps(dataclasses.asdict(self), indent=1).encode() + b"\n"
        storage.write_bytes(provenance_path(folder), data)


def provenance_path(folder: str) -> str:
    """Where the record of a folder is."""
    return storage.absolute(folder).rstrip("/") + _SUFFIX


def read_provenance(folder: str, fingerprint: str) -> Provenance | None:
    """The record of a folder; None where there is none, or it tells of another module than is there now."""
    path = provenance_path(folder)
    try:
        if not storage.exists(path):
            return None
        record = Provenance(**json.loads(storage.read_bytes(path)))
    except (OSError, ValueError, TypeError, RecursionError):
        return None
    return record if record.fingerprint == fingerprint else None
