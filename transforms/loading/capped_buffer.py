"""A buffer for the bytes of one image, with a size cap and a deadline."""

from __future__ import annotations

import io
import time
from collections.abc import Mapping
from typing import Any

from beamlabel.transforms.records import ImageError, Reason, Stage

_CHUNK = 64 << 10


def too_late(deadline: float) -> ImageError:
    """The error of an image whose ``deadline``, in seconds, has passed."""
    return ImageError(Stage.FETCH, Reason.TIMEOUT, f"no complete answer in time (deadline {deadline:g} s)")


def too_many(max_bytes: int, length: str | None = None) -> ImageError:
    """The error of an image larger than the cap; ``length``: in bytes, if known."""
    found = "the image is larger" if length is None else f"{length} bytes"
    detail = f"{found}, more than --max_bytes {max_bytes}"
    return ImageError(Stage.FETCH, Reason.TOO_MANY_BYTES, detail)


class Capped(io.BytesIO):
    """Collects a download up to a size cap and a deadline.

    Args:
      max_bytes: size cap.
      deadline: seconds that the image may take, for the message.
      end: time of the deadline, in ``time.monotonic()``; by default ``deadline`` seconds from now.
    """

    def __init__(self, max_bytes: int, deadline: float, end: float | None = None) -> None:
        super().__init__()
        self._max_bytes, self._deadline = max_bytes, deadline
        self._end = time.monotonic() + deadline if end is None else end

    def write(self, chunk: Any) -> int:
        """Appends a chunk; raises ``ImageError`` beyond the cap or the deadline."""
        if self.tell() + len(chunk) > self._max_bytes:
            raise too_many(self._max_bytes)
        if time.monotonic() > self._end:
            raise too_late(self._deadline)
        return super().write(chunk)


def decoded(data: bytes, headers: Mapping[str, str], body: Capped) -> bytes:
    """A body with its ``Content-Encoding`` undone, under the cap of ``body``.

    Raises:
      ImageError: The decoded body exceeds the cap, or the deadline has passed.
      urllib3.exceptions.DecodeError: The content encoding is broken.
    """
    if not headers.get("content-encoding"):
        return data
    import urllib3

    packed = urllib3.HTTPResponse(io.BytesIO(data), headers=headers, preload_content=False)
    while chunk := packed.read(_CHUNK, decode_content=True):
        body.write(chunk)
    return body.getvalue()
