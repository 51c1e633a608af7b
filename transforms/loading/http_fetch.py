"""One image over ``http(s)://``: a public address, a byte cap, a deadline that holds, and retries.

The addresses of a name are looked up once for a connection, checked, and then connected to, so that a name
cannot answer with a public address first and a private one later (DNS rebinding). TLS still verifies the
name. Every redirect opens its own connection and is checked like the first request.

The environment's proxies are not used: behind a proxy it is the proxy that resolves names, and no address
could be checked.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import http.client
import importlib.metadata
import io
import ipaddress
import os
import socket
import ssl
import time
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any
from urllib.parse import unquote, urljoin

import urllib3
from google.api_core.exceptions import RetryError
from google.api_core.retry import exponential_sleep_generator, retry_target
from urllib3 import exceptions as errors
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.util import Timeout, Url, parse_url
from urllib3.util.connection import create_connection

from beamlabel.transforms.records import ImageError, Reason, Stage
from beamlabel.transforms.storage.retries import LAST_START, STALL

MAX_REDIRECTS = 5
MAX_TRIES = 6
# With full jitter the pauses are a quarter of a second on average, then a half, and so on.
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 8.0
_CHUNK = 64 << 10
_NAT64 = ipaddress.ip_network("64:ff9b::/96")  # RFC 6052: the last 32 bits are an IPv4 address
# When the image that this thread fetches is given up, in time.monotonic(); urllib3 has no total timeout.
_END: ContextVar[float] = ContextVar("_END")


def get(
    url: str, *, max_bytes: int, deadline: float, allow_private_hosts: bool = False
) -> tuple[bytes, str | None]:
    """The body of a URL, its content encoding undone, and its version.

    Args:
      url: ``http://`` or ``https://``; a user and password in it are sent as basic authentication.
      max_bytes: cap on the body, decoded.
      deadline: seconds for all tries, redirects and pauses together; only the system's resolver
        may take longer.
      allow_private_hosts: whether addresses that are not public may be connected to.

    Returns:
      The bytes, and the ``ETag``, else ``Last-Modified``, else None.

    Raises:
      ImageError: of stage ``fetch``. After the statuses 408, 429 and 5xx, timeouts and broken connections the
        request is tried again (up to ``MAX_TRIES``, not before ``Retry-After``), after all else it is not.
    """
    tries = 0
    asked_pause = 0.0

    def attempt() -> tuple[bytes, str | None]:
        nonlocal tries
        tries += 1
        try:
            return _follow(url, max_bytes, deadline, allow_private_hosts)
        except errors.HTTPError as error:
            raise _classified(error, deadline) from error

    def pauses() -> Iterator[float]:
        for pause in exponential_sleep_generator(FIRST_PAUSE, LONGEST_PAUSE):
            yield max(pause, asked_pause)

    def heed(error: Exception) -> None:
        nonlocal asked_pause
        asked_pause = error.retry_after if isinstance(error, _TransientError) else 0.0

    def again(error: Exception) -> bool:
        return isinstance(error, _TransientError) and tries < MAX_TRIES

    token = _END.set(time.monotonic() + deadline)
    try:
        return retry_target(attempt, again, pauses(), timeout=deadline * LAST_START, on_error=heed)
    except (_TransientError, RetryError) as error:
        last = error.cause if isinstance(error, RetryError) else error
        assert isinstance(last, _TransientError)
        detail = f"{last.detail}, after {tries} tries" if tries > 1 else last.detail
        raise ImageError(Stage.FETCH, last.reason, detail) from last
    finally:
        _END.reset(token)


class _TransientError(ImageError):
    """A failure that the next try may not meet; ``retry_after`` is the pause asked for, in seconds."""

    def __init__(self, reason: Reason, detail: str, retry_after: float = 0.0) -> None:
        super().__init__(Stage.FETCH, reason, detail)
        self.retry_after = retry_after


def _refused(reason: Reason, detail: str) -> ImageError:
    return ImageError(Stage.FETCH, reason, detail)


def _follow(url: str, max_bytes: int, deadline: float, allow_private: bool) -> tuple[bytes, str | None]:
    """One try: the request, and those that it is redirected to."""
    try:
        _parsed(url)
    except errors.LocationValueError as error:
        raise _refused(Reason.INVALID_URI, "not a valid URL") from error
    for _ in range(MAX_REDIRECTS + 1):
        # Closing gives the connection back to the pool where the body was read to its end.
        with contextlib.closing(_request(url, deadline, allow_private)) as response:
            location = response.get_redirect_location()
            if not location:
                _check_status(response)
                version = response.headers.get("ETag") or response.headers.get("Last-Modified")
                return _body(response, max_bytes), version
            _drain(response)
        url = _redirected(url, location)
    raise _refused(Reason.FETCH_ERROR, f"more than {MAX_REDIRECTS} redirects")


def _parsed(url: str) -> Url:
    parsed = parse_url(url)
    if not parsed.host:
        raise errors.LocationValueError("no host")
    return parsed


def _request(url: str, deadline: float, allow_private: bool) -> urllib3.BaseHTTPResponse:
    headers = {"User-Agent": user_agent(), "Accept": "image/*,*/*;q=0.5", "Accept-Encoding": "identity"}
    parsed = _parsed(url)
    if parsed.auth:
        headers["Authorization"] = "Basic " + base64.b64encode(unquote(parsed.auth).encode()).decode()
    left = max(_END.get() - time.monotonic(), 0.001)
    stall = min(deadline * STALL, left)
    return _manager(os.getpid(), not allow_private).request(
        "GET",
        url,
        headers=headers,
        timeout=Timeout(connect=stall, read=stall),
        retries=False,
        redirect=False,
        preload_content=False,
    )


def _redirected(url: str, location: str) -> str:
    try:
        target = urljoin(url, location)
        scheme = parse_url(target).scheme
    except ValueError as error:
        raise errors.LocationValueError("redirected to what is not a URL") from error
    if scheme not in ("http", "https"):
        raise _refused(Reason.NOT_ALLOWED, f"redirected to the scheme {scheme!r}")
    return target


def _check_status(response: urllib3.BaseHTTPResponse) -> None:
    status = response.status
    if 200 <= status < 300:
        return
    detail = f"status {status} {http.client.responses.get(status, '')}".rstrip()
    _drain(response)
    if status in (408, 429) or status >= 500:
        raise _TransientError(Reason.FETCH_ERROR, detail, _retry_after(response))
    reasons = {404: Reason.NOT_FOUND, 410: Reason.NOT_FOUND, 401: Reason.FORBIDDEN, 403: Reason.FORBIDDEN}
    raise _refused(reasons.get(status, Reason.FETCH_ERROR), detail)


def _drain(response: urllib3.BaseHTTPResponse) -> None:
    """Reads a small body that nobody needs, so that its connection can be used again."""
    with contextlib.suppress(errors.HTTPError):
        response.read(_CHUNK, decode_content=False)


def _retry_after(response: urllib3.BaseHTTPResponse) -> float:
    try:
        return urllib3.Retry().get_retry_after(response) or 0.0
    except (errors.InvalidHeader, ValueError, OverflowError):
        return 0.0


def _body(response: urllib3.BaseHTTPResponse, max_bytes: int) -> bytes:
    """The body, decoded; a length above the cap is refused before anything is read."""
    length = response.length_remaining
    if length is not None and length > max_bytes:
        raise _refused(Reason.TOO_MANY_BYTES, f"{length} bytes, more than --max_bytes {max_bytes}")
    body = io.BytesIO()
    while chunk := response.read(_CHUNK, decode_content=True):
        body.write(chunk)
        if body.tell() > max_bytes:
            raise _refused(Reason.TOO_MANY_BYTES, f"more than --max_bytes {max_bytes}")
    return body.getvalue()


def _classified(error: errors.HTTPError, deadline: float) -> ImageError:
    """What an exception of urllib3 means; details hold host names and no more of a URL."""
    if isinstance(error, errors.LocationValueError):
        return _refused(Reason.FETCH_ERROR, "redirected to what is not a valid URL")
    if isinstance(error, errors.DecodeError):
        return _refused(Reason.FETCH_ERROR, "the content encoding is broken")
    # A NewConnectionError is a TimeoutError of urllib3, whatever its cause.
    if isinstance(error, errors.TimeoutError) and not isinstance(error, errors.NewConnectionError):
        return _TransientError(Reason.TIMEOUT, f"no answer in time (deadline {deadline:g} s)")
    inner = [arg for arg in error.args if isinstance(arg, Exception)]
    cause = inner[-1] if inner else error.__cause__ or error
    detail = f"{type(cause).__name__}: {cause}"
    if isinstance(cause, ssl.SSLCertVerificationError):
        return _refused(Reason.FETCH_ERROR, detail)
    if isinstance(cause, socket.gaierror) and cause.errno != socket.EAI_AGAIN:
        return _refused(Reason.FETCH_ERROR, detail)
    return _TransientError(Reason.FETCH_ERROR, detail)


@functools.cache
def user_agent() -> str:
    """What requests for images say that they come from."""
    try:
        return f"beamlabel/{importlib.metadata.version('beamlabel')}"
    except importlib.metadata.PackageNotFoundError:
        return "beamlabel"


@functools.cache
def _manager(pid: int, public_only: bool) -> urllib3.PoolManager:
    """The connections of a process: a forked one must not speak on those of its parent, nor close them."""
    manager = urllib3.PoolManager(num_pools=32, maxsize=64)
    manager.pool_classes_by_scheme = {
        "http": _pool_class(HTTPConnectionPool, public_only),
        "https": _pool_class(HTTPSConnectionPool, public_only),
    }
    return manager


def _pool_class(base: type[HTTPConnectionPool], public_only: bool) -> Any:
    bases = (_PublicConnection if public_only else _Connection, base.ConnectionCls)
    return type(base.__name__, (base,), {"ConnectionCls": type(base.ConnectionCls.__name__, bases, {})})


class _Connection:
    """Mixin for urllib3's connections: no read goes on past the deadline."""

    class response_class(http.client.HTTPResponse):  # noqa: N801 (http.client looks for this name)
        """Reads status, headers and body through ``_UntilTheEnd``."""

        def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
            super().__init__(sock, *args, **kwargs)
            self.fp = io.BufferedReader(_UntilTheEnd(sock, self.fp.detach()))


