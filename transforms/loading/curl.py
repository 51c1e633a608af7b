"""HTTP requests through libcurl on kept-alive connections, for ``gs://``, ``s3://`` and the web.

A transfer is one call into C, which takes the GIL only briefly for each header. In Python the same request takes the
GIL a dozen times and so delays decoding and inference.
"""

from __future__ import annotations

import io
import math
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import requests

from beamlabel.transforms.loading.capped_buffer import too_many
from beamlabel.transforms.loading.web import addresses


@contextmanager
def _own_symbols_first() -> Iterator[None]:
    """Makes loaded modules find their own libraries first.

    TensorFlow exports the functions of an older libcurl to all modules loaded after it; pycurl would call those, and
    refuses to.
    """
    if not hasattr(os, "RTLD_DEEPBIND"):  # other systems isolate libraries from each other
        yield
        return
    flags = sys.getdlopenflags()
    sys.setdlopenflags(flags | os.RTLD_DEEPBIND)
    try:
        yield
    finally:
        sys.setdlopenflags(flags)


with _own_symbols_first():
    import pycurl

# Bytes read at a time from a storage system, and from the web, which needs more connections.
_BUFFER_BYTES, _WEB_BUFFER_BYTES = 512 << 10, 128 << 10
_END_OF_HEADERS = (b"\r\n", b"\n")


@dataclass(frozen=True)
class ConnectionSettings:
    """Connection settings of a server, the same for all of its URLs.

    Attributes:
      proxy: URL of the proxy; empty: no proxy, even if the environment names one.
      certificates: file or directory of the trusted certificate authorities; None: no verification.
      is_web: whether the server is on the web, where paths are normalized and cookies handled.
      public_only: whether connections to non-public addresses are refused.
    """

    proxy: str
    certificates: str | None
    is_web: bool = False
    public_only: bool = False


class Request(NamedTuple):
    """A GET.

    Attributes:
      url: percent-encoded.
      headers: of the request.
      max_bytes: cap on the body; a longer announced body is not begun.
      stall: seconds to connect, and seconds of silence, rounded up, before the transfer is aborted.
      left: seconds for the whole transfer.
      resolved: ``host:port:address,…``: the known addresses of the URL's host; empty: libcurl asks the resolver.
      cookies: set by earlier answers, in libcurl's own form.
    """

    url: str
    headers: Mapping[str, str]
    max_bytes: int
    stall: float
    left: float
    resolved: str = ""
    cookies: Sequence[str] = ()


class Answer(NamedTuple):
    """The answer of a server.

    Attributes:
      status: HTTP status.
      lines: header lines.
      body: with its content encoding.
      cookies: set after the answer, in libcurl's own form.
    """

    status: int
    lines: list[bytes]
    body: bytes
    cookies: tuple[str, ...] = ()

    @property
    def headers(self) -> dict[str, str]:
        """The headers by lower-case name; repeated values are joined by commas."""
        found: dict[str, str] = {}
        for line in _final(self.lines):
            name, colon, value = line.decode("latin-1").partition(":")
            if colon:
                key, text = name.lower(), value.strip()
                found[key] = f"{found[key]},{text}" if key in found else text
        return found

    def values(self, name: str) -> list[bytes]:
        """The values of all headers of a name, in order."""
        start = name.lower().encode() + b":"
        return [
            line[len(start) :].strip() for line in _final(self.lines) if line[: len(start)].lower() == start
        ]


class RefusedAddressError(Exception):
    """A connection to a non-public address was refused; the message is the address."""


class TransferError(ConnectionError):
    """A request without a complete answer.

    Attributes:
      is_lasting: whether a retry would fail the same way.
    """

    def __init__(self, message: str, *, is_lasting: bool = False) -> None:
        super().__init__(message)
        self.is_lasting = is_lasting


BodyLimit = Callable[[int, list[bytes]], int]
"""The number of body bytes to read, by status and headers; 0 ends the transfer before the body."""


