"""The checksum that a bucket stores for an object."""

from __future__ import annotations

import base64


class Crc32c:
    """The checksum of an object's stored bytes, however they are served.

    Args:
      told: the stored checksum, in base64.
    """

    def __init__(self, told: str) -> None:
        import google_crc32c

        self._told, self._found = told, google_crc32c.Checksum()

    def update(self, data: bytes) -> None:
        """Adds the next bytes."""
        self._found.update(data)

    def is_right(self) -> bool:
        """Whether the added bytes match the stored checksum."""
        return base64.b64encode(self._found.digest()).decode() == self._told
