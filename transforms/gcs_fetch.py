"""One image of ``gs://``: a media GET with the client's credentials on the client's connections.

``Blob.download_to_file`` costs several times the CPU of the request that it makes: URLs, headers, cookies,
traces and metadata are prepared anew for each object, all of it under the GIL, where it stands in the way of
decoding and inference. What is left here is one request of urllib3's. Credentials, endpoint, proxies, TLS and
the pool are those of the client and its session; so are the errors, and which of them are tried again.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import io
import os
import threading
import time
from typing import NamedTuple
from urllib.parse import quote

import google_crc32c
import requests
import urllib3
from google.api_core.exceptions import GoogleAPIError, RetryError, Unauthorized, from_http_status
from google.auth.credentials import AnonymousCredentials, Credentials
from google.auth.exceptions import GoogleAuthError, TransportError
from google.auth.transport.requests import Request
from google.cloud.storage import Client
from google.cloud.storage.exceptions import DataCorruption
from urllib3.connectionpool import HTTPConnectionPool
from urllib3.exceptions import HTTPError, NewConnectionError, ProxyError
from urllib3.exceptions import TimeoutError as PoolTimeout

from transforms import gcs
from transforms.capped import Capped, too_late
from transforms.http_fetch import LAST_START, STALL, user_agent
from transforms.records import ImageError, Reason, Stage

_CHUNK = 64 << 10
# Held while a token is asked for: 64 threads must not ask at once.
_refreshing = threading.Lock()
_REASONS = {404: Reason.NOT_FOUND, 401: Reason.FORBIDDEN, 403: Reason.FORBIDDEN}


def get(bucket: str, name: str, *, max_bytes: int, deadline: float) -> tuple[bytes, str | None]:
    """The bytes of an object, its content encoding undone and its checksum verified, and its version.

    Args:
      bucket: the bucket's name.
      name: the object's, verbatim.
      max_bytes: cap on the bytes, both as they are sent and decoded.
      deadline: seconds for all tries together; a server that goes on sending may exceed it by one read.

    Returns:
      The bytes, and the generation, else the ``ETag``, else None.

    Raises:
      ImageError: of stage ``fetch``. What ``gcs.RETRY`` lists is tried again first.
    """
    end = time.monotonic() + deadline

    def attempt() -> tuple[bytes, str | None]:
        return _attempt(bucket, name, Capped(max_bytes, deadline, end), deadline, end)

    try:
        return gcs.RETRY.with_timeout(deadline * LAST_START)(attempt)()
    except (GoogleAPIError, GoogleAuthError, requests.RequestException, HTTPError, OSError) as error:
        cause = error.cause if isinstance(error, RetryError) else error
        raise _classified(cause or error, deadline) from error


class _Road(NamedTuple):
    """What all requests of a client have in common.

    Attributes:
      pool: the session's connections to the endpoint.
      prefix: of the request's target, before the bucket's name.
      credentials: what signs requests.
      transport: what they ask for tokens through.
    """

    pool: HTTPConnectionPool
    prefix: str
    credentials: Credentials
    transport: Request


@functools.lru_cache(maxsize=1)
def _road(client: Client) -> _Road:
    session = client._http
    url = f"{client.api_endpoint}/download/storage/v1/b/"
    request = requests.Request("GET", url).prepare()
    found = session.merge_environment_settings(url, {}, True, None, None)
    adapter = session.get_adapter(url)
    pool = adapter.get_connection_with_tls_context(
        request, found["verify"], proxies=found["proxies"], cert=found["cert"]
    )
    adapter.cert_verify(pool, url, found["verify"], found["cert"])
    prefix = adapter.request_url(request, found["proxies"])
    return _Road(pool, prefix, session.credentials, Request())


def _attempt(bucket: str, name: str, body: Capped, deadline: float, end: float) -> tuple[bytes, str | None]:
    """One try, one request.

    It is not left to the client to try again: there each try has the same timeout, however little of the
    deadline is left.
    """
    left = max(end - time.monotonic(), 0.001)
    stall = min(deadline * STALL, left)
    client = gcs.client()
    # A session with a client certificate (mTLS) has an endpoint of its own, and notices a new certificate.
    if client._http.is_mtls:
        return _by_client(client, bucket, name, body, stall)
    road = _road(client)
    try:
        with contextlib.closing(_request(road, bucket, name, stall)) as response:
            if response.status != 200:
                with contextlib.suppress(HTTPError):
                    response.read(_CHUNK)  # behind a small message the connection can be used again
                raise from_http_status(response.status, "")
            return _body(response, body)
    except Unauthorized:
        if isinstance(road.credentials, AnonymousCredentials):
            raise
        # A token may be revoked or expire on its way; the client knows how to get the next.
        return _by_client(client, bucket, name, body, stall)
    except ProxyError as error:
        raise ConnectionError(f"the proxy: {error.original_error}") from error


def _request(road: _Road, bucket: str, name: str, stall: float) -> urllib3.BaseHTTPResponse:
    target = f"{road.prefix}{bucket}/o/{quote(name, safe='~')}?alt=media"
    headers = {"User-Agent": user_agent(), "Accept": "*/*", "Accept-Encoding": "gzip"}
    with contextlib.nullcontext() if road.credentials.valid else _refreshing:
        transport = functools.partial(road.transport, timeout=stall)
        road.credentials.before_request(transport, "GET", target, headers)
    return road.pool.urlopen(
        "GET",
        target,
        headers=headers,
        timeout=urllib3.Timeout(connect=stall, read=stall),
        retries=False,
        redirect=False,
        assert_same_host=False,
        preload_content=False,
        decode_content=False,
    )


def _body(response: urllib3.BaseHTTPResponse, body: Capped) -> tuple[bytes, str | None]:
    headers = response.headers
    while chunk := response.read1(_CHUNK):
        body.write(chunk)
    data = body.getvalue()
    # The checksum is that of the bytes as they are stored, and sent; a composed object has no MD5.
    for known in headers.get("X-Goog-Hash", "").split(","):
        kind, _, digest = known.strip().partition("=")
        if kind == "crc32c" and base64.b64decode(digest) != google_crc32c.value(data).to_bytes(4, "big"):
            raise ConnectionError("the checksum does not match")  # the policy tries these again
    if headers.get("Content-Encoding"):
        data = _decoded(data, headers, body)
    return data, headers.get("X-Goog-Generation") or headers.get("ETag")


def _decoded(data: bytes, headers: urllib3.HTTPHeaderDict, body: Capped) -> bytes:
    """The body without its content encoding, gathered under the same cap."""
    packed = urllib3.HTTPResponse(io.BytesIO(data), headers=headers, preload_content=False)
    body.seek(0)
    body.truncate()
    while chunk := packed.read(_CHUNK, decode_content=True):
        body.write(chunk)
    return body.getvalue()


def _by_client(
    client: Client, bucket: str, name: str, body: Capped, stall: float
) -> tuple[bytes, str | None]:
    """The same request in the client's own way."""
    blob = client.bucket(bucket).blob(name)
    try:
        blob.download_to_file(body, timeout=stall, retry=None)
    except DataCorruption as error:
        raise ConnectionError("the checksum does not match") from error
    return body.getvalue(), str(blob.generation) if blob.generation else blob.etag


