"""Fetches one image over ``http(s)://``, with a check for public addresses, a byte cap, a deadline, and retries.

This module resolves a name, checks its addresses and passes them to libcurl, so that a name cannot resolve to a public
address first and a private one later (DNS rebinding). The address is checked once more before libcurl connects to it.
TLS verifies the name. Every redirect is a separate request with the same checks.

The environment's proxies are not used: a proxy resolves names itself, so that no address could be checked.

An image is fetched in steps; no thread is held during pauses and waits for a host: see ``HttpFetch``.
"""

from __future__ import annotations

import base64
import functools
import http.client
import os
import socket
import ssl
import time
from email.utils import mktime_tz, parsedate_tz

import certifi
import requests
from google.api_core.retry import exponential_sleep_generator
from urllib3.exceptions import DecodeError

from beamlabel.transforms.loading import curl
from beamlabel.transforms.loading.capped_buffer import Capped, decoded, too_late
from beamlabel.transforms.loading.handle_pool import handle_pool
from beamlabel.transforms.loading.web import addresses
from beamlabel.transforms.loading.web.host_gate import host_gate
from beamlabel.transforms.loading.web.http_options import HttpOptions
from beamlabel.transforms.loading.web.robots_tag import forbidding
from beamlabel.transforms.loading.web.web_url import WebUrl, parsed, redirected
from beamlabel.transforms.records import ImageError, Reason, Stage
from beamlabel.transforms.storage.retries import LAST_START, STALL

MAX_REDIRECTS = 5
MAX_TRIES = 6
# With full jitter the pauses average a quarter of a second, then half a second, and so on.
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 8.0
# Bytes of an unwanted body that are read so that its connection can be reused.
_DRAINED_BYTES = 64 << 10
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_REASONS = {404: Reason.NOT_FOUND, 410: Reason.NOT_FOUND, 401: Reason.FORBIDDEN, 403: Reason.FORBIDDEN}


class _TransientError(ImageError):
    """A failure that a retry may not meet; ``retry_after`` is the pause requested, in seconds."""

    def __init__(self, reason: Reason, detail: str, retry_after: float = 0.0) -> None:
        super().__init__(Stage.FETCH, reason, detail)
        self.retry_after = retry_after


def _refused(reason: Reason, detail: str) -> ImageError:
    return ImageError(Stage.FETCH, reason, detail)


