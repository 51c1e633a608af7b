"""The content encoding of a body is undone, under its cap."""

from __future__ import annotations

import io
from collections.abc import Mapping

import urllib3

from beamlabel.transforms.loading.capped_buffer import Capped

_CHUNK = 64 << 10


def decoded(data: bytes, headers: Mapping[str, str], body: Capped) -> bytes:
    """A body with its ``Content-Encoding`` undone, under the cap of ``body``.

    Raises:
      ImageError: it is too large, decoded; or it is too late.
      urllib3.exceptions.DecodeError: the content encoding is broken.
    """
    if not headers.get("content-encoding"):
        return data
    packed = urllib3.HTTPResponse(io.BytesIO(data), headers=headers, preload_content=False)
    while chunk := packed.read(_CHUNK, decode_content=True):
        body.write(chunk)
    return body.getvalue()