class _PublicConnection(_Connection):
    """Connects to public addresses only.

    urllib3 has no public place between a name's addresses and the connection to one of them: ``connect`` also makes
    TLS, all of which would have to be repeated here, and a pool for an address would have to be told the name twice,
    for TLS and for ``Host``. ``_new_conn`` is what urllib3's own SOCKS connections override; ``host`` has lost the
    dot at its end that makes a name absolute, ``_dns_host`` has not.
    """

    # Set by urllib3's HTTPConnection.
    host: str
    port: int
    timeout: float
    _dns_host: str
    socket_options: Any

    def _new_conn(self) -> socket.socket:
        try:
            found = socket.getaddrinfo(self._dns_host.strip("[]"), self.port, type=socket.SOCK_STREAM)
        except UnicodeError as error:
            raise errors.LocationParseError(self.host) from error
        except OSError as error:
            raise errors.NewConnectionError(self, f"{error}") from error  # type: ignore[arg-type]
        addresses = [str(entry[4][0]) for entry in found]
        for address in addresses:
            if not is_public(address):
                detail = f"{self.host} is at {address}, which is not public; --allow_private_hosts allows it"
                raise _refused(Reason.NOT_ALLOWED, detail)
        failure: OSError = OSError(f"{self.host} has no address")
        for address in addresses:
            left = max(_END.get() - time.monotonic(), 0.001)
            try:
                return create_connection(
                    (address, self.port), min(self.timeout, left), socket_options=self.socket_options
                )
            except OSError as error:
                failure = error
        if isinstance(failure, TimeoutError):
            raise errors.ConnectTimeoutError(self, f"connecting to {self.host}") from failure
        raise errors.NewConnectionError(self, f"{failure}") from failure  # type: ignore[arg-type]


