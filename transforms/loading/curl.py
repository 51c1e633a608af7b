"""One GET by libcurl, on a connection that the calling thread keeps.

A transfer is one call into C that leaves the GIL alone until it is done, but for a few words a header. In
Python the same request takes the GIL a dozen times, where it stands in the way of decoding and inference.
"""

from __future__ import annotations

import io
import math
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import requests

from beamlabel.transforms.loading.capped_buffer import too_many


@contextmanager
def _own_symbols_first() -> Iterator[None]:
    """What is loaded finds its own libraries first.

    TensorFlow holds an older libcurl and shows its functions to all that is loaded after it: pycurl would
    call those, and refuses to.
    """
    if not hasattr(os, "RTLD_DEEPBIND"):  # elsewhere libraries do not see each other's functions
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

# What is read of a connection at a time.
_BUFFER_BYTES = 512 << 10


@dataclass(frozen=True)
class ConnectionSettings:
    """How a server is reached: the same for all of its URLs.

    Attributes:
      proxy: URL of the proxy; empty for none, whatever the environment says.
      certificates: file or folder of the authorities that are trusted; None to trust everybody.
    """

    proxy: str
    certificates: str | None


class _Kept(threading.local):
    """A thread's handle, which holds its connection, and the settings that it was made for."""

    settings: ConnectionSettings | None = None
    curl: Any = None


_kept = _Kept()
_inherited: list[_Kept] = []


class Answer(NamedTuple):
    """What a server said.

    Attributes:
      status: of HTTP.
      headers: by lower-case name; the values of one that came twice are joined by commas.
      body: its content encoding not undone.
    """

    status: int
    headers: dict[str, str]
    body: bytes


def get(
    settings: ConnectionSettings,
    url: str,
    headers: dict[str, str],
    *,
    max_bytes: int,
    stall: float,
    left: float,
) -> Answer:
    """Asks once, and does not follow redirects.

    Args:
      settings: how the server is reached.
      url: percent-encoded.
      headers: of the request.
      max_bytes: cap on the body; one that is announced to be longer is not begun.
      stall: seconds to connect, and seconds of silence, rounded up, after which the server is given up.
      left: seconds for the whole transfer.

    Raises:
      ImageError: a body of status 200 is larger than the cap.
      requests.Timeout: the server did not answer, or fell silent.
      ConnectionError: everything else that is not a status.
    """
    curl = _handle(settings)
    lines: list[bytes] = []
    body = io.BytesIO()
    curl.setopt(pycurl.URL, url)
    curl.setopt(pycurl.HTTPHEADER, [f"{name}: {value}" for name, value in headers.items()])
    # Functions in C: libcurl calls them for every header and every 16 KB.
    curl.setopt(pycurl.HEADERFUNCTION, lines.append)
    curl.setopt(pycurl.WRITEFUNCTION, body.write)
    curl.setopt(pycurl.MAXFILESIZE_LARGE, max_bytes)
    curl.setopt(pycurl.CONNECTTIMEOUT_MS, math.ceil(stall * 1e3))
    curl.setopt(pycurl.LOW_SPEED_TIME, math.ceil(stall))
    curl.setopt(pycurl.TIMEOUT_MS, math.ceil(left * 1e3))
    try:
        curl.perform()
    except pycurl.error as error:
        # Behind another status what went wrong with the body is of no interest.
        if curl.getinfo(pycurl.RESPONSE_CODE) in (0, 200, 206):
            raise _classified(error, max_bytes) from error
    return Answer(curl.getinfo(pycurl.RESPONSE_CODE), _headers(lines), body.getvalue())


def _handle(settings: ConnectionSettings) -> Any:
    if _kept.settings != settings:
        curl = pycurl.Curl()
        curl.setopt(pycurl.NOSIGNAL, 1)  # signals are for the main thread
        curl.setopt(pycurl.PROTOCOLS, pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS)
        curl.setopt(pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_1_1)
        curl.setopt(pycurl.PATH_AS_IS, 1)  # an object may be called ".."
        curl.setopt(pycurl.BUFFERSIZE, _BUFFER_BYTES)
        curl.setopt(pycurl.LOW_SPEED_LIMIT, 1)
        curl.setopt(pycurl.PROXY, settings.proxy)
        curl.setopt(pycurl.NOPROXY, "")  # decided already
        if settings.certificates is None:
            curl.setopt(pycurl.SSL_VERIFYPEER, 0)
            curl.setopt(pycurl.SSL_VERIFYHOST, 0)
        else:
            is_folder = Path(settings.certificates).is_dir()
            curl.setopt(pycurl.CAPATH if is_folder else pycurl.CAINFO, settings.certificates)
        _kept.settings, _kept.curl = settings, curl
    return _kept.curl


def _classified(error: pycurl.error, max_bytes: int) -> Exception:
    code, message = error.args
    if code == pycurl.E_OPERATION_TIMEDOUT:
        return requests.Timeout(message)
    if code == pycurl.E_FILESIZE_EXCEEDED:
        return too_many(max_bytes)
    return ConnectionError(message)


def _headers(lines: list[bytes]) -> dict[str, str]:
    found: dict[str, str] = {}
    for line in lines:
        if line.startswith(b"HTTP/"):  # before it were those of a proxy, or of a status 1xx
            found.clear()
            continue
        name, colon, value = line.decode("latin-1").partition(":")
        if colon:
            key, text = name.lower(), value.strip()
            found[key] = f"{found[key]},{text}" if key in found else text
    return found


def _forget_handles() -> None:
    # A forked child shares the parent's sockets. What it inherits is kept: to close TLS is to say so to the server.
    global _kept
    _inherited.append(_kept)
    _kept = _Kept()


os.register_at_fork(after_in_child=_forget_handles)
