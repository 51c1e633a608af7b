"""A range of a blob of Azure in one request.

Beam's file system requests a blob's existence, its properties and, to open it, its properties again. This module uses
Beam's client, made from Beam's options, without that file system. An answer includes the blob's time of last change.
"""

from __future__ import annotations

import threading
from typing import Any, NamedTuple

_lock = threading.Lock()
# Beam's options and their client: creating one costs as much as a request.
_current: tuple[Any, Any] | None = None


class Range(NamedTuple):
    """Bytes of a blob, and when it was last changed, in seconds since 1970."""

    data: bytes
    updated_at: float


def client(options: Any) -> Any:
    """Azure's client, made by Beam from its options."""
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
      options: Beam's options for reaching the service.

    Raises:
      azure.core.exceptions.AzureError: The service answered with an error.
      ValueError: The URI is invalid.
    """
    from apache_beam.io.azure.blobstorageio import parse_azfs_path

    container, name = parse_azfs_path(path)
    blob = client(options).get_blob_client(container, name)
    download = blob.download_blob(offset=start, length=size, max_concurrency=1)
    return Range(download.readall(), download.properties.last_modified.timestamp())