class Handle:
    """A libcurl handle with its kept-alive connections. It makes one request at a time, in any thread.

    Args:
      settings: of the connections.
    """

    def __init__(self, settings: ConnectionSettings) -> None:
        self.settings = settings
        self._refused: list[str] = []
        self._curl = curl = pycurl.Curl()
        curl.setopt(pycurl.NOSIGNAL, 1)  # only the main thread may use signals
        curl.setopt(pycurl.PROTOCOLS, pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS)
        curl.setopt(pycurl.REDIR_PROTOCOLS, pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS)
        curl.setopt(pycurl.FOLLOWLOCATION, 0)
        curl.setopt(pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_1_1)
        curl.setopt(pycurl.BUFFERSIZE, _WEB_BUFFER_BYTES if settings.is_web else _BUFFER_BYTES)
        curl.setopt(pycurl.LOW_SPEED_LIMIT, 1)
        curl.setopt(pycurl.PROXY, settings.proxy)
        curl.setopt(pycurl.NOPROXY, "")  # decided already
        if settings.is_web:
            curl.setopt(pycurl.COOKIEFILE, "")  # handles cookies, reads no file
        else:
            curl.setopt(pycurl.PATH_AS_IS, 1)  # an object may be called ".."
        if settings.public_only:
            curl.setopt(pycurl.OPENSOCKETFUNCTION, self._open_socket)
        if settings.certificates is None:
            curl.setopt(pycurl.SSL_VERIFYPEER, 0)
            curl.setopt(pycurl.SSL_VERIFYHOST, 0)
        else:
            is_directory = Path(settings.certificates).is_dir()
            curl.setopt(pycurl.CAPATH if is_directory else pycurl.CAINFO, settings.certificates)

    def _open_socket(self, purpose: int, address: Any) -> Any:
        """libcurl's callback before it connects to an address; an exception also refuses the address."""
        found = str(address.addr[0])
        # After one non-public address the host's other addresses are not trusted either.
        if self._refused or not addresses.is_public(found):
            self._refused.append(found)
            return pycurl.SOCKET_BAD
        return socket.socket(address.family, address.socktype, address.protocol)

    def ask(self, request: Request, limit: BodyLimit | None = None) -> Answer:
        """Makes one request; does not follow redirects.

        Args:
          request: to make.
          limit: of the body; None: the whole body, up to the cap.

        Raises:
          ImageError: The body of a 2xx answer exceeds the cap.
          requests.Timeout: The server did not answer or stalled.
          RefusedAddressError: The host's address is not public, but must be.
          TransferError: Any other failure without an HTTP status.
        """
        curl, lines = self._curl, list[bytes]()
        body = io.BytesIO() if limit is None else _Limited(limit, lines)
        # Without a limit the callbacks are C functions: libcurl calls them for every header and every 16 KB.
        curl.setopt(pycurl.HEADERFUNCTION, body.take_header if isinstance(body, _Limited) else lines.append)
        curl.setopt(pycurl.WRITEFUNCTION, body.write)
        self._prepare(request)
        cookies: tuple[str, ...] = ()
        try:
            curl.perform()
        except pycurl.error as error:
            # Errors in the body are ignored for other statuses and for unwanted bodies.
            is_unwanted = isinstance(body, _Limited) and body.is_unwanted
            if not is_unwanted and (not _is_complete(lines) or _status(lines) < 300):
                raise self._classified(error, request.max_bytes, lines, body) from error
        finally:
            if self.settings.is_web:
                cookies = tuple(curl.getinfo(pycurl.INFO_COOKIELIST))
                if cookies:  # else the next image would send them
                    curl.setopt(pycurl.COOKIELIST, "ALL")
        return Answer(int(curl.getinfo(pycurl.RESPONSE_CODE)), lines, body.getvalue(), cookies)

    def _prepare(self, request: Request) -> None:
        curl = self._curl
        curl.setopt(pycurl.URL, request.url)
        headers = request.headers
        curl.setopt(pycurl.MAXFILESIZE_LARGE, request.max_bytes)
        curl.setopt(pycurl.CONNECTTIMEOUT_MS, math.ceil(request.stall * 1e3))
        curl.setopt(pycurl.LOW_SPEED_TIME, math.ceil(request.stall))
        curl.setopt(pycurl.TIMEOUT_MS, math.ceil(request.left * 1e3))
        if request.resolved:
            # The plus sign lets the entry expire, so that a handle of many hosts does not grow.
            curl.setopt(pycurl.RESOLVE, ["+" + request.resolved])
        if self.settings.is_web:
            # libcurl adds it to the cookies of earlier answers; as a header it would replace them.
            cookie = next((value for name, value in headers.items() if name.lower() == "cookie"), None)
            if cookie is None:
                curl.unsetopt(pycurl.COOKIE)
            else:
                headers = {name: value for name, value in headers.items() if name.lower() != "cookie"}
                curl.setopt(pycurl.COOKIE, cookie.encode())
            for cookie in request.cookies:
                curl.setopt(pycurl.COOKIELIST, cookie)
        curl.setopt(pycurl.HTTPHEADER, [f"{name}: {value}".encode() for name, value in headers.items()])
        self._refused.clear()

    def _classified(
        self, error: pycurl.error, max_bytes: int, lines: list[bytes], body: io.BytesIO | _Limited
    ) -> Exception:
        code, message = error.args
        if self._refused:
            return RefusedAddressError(self._refused[0])
        if code == pycurl.E_OPERATION_TIMEDOUT:
            return requests.Timeout(message)
        if code == pycurl.E_FILESIZE_EXCEEDED or (isinstance(body, _Limited) and body.is_over):
            lengths = Answer(0, lines, b"").values("content-length")
            return too_many(max_bytes, lengths[-1].decode("latin-1") if lengths else None)
        errno = self._curl.getinfo(pycurl.OS_ERRNO)
        detail = (
            f"{message} ({os.strerror(errno)})" if code == pycurl.E_COULDNT_CONNECT and errno else message
        )
        return TransferError(detail, is_lasting=code in _LASTING)

    def close(self) -> None:
        """Closes the connections."""
        self._curl.close()


