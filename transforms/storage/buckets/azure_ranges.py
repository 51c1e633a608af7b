"""A range of a blob of Azure in one request.

Beam's file system asks for a blob's existence, its properties and, when it opens it, its properties again. Here Beam's
client is used, which its options have made, without that file system. An answer tells when the blob was last changed.
"""

from __future__ import annotations

import threading
from typing import Any, NamedTuple

_lock = threading.Lock()
# By Beam's options, a client: a new one each time costs as much as a request.
_current: tuple[Any, Any] | None = None


class Range(NamedTuple):
    """Bytes of a blob, and when it was last changed, in seconds since 1970."""

    data: bytes
    updated_at: float


def client(options: Any) -> Any:
    """Azure's client, as Beam makes it of its options."""
    global _current
    from apache_beam.io.azure.blobstorageio import BlobStorageIO

    with _lock:
        if _current is None or _current[0] is not options:
            _current = (options, BlobStorageIO(pipeline_options=options).client)
        return _current[1]


def read_range(path: str, start: int, size: int, options: Any) -> Range:
    """Reads at most ``size`` bytes from ``start``; fewer if the blob ends there.

    Args:
      path: ``azfs://account/container/name``.
      start, size: in bytes; ``size`` is not 0.
      options: Beam's, by which the service is reached.

    Raises:
      azure.core.exceptions.AzureError: what the service answers.
      ValueError: no such URI.
    """
    from apache_beam.io.azure.blobstorageio import parse_azfs_path

    container, name = parse_azfs_path(path)
    blob = client(options).get_blob_client(container, name)
    download = blob.download_blob(offset=start, length=size, max_concurrency=1)
    return Range(download.readall(), download.properties.last_modified.timestamp())
