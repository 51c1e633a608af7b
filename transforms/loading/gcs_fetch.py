"""Fetches one image from ``gs://``: a media GET through libcurl with the client's credentials.

``Blob.download_to_file`` costs several times the CPU of its request: it prepares URLs, headers, cookies, traces and
metadata for each object under the GIL and so delays decoding and inference. Credentials, endpoint, proxies and
certificate authorities are those of the client and its session; so are the errors and the retry policy.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import os
import threading
import time
from typing import NamedTuple
from urllib.parse import quote

import certifi
import google_crc32c
import requests
from google.api_core.exceptions import GoogleAPIError, RetryError, from_http_status
from google.auth.credentials import AnonymousCredentials, Credentials
from google.auth.exceptions import GoogleAuthError, TransportError
from google.auth.transport.requests import Request
from google.cloud.storage import Client
from google.cloud.storage.exceptions import DataCorruption
from requests.utils import select_proxy
from urllib3.exceptions import HTTPError, ReadTimeoutError

from beamlabel.transforms.loading import curl
from beamlabel.transforms.loading.capped_buffer import Capped, decoded, too_late
from beamlabel.transforms.loading.web.http_options import default_user_agent
from beamlabel.transforms.records import ImageError, Reason, Stage
from beamlabel.transforms.storage import billing, gcs_client
from beamlabel.transforms.storage.retries import LAST_START, STALL

# Held during a token request: 64 threads must not request one at once.
_refreshing = threading.Lock()
_REASONS = {404: Reason.NOT_FOUND, 401: Reason.FORBIDDEN, 403: Reason.FORBIDDEN}


class Part(NamedTuple):
    """A range of the stored bytes of one generation of an object.

    Attributes:
      start, stop: first byte, and the byte after the last; both within the object.
      generation: None for the newest.
    """

    start: int
    stop: int
    generation: str | None


def get(
    bucket: str,
    name: str,
    *,
    max_bytes: int,
    deadline: float,
    billing_project: str | None = None,
    part: Part | None = None,
) -> tuple[bytes, str | None]:
    """Fetches the decoded bytes of an object, with their checksum verified, and its version.

    Args:
      bucket: the bucket's name.
      name: the object's, verbatim.
      max_bytes: cap on the bytes, both as sent and decoded.
      deadline: seconds for all tries together; may be exceeded by one read while the server is sending.
      billing_project: project that pays; None: the process's, see ``storage.billing``.
      part: range to fetch, without checksum and with its content encoding; None: the whole object.

    Returns:
      The bytes, and the generation, else the ``ETag``, else None.

    Raises:
      ImageError: Stage ``fetch``, after retries of the errors in ``gcs_client.RETRY``.
    """
    end = time.monotonic() + deadline
    payer = billing_project or billing.billing_project()

    def attempt() -> tuple[bytes, str | None]:
        return _attempt(bucket, name, max_bytes, deadline, end, payer, part)

    try:
        return gcs_client.RETRY.with_timeout(deadline * LAST_START)(attempt)()
    except (GoogleAPIError, GoogleAuthError, requests.RequestException, HTTPError, OSError) as error:
        cause = error.cause if isinstance(error, RetryError) else error
        raise _classified(cause or error, deadline) from error


class _Endpoint(NamedTuple):
    """Data shared by all requests of a client.

    Attributes:
      prefix: of each URL, before the bucket's name.
      settings: of the connections.
      credentials: that sign requests.
      transport: for the credentials' token requests.
    """

    prefix: str
    settings: curl.ConnectionSettings
    credentials: Credentials
    transport: Request


@functools.lru_cache(maxsize=1)
def _endpoint(client: Client) -> _Endpoint:
    session = gcs_client.session(client)
    prefix = f"{client.api_endpoint}/download/storage/v1/b/"
    found = session.merge_environment_settings(prefix, {}, True, None, None)
    proxy = select_proxy(prefix, found["proxies"]) or ""
    verify = found["verify"]
    certificates = (certifi.where() if verify is True else verify) or None
    return _Endpoint(prefix, curl.ConnectionSettings(proxy, certificates), session.credentials, Request())


def _attempt(
    bucket: str, name: str, max_bytes: int, deadline: float, end: float, payer: str | None, part: Part | None
) -> tuple[bytes, str | None]:
    """Makes one request.

    The client does not retry by itself: each of its tries would have the same timeout, however little of the deadline
    is left.
    """
    left = max(end - time.monotonic(), 0.001)
    stall = min(deadline * STALL, left)
    client = gcs_client.client()
    # A session with a client certificate (mTLS) has its own endpoint, and reloads a new certificate.
    if gcs_client.session(client).is_mtls:
        return _by_client(client, payer, (bucket, name), Capped(max_bytes, deadline, end), stall, part)
    endpoint = _endpoint(client)
    url = f"{endpoint.prefix}{bucket}/o/{quote(name, safe='~')}?alt=media"
    if payer:
        url += f"&userProject={quote(payer, safe='')}"
    if part is not None and part.generation is not None:
        url += f"&generation={part.generation}"
    signed = _signed(endpoint, url, stall)
    if part is not None:
        signed["Range"] = f"bytes={part.start}-{part.stop - 1}"
    answer = curl.get(endpoint.settings, curl.Request(url, signed, max_bytes, stall, left))
    if answer.status == 401 and not isinstance(endpoint.credentials, AnonymousCredentials):
        # The token may have been revoked or expired on its way; the client requests another.
        return _by_client(client, payer, (bucket, name), Capped(max_bytes, deadline, end), stall, part)
    if part is not None and answer.status == 206:
        return _whole_part(answer.body, part), part.generation
    if answer.status != 200 or part is not None:
        if billing.wants_payer(answer.status, answer.body.decode("utf-8", "replace")):
            raise ImageError(Stage.FETCH, Reason.FORBIDDEN, billing.ADVICE)
        raise from_http_status(answer.status, "")
    return _content(answer, Capped(max_bytes, deadline, end))


def _signed(endpoint: _Endpoint, url: str, stall: float) -> dict[str, str]:
    """The headers of a signed request."""
    headers = {"User-Agent": default_user_agent(), "Accept-Encoding": "gzip"}
    with contextlib.nullcontext() if endpoint.credentials.valid else _refreshing:
        transport = functools.partial(endpoint.transport, timeout=stall)
        endpoint.credentials.before_request(transport, "GET", url, headers)
    return headers


def _whole_part(data: bytes, part: Part) -> bytes:
    if len(data) != part.stop - part.start:
        raise ConnectionError("the answer is shorter than the requested range")  # the policy retries these
    return data


def _content(answer: curl.Answer, body: Capped) -> tuple[bytes, str | None]:
    """The content of an answer and its version; ``body`` collects the decoded content."""
    headers, data = answer.headers, answer.body
    # The checksum covers the bytes as stored and sent; a composed object has no MD5.
    for known in headers.get("x-goog-hash", "").split(","):
        kind, _, digest = known.strip().partition("=")
        if kind == "crc32c" and base64.b64decode(digest) != google_crc32c.value(data).to_bytes(4, "big"):
            raise ConnectionError("the checksum does not match")  # the policy retries these
    return decoded(data, headers, body), headers.get("x-goog-generation") or headers.get("etag")


def _by_client(
    client: Client, payer: str | None, place: tuple[str, str], body: Capped, stall: float, part: Part | None
) -> tuple[bytes, str | None]:
    """Makes the same request through the client."""
    bucket, name = place
    blob = client.bucket(bucket, user_project=payer).blob(name, generation=part and part.generation)
    if part is not None:
        blob.download_to_file(
            body,
            start=part.start,
            end=part.stop - 1,
            raw_download=True,
            checksum=None,
            timeout=stall,
            retry=None,
        )
        return _whole_part(body.getvalue(), part), part.generation
    try:
        blob.download_to_file(body, timeout=stall, retry=None)
    except DataCorruption as error:
        raise ConnectionError("the checksum does not match") from error
    return body.getvalue(), str(blob.generation) if blob.generation else blob.etag


def _classified(error: Exception, deadline: float) -> ImageError:
    """The ``ImageError`` of an exception; its detail does not contain the request's URL."""
    code = getattr(error, "code", None)
    if billing.wants_payer(code, str(error)):
        return ImageError(Stage.FETCH, Reason.FORBIDDEN, billing.ADVICE)
    if isinstance(code, int):
        detail = f"status {int(code)} {type(error).__name__}"
        return ImageError(Stage.FETCH, _REASONS.get(code, Reason.FETCH_ERROR), detail)
    inner = error.args[0] if error.args else None
    # For a timeout within a body the client raises a ConnectionError around urllib3's error.
    if isinstance(error, requests.Timeout) or isinstance(inner, ReadTimeoutError):
        return too_late(deadline)
    if isinstance(error, GoogleAuthError) and not isinstance(error, TransportError):
        return ImageError(Stage.FETCH, Reason.FORBIDDEN, f"{type(error).__name__}: {error}")
    detail = f"{type(error).__name__}: {inner if inner is not None else error}"
    return ImageError(Stage.FETCH, Reason.FETCH_ERROR, detail)


def _forget_lock() -> None:
    # A thread that does not exist in a forked child may hold the lock.
    global _refreshing
    _refreshing = threading.Lock()


os.register_at_fork(after_in_child=_forget_lock)
