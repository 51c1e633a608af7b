"""One image of ``gs://``: a media GET with the client's credentials, by libcurl.

``Blob.download_to_file`` costs several times the CPU of the request that it makes: URLs, headers, cookies,
traces and metadata are prepared anew for each object, all of it under the GIL, where it stands in the way of
decoding and inference. Credentials, endpoint, proxies and trusted authorities are those of the client and its
session; so are the errors, and which of them are tried again.
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

# Held while a token is asked for: 64 threads must not ask at once.
_refreshing = threading.Lock()
_REASONS = {404: Reason.NOT_FOUND, 401: Reason.FORBIDDEN, 403: Reason.FORBIDDEN}


class Part(NamedTuple):
    """A part of one generation of an object, of the bytes as they are stored.

    Attributes:
      start, stop: first byte, and the one after the last; the object has them all.
      generation: None for the newest one.
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
    """The bytes of an object, its content encoding undone and its checksum verified, and its version.

    Args:
      bucket: the bucket's name.
      name: the object's, verbatim.
      max_bytes: cap on the bytes, both as they are sent and decoded.
      deadline: seconds for all tries together; a server that goes on sending may exceed it by one read.
      billing_project: that pays; None: the process's, see ``storage.billing``.
      part: of the object, without its checksum and with its content encoding; None for the whole.

    Returns:
      The bytes, and the generation, else the ``ETag``, else None.

    Raises:
      ImageError: of stage ``fetch``. What ``gcs_client.RETRY`` lists is tried again first.
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
    """What all requests of a client have in common.

    Attributes:
      prefix: of each URL, before the bucket's name.
      settings: how the server is reached.
      credentials: what signs requests.
      transport: what they ask for tokens through.
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
    """One try, one request.

    It is not left to the client to try again: there each try has the same timeout, however little of the
    deadline is left.
    """
    left = max(end - time.monotonic(), 0.001)
    stall = min(deadline * STALL, left)
    client = gcs_client.client()
    # A session with a client certificate (mTLS) has an endpoint of its own, and notices a new certificate.
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
        # A token may be revoked or expire on its way; the client knows how to get the next.
        return _by_client(client, payer, (bucket, name), Capped(max_bytes, deadline, end), stall, part)
    if part is not None and answer.status == 206:
        return _whole_part(answer.body, part), part.generation
    if answer.status != 200 or part is not None:
        if billing.wants_payer(answer.status, answer.body.decode("utf-8", "replace")):
            raise ImageError(Stage.FETCH, Reason.FORBIDDEN, billing.ADVICE)
        raise from_http_status(answer.status, "")
    return _content(answer, Capped(max_bytes, deadline, end))


def _signed(endpoint: _Endpoint, url: str, stall: float) -> dict[str, str]:
    """The headers of a request."""
    headers = {"User-Agent": default_user_agent(), "Accept-Encoding": "gzip"}
    with contextlib.nullcontext() if endpoint.credentials.valid else _refreshing:
        transport = functools.partial(endpoint.transport, timeout=stall)
        endpoint.credentials.before_request(transport, "GET", url, headers)
    return headers


def _whole_part(data: bytes, part: Part) -> bytes:
    if len(data) != part.stop - part.start:
        raise ConnectionError("the answer is shorter than what was asked for")  # the policy tries these again
    return data


def _content(answer: curl.Answer, body: Capped) -> tuple[bytes, str | None]:
    """What an answer holds; ``body`` is there for one whose content encoding has to be undone."""
    headers, data = answer.headers, answer.body
    # The checksum is that of the bytes as they are stored, and sent; a composed object has no MD5.
    for known in headers.get("x-goog-hash", "").split(","):
        kind, _, digest = known.strip().partition("=")
        if kind == "crc32c" and base64.b64decode(digest) != google_crc32c.value(data).to_bytes(4, "big"):
            raise ConnectionError("the checksum does not match")  # the policy tries these again
    return decoded(data, headers, body), headers.get("x-goog-generation") or headers.get("etag")


def _by_client(
    client: Client, payer: str | None, place: tuple[str, str], body: Capped, stall: float, part: Part | None
) -> tuple[bytes, str | None]:
    """The same request in the client's own way."""
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
    """What an exception means; details do not show the request's URL."""
    code = getattr(error, "code", None)
    if billing.wants_payer(code, str(error)):
        return ImageError(Stage.FETCH, Reason.FORBIDDEN, billing.ADVICE)
    if isinstance(code, int):
        detail = f"status {int(code)} {type(error).__name__}"
        return ImageError(Stage.FETCH, _REASONS.get(code, Reason.FETCH_ERROR), detail)
    inner = error.args[0] if error.args else None
    # The client's requests call a timeout in the middle of a body a ConnectionError around urllib3's own.
    if isinstance(error, requests.Timeout) or isinstance(inner, ReadTimeoutError):
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