class _UntilTheEnd(io.RawIOBase):
    """A socket's raw reader that waits, in each call, no longer than the deadline leaves.

    A socket's timeout alone starts anew with every byte, so that a server which sends one now and then
    would hold a thread for hours.
    """

    def __init__(self, sock: socket.socket, raw: io.RawIOBase) -> None:
        self._sock, self._raw = sock, raw
        self._end, self._stall = _END.get(), sock.gettimeout()

    def readable(self) -> bool:
        """True."""
        return True

    def readinto(self, buffer: Any) -> int | None:
        """Bytes read, 0 at the end.

        Raises:
          TimeoutError: no byte for a while, or the deadline has passed.
        """
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError("the deadline has passed")
        self._sock.settimeout(left if self._stall is None else min(self._stall, left))
        return self._raw.readinto(buffer)  # type: ignore[attr-defined,no-any-return]

    def close(self) -> None:
        """Closes the reader below."""
        self._raw.close()
        super().close()


def is_public(address: str) -> bool:
    """Whether an IP address belongs to the public internet: none that is private, loopback, link-local (there
    live the clouds' metadata servers), multicast or reserved.

    IPv4 addresses inside IPv6 ones count as what they are: mapped (``::ffff:0:0/96``), 6to4 (``2002::/16``)
    and NAT64 (``64:ff9b::/96``, RFC 6052).
    """
    ip = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.is_site_local:  # deprecated, and global to ipaddress
            return False
        inner = ip.ipv4_mapped or ip.sixtofour
        if ip in _NAT64:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is not None:
            ip = inner
    return ip.is_global and not (ip.is_multicast or ip.is_reserved or ip.is_unspecified or ip.is_link_local)