# Errors of certificates and invalid URLs, which a retry would meet again.
_LASTING = frozenset(
    {
        pycurl.E_PEER_FAILED_VERIFICATION,
        pycurl.E_SSL_CACERT_BADFILE,
        pycurl.E_SSL_ISSUER_ERROR,
        pycurl.E_UNSUPPORTED_PROTOCOL,
        pycurl.E_URL_MALFORMAT,
    }
)


class _Limited:
    """Collects a body up to a limit."""

    def __init__(self, limit: BodyLimit, lines: list[bytes]) -> None:
        self._limit_of, self._lines = limit, lines
        self._limit = 0
        self._body = io.BytesIO()
        self.is_unwanted = self.is_over = False
        self.getvalue = self._body.getvalue

    def take_header(self, line: bytes) -> int | None:
        self._lines.append(line)
        if line in _END_OF_HEADERS and (status := _status(self._lines)) >= 200:
            self._limit = self._limit_of(status, self._lines)
            if self._limit == 0:
                self.is_unwanted = True
                return 0  # fewer bytes than received: libcurl ends the transfer
        return None

    def write(self, chunk: bytes) -> int | None:
        if self._body.tell() + len(chunk) > self._limit:
            self.is_over = True
            return 0
        self._body.write(chunk)
        return None


def _final(lines: list[bytes]) -> list[bytes]:
    """The headers of the last answer, after those of a proxy or a 1xx status."""
    starts = [place for place, line in enumerate(lines) if line.startswith(b"HTTP/")]
    return lines[starts[-1] :] if starts else []


def _status(lines: list[bytes]) -> int:
    words = _final(lines)[0].split() if lines else []
    return int(words[1]) if len(words) > 1 and words[1].isdigit() else 0


def _is_complete(lines: list[bytes]) -> bool:
    return _status(lines) >= 200 and any(line in _END_OF_HEADERS for line in _final(lines))


class _Kept(threading.local):
    """A thread's handle with its connection."""

    handle: Handle | None = None


_kept = _Kept()
_inherited: list[_Kept] = []


def get(settings: ConnectionSettings, request: Request) -> Answer:
    """Makes one request on the calling thread's connection; see ``Handle.ask``."""
    handle = _kept.handle
    if handle is None or handle.settings != settings:
        handle = _kept.handle = Handle(settings)
    return handle.ask(request)


def _forget_handles() -> None:
    # A forked child shares the parent's sockets. It keeps them open: closing TLS would notify the server.
    global _kept
    _inherited.append(_kept)
    _kept = _Kept()


os.register_at_fork(after_in_child=_forget_handles)
