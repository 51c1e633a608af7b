"""Fetches one image from ``s3://``: one GET through libcurl, of a URL that boto3 signs.

boto3's own ``get_object`` costs several times the CPU and has no deadline for a whole transfer. Credentials, endpoint
and addressing are those of the process's client; the retry policy is that of ``retries``.
"""

from __future__ import annotations

import functools
import time
from typing import Any
from urllib.parse import urlsplit

import certifi
import requests
from requests.utils import get_environ_proxies, select_proxy

from beamlabel.transforms.loading import curl
from beamlabel.transforms.loading.capped_buffer import Capped, too_late
from beamlabel.transforms.loading.web.http_options import default_user_agent
from beamlabel.transforms.records import ImageError, Reason, Stage
from beamlabel.transforms.storage import s3_client
from beamlabel.transforms.storage.retries import LAST_START, STALL, STATUSES, retried

_CHUNK = 64 << 10
_EXPIRES = 3600
"""Seconds that a signed URL is valid; no image may take longer."""

_REASONS = {404: Reason.NOT_FOUND, 401: Reason.FORBIDDEN, 403: Reason.FORBIDDEN}


class _StatusError(Exception):
    """The service answered with a status other than 200."""

    def __init__(self, status: int) -> None:
        super().__init__(f"status {status}")
        self.status = status


def get(uri: str, *, max_bytes: int, deadline: float) -> tuple[bytes, str | None]:
    """Fetches the bytes of an object, and its ``ETag``.

    Args:
      uri: ``s3://bucket/name``; the name is taken verbatim.
      max_bytes: cap on the bytes.
      deadline: seconds for all tries together.

    Raises:
      ImageError: Stage ``fetch``, after retries of transient errors.
      ValueError: boto3 is not installed, or its options are invalid.
    """
    try:
        bucket, name = s3_client.parse("s3" + uri[2:])  # schemes may be in capitals
    except ValueError as error:
        raise ImageError(Stage.FETCH, Reason.INVALID_URI, str(error)) from error
    if not name:
        raise ImageError(Stage.FETCH, Reason.NOT_A_FILE, "the URI is a bucket, not an object")
    reached = s3_client.reached()
    end = time.monotonic() + deadline
    try:
        return retried(
            lambda: _attempt(reached, bucket, name, max_bytes, deadline, end),
            _is_transient,
            deadline * LAST_START,
        )
    except ImageError:
        raise
    except Exception as error:
        raise _classified(error, deadline) from error


def _attempt(
    reached: s3_client.Reached, bucket: str, name: str, max_bytes: int, deadline: float, end: float
) -> tuple[bytes, str | None]:
    left = max(end - time.monotonic(), 0.001)
    names = {"Bucket": bucket, "Key": name}
    client, settings = reached
    url = client.generate_presigned_url("get_object", Params=names, ExpiresIn=_EXPIRES)
    headers = {"User-Agent": default_user_agent()}
    request = curl.Request(url, headers, max_bytes, min(deadline * STALL, left), left)
    answer = curl.get(_settings(settings.verify, _server(url)), request)
    if answer.status == 200:
        return answer.body, s3_client.version(answer.headers.get("etag"))
    if answer.status in _REASONS or answer.status in STATUSES:
        raise _StatusError(answer.status)
    # A bucket in another region, whose redirect the client follows; or an error that only its answer explains.
    return _by_client(client, names, Capped(max_bytes, deadline, end))


def _server(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


@functools.lru_cache(maxsize=64)
def _settings(verify: bool | str | None, server: str) -> curl.ConnectionSettings:
    proxy = select_proxy(server, get_environ_proxies(server)) or ""
    trusted = verify if isinstance(verify, str) else certifi.where()
    return curl.ConnectionSettings(proxy, None if verify is False else trusted)


def _by_client(client: Any, names: dict[str, str], body: Capped) -> tuple[bytes, str | None]:
    """Makes the same request through the client."""
    found = client.get_object(**names)
    for chunk in found["Body"].iter_chunks(_CHUNK):
        body.write(chunk)
    return body.getvalue(), s3_client.version(found.get("ETag"))


def _is_transient(error: Exception) -> bool:
    if isinstance(error, _StatusError):
        return error.status in STATUSES
    return isinstance(error, (requests.Timeout, ConnectionError)) or s3_client.is_transient(error)


def _classified(error: Exception, deadline: float) -> ImageError:
    """The ``ImageError`` of an exception; its detail does not contain the request's URL."""
    if isinstance(error, requests.Timeout):
        return too_late(deadline)
    status = error.status if isinstance(error, _StatusError) else s3_client.status_of(error)
    if status is not None:
        reason = _REASONS.get(status, Reason.FETCH_ERROR)
        return ImageError(Stage.FETCH, reason, f"status {status} {s3_client.code_of(error)}".strip())
    try:
        with s3_client.errors(""):
            raise error
    except PermissionError as missing:  # credentials
        return ImageError(Stage.FETCH, Reason.FORBIDDEN, f"{type(error).__name__}: {missing.strerror}")
    except Exception:
        return ImageError(Stage.FETCH, Reason.FETCH_ERROR, f"{type(error).__name__}: {error}")