class HttpFetch:
    """The requests for one image, one after the other; the caller asks the host gate before each step.

    After the statuses 408, 429 and 5xx, timeouts and broken connections the image is tried again, up to ``MAX_TRIES``
    tries in all and not before ``Retry-After``; after other failures it is not. Cookies are kept within one try and its
    redirects. The headers of the options and the URL's user and password go only to the origin of the image's URL.

    Args:
      url: ``http://`` or ``https://``; a user and password in it are sent as basic authentication.
      max_bytes: cap on the body, decoded.
      deadline: seconds for all tries, redirects and pauses together, from the first step, without waits for admission
        to a host. Only the system's resolver may exceed it.
      allow_private_hosts: whether connections to non-public addresses are allowed.
      options: headers and limits.
      allowed_schemes: schemes that a redirect may lead to; None: ``http`` and ``https``.

    Attributes:
      due: earliest time of the next step, in ``time.monotonic()``.

    Raises:
      ImageError: The URL is invalid.
    """

    def __init__(
        self,
        url: str,
        *,
        max_bytes: int,
        deadline: float,
        allow_private_hosts: bool = False,
        options: HttpOptions | None = None,
        allowed_schemes: tuple[str, ...] | None = None,
    ) -> None:
        try:
            self._first = self._next = parsed(url)
        except ValueError as error:
            raise _refused(Reason.INVALID_URI, "not a valid URL") from error
        self.options = options or HttpOptions()
        self.due = 0.0
        self._max_bytes, self._deadline, self._public_only = max_bytes, deadline, not allow_private_hosts
        self._allowed_schemes = allowed_schemes
        self._begun: float | None = None
        self._tries, self._redirects = 1, 0
        self._cookies: tuple[str, ...] = ()
        self._pauses = exponential_sleep_generator(FIRST_PAUSE, LONGEST_PAUSE)

    @property
    def host(self) -> str:
        """Host and port of the next step."""
        return self._next.authority

    @property
    def seconds(self) -> float:
        """The seconds since the first step."""
        return 0.0 if self._begun is None else time.monotonic() - self._begun

    def excuse(self, seconds: float) -> None:
        """Excludes seconds of waiting for admission from the deadline."""
        if self._begun is not None:
            self._begun += seconds

    def wait_until(self, when: float) -> None:
        """Postpones the next step to ``when``, in ``time.monotonic()``.

        Raises:
          ImageError: That is later than the deadline allows.
        """
        self.due = max(self.due, when)
        now = time.monotonic()
        if self.due <= now:
            return
        begun = now if self._begun is None else self._begun
        if self.due > begun + self._deadline * LAST_START:
            raise self._given_up(
                _TransientError(
                    Reason.FETCH_ERROR,
                    f"{self._next.host} asks by Retry-After to wait {self.due - now:.0f} s, longer than "
                    f"--fetch_deadline {self._deadline:g} allows",
                )
            )

    def step(self) -> tuple[bytes, str | None] | None:
        """Makes the next request.

        Returns:
          The image's decoded bytes, and its ``ETag``, else ``Last-Modified``, else None; or None if another step is
          needed.

        Raises:
          ImageError: Stage ``fetch``: the image cannot be fetched.
        """
        if self._begun is None:
            self._begun = time.monotonic()
        try:
            answer = self._ask()
            if answer.status in _REDIRECTS and (location := answer.values("location")):
                self._redirect(answer, location[0])
                return None
            self._check_status(answer)
            headers = answer.headers
            body = Capped(self._max_bytes, self._deadline, self._end)
            return decoded(answer.body, headers, body), headers.get("etag") or headers.get("last-modified")
        except DecodeError as error:
            raise _refused(Reason.FETCH_ERROR, "the content encoding is broken") from error
        except _TransientError as error:
            self._try_again(error)
            return None

    @property
    def _end(self) -> float:
        assert self._begun is not None
        return self._begun + self._deadline

    def _try_again(self, error: _TransientError) -> None:
        now = time.monotonic()
        assert self._begun is not None
        due = now + max(next(self._pauses), error.retry_after)
        if self._tries >= MAX_TRIES or due > self._begun + self._deadline * LAST_START:
            raise self._given_up(error) from error
        self._tries += 1
        self._next, self._redirects, self._cookies = self._first, 0, ()
        self.due = due

    def _given_up(self, error: _TransientError) -> ImageError:
        detail = f"{error.detail}, after {self._tries} tries" if self._tries > 1 else error.detail
        return _refused(error.reason, detail)

    def _ask(self) -> curl.Answer:
        url = self._next
        resolved = self._resolved(url)
        left = max(self._end - time.monotonic(), 0.001)
        request = curl.Request(
            url.text,
            self._headers(url),
            self._max_bytes,
            min(self._deadline * STALL, left),
            left,
            resolved,
            self._cookies,
        )
        settings = curl.ConnectionSettings("", _authorities(), is_web=True, public_only=self._public_only)
        try:
            with handle_pool(settings).handle(url.authority) as handle:
                answer = handle.ask(request, self._wanted)
        except requests.Timeout as error:
            timeout = too_late(self._deadline)
            raise _TransientError(timeout.reason, timeout.detail) from error
        except curl.RefusedAddressError as error:
            raise _not_public(url.host, str(error)) from error
        except curl.TransferError as error:
            addresses.forget(url.host, url.port)
            kind = _refused if error.is_lasting else _TransientError
            raise kind(Reason.FETCH_ERROR, str(error)) from error
        self._cookies = answer.cookies
        if (directive := self._forbidden(answer.status, answer.lines)) is not None:
            detail = f"{url.host} sent X-Robots-Tag: {directive}; --ignore_robots_tag allows it"
            raise _refused(Reason.NOT_ALLOWED, detail)
        return answer

    def _resolved(self, url: WebUrl) -> str:
        """The host's checked addresses, in libcurl's form."""
        try:
            found = addresses.addresses(url.host, url.port)
        except UnicodeError as error:
            reason = Reason.INVALID_URI if url is self._first else Reason.FETCH_ERROR
            raise _refused(reason, "not a valid URL: the host name is invalid") from error
        except OSError as error:
            is_lasting = isinstance(error, socket.gaierror) and error.errno != socket.EAI_AGAIN
            kind = _refused if is_lasting else _TransientError
            raise kind(Reason.FETCH_ERROR, f"{url.host}: {error}") from error
        for address in found:
            if self._public_only and not addresses.is_public(address):
                raise _not_public(url.host, address)
        if url.host in found:
            return ""
        return f"{url.host}:{url.port}:{','.join(f'[{one}]' if ':' in one else one for one in found)}"

    def _headers(self, url: WebUrl) -> dict[str, str]:
        headers = {"Accept": "image/*,*/*;q=0.5"}
        userinfo = url.userinfo
        if url.origin == self._first.origin:
            for name, value in self.options.headers:
                # Drop our header of the same name in other letters.
                headers.pop(name.title(), None)
                headers[name] = value
            userinfo = userinfo or self._first.userinfo
        if userinfo:
            headers = {name: value for name, value in headers.items() if name.lower() != "authorization"}
            headers["Authorization"] = "Basic " + base64.b64encode(userinfo.encode()).decode()
        return {**headers, "User-Agent": self.options.agent, "Accept-Encoding": "identity"}

    def _wanted(self, status: int, lines: list[bytes]) -> int:
        """The number of body bytes to read, see ``curl.BodyLimit``."""
        if self._forbidden(status, lines) is not None:
            return 0
        return self._max_bytes if 200 <= status < 300 else _DRAINED_BYTES

    def _forbidden(self, status: int, lines: list[bytes]) -> str | None:
        if self.options.ignore_robots_tag or not (200 <= status < 300 or status in _REDIRECTS):
            return None
        tags = curl.Answer(status, lines, b"").values("x-robots-tag")
        return forbidding((tag.decode("latin-1") for tag in tags), self.options.agent) if tags else None

    def _redirect(self, answer: curl.Answer, location: bytes) -> None:
        self._redirects += 1
        if self._redirects > MAX_REDIRECTS:
            raise _refused(Reason.FETCH_ERROR, f"more than {MAX_REDIRECTS} redirects")
        try:
            target = redirected(self._next, location)
        except ValueError as error:
            raise _refused(Reason.FETCH_ERROR, "the redirect has an invalid URL") from error
        scheme = target.partition(":")[0].lower()
        if self._allowed_schemes is not None and scheme not in self._allowed_schemes:
            detail = f"redirected to the scheme {scheme!r}, which --allowed_schemes does not include"
            raise _refused(Reason.SCHEME_NOT_ALLOWED, detail)
        if scheme not in ("http", "https"):
            raise _refused(Reason.NOT_ALLOWED, f"redirected to the scheme {scheme!r}")
        try:
            self._next = parsed(target)
        except ValueError as error:
            raise _refused(Reason.FETCH_ERROR, "the redirect has an invalid URL") from error

    def _check_status(self, answer: curl.Answer) -> None:
        status = answer.status
        if 200 <= status < 300:
            return
        detail = f"status {status} {http.client.responses.get(status, '')}".rstrip()
        if status in (408, 429) or status >= 500:
            pause = _retry_after(answer.headers)
            if pause and status in (429, 503):
                host_gate().hold(self.host, time.monotonic() + pause)
            raise _TransientError(Reason.FETCH_ERROR, detail, pause)
        raise _refused(_REASONS.get(status, Reason.FETCH_ERROR), detail)


def _not_public(host: str, address: str) -> ImageError:
    detail = f"{host} resolves to {address}, which is not public; --allow_private_hosts allows it"
    return _refused(Reason.NOT_ALLOWED, detail)


def _retry_after(headers: dict[str, str]) -> float:
    """The seconds of ``Retry-After``, a number or a date by the server's clock (RFC 9110, 10.2.3); 0 without one."""
    text = headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    date, now = parsedate_tz(text), parsedate_tz(headers.get("date", ""))
    if date is None:
        return 0.0
    try:
        return max(mktime_tz(date) - (time.time() if now is None else mktime_tz(now)), 0.0)
    except (ValueError, OverflowError):
        return 0.0


def _authorities() -> str:
    """The file or directory of the certificate authorities that Python trusts."""
    return _found_authorities(os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))


@functools.lru_cache(maxsize=8)
def _found_authorities(_file: str | None, _directory: str | None) -> str:
    found = ssl.get_default_verify_paths()
    return found.cafile or found.capath or certifi.where()