def _classified(error: Exception, deadline: float) -> ImageError:
    """What an exception means; details do not show the request's URL."""
    code = getattr(error, "code", None)
    if isinstance(code, int):
        detail = f"status {int(code)} {type(error).__name__}"
        return ImageError(Stage.FETCH, _REASONS.get(code, Reason.FETCH_ERROR), detail)
    # requests calls a timeout in the middle of a body a ConnectionError around urllib3's own.
    inner = error.args[0] if error.args else None
    for cause in (error, inner):
        # A NewConnectionError is a TimeoutError of urllib3, whatever its cause.
        if isinstance(cause, (requests.Timeout, PoolTimeout)) and not isinstance(cause, NewConnectionError):
            return too_late(deadline)
    if isinstance(error, GoogleAuthError) and not isinstance(error, TransportError):
        return ImageError(Stage.FETCH, Reason.FORBIDDEN, f"{type(error).__name__}: {error}")
    detail = f"{type(error).__name__}: {inner if inner is not None else error}"
    return ImageError(Stage.FETCH, Reason.FETCH_ERROR, detail)


def _forget_lock() -> None:
    # In a forked child it may be held by a thread that is gone.
    global _refreshing
    _refreshing = threading.Lock()


os.register_at_fork(after_in_child=_forget_lock)
