"""The checksum that a bucket tells of an object."""

from __future__ import annotations

import base64


class Crc32c:
    """The checksum of an object's bytes as they are stored, whatever they are served as.

    Args:
      told: by the storage, in base64.
    """

    def __init__(self, told: str) -> None:
        import google_crc32c

        self._told, self._found = told, google_crc32c.Checksum()

    def update(self, data: bytes) -> None:
        """The next bytes."""
        self._found.update(data)

    def is_right(self) -> bool:
        """Whether they are those of the checksum."""
        return base64.b64encode(self._found.digest()).decode() == self._told
