"""The URL of an image on the web, in parts and in encoded form."""

from __future__ import annotations

import ipaddress
import re
from typing import NamedTuple
from urllib.parse import SplitResult, quote, unquote, urljoin, urlsplit

import idna

_PORTS = {"http": 80, "https": 443}
_NAME = re.compile(r"[a-z0-9_-][a-z0-9_.-]*")
_BLANK = re.compile(r"[\x00-\x20\x7f]")
_STRAY_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
# RFC 3986: characters allowed unencoded in paths and queries, besides letters, digits and "-._~".
_IN_PATH = "/%:@!$&'()*+,;="
_IN_QUERY = _IN_PATH + "?"


class WebUrl(NamedTuple):
    """An absolute URL.

    Attributes:
      scheme: ``http`` or ``https``.
      host: a name in ASCII and lower case, or an IP address without brackets.
      port: explicit, or the scheme's default.
      target: path and query, percent-encoded.
      userinfo: ``user:password``, decoded; None for none.
    """

    scheme: str
    host: str
    port: int
    target: str
    userinfo: str | None = None

    @property
    def text(self) -> str:
        """The URL without the userinfo."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port == _PORTS[self.scheme] else f":{self.port}"
        return f"{self.scheme}://{host}{port}{self.target}"

    @property
    def origin(self) -> tuple[str, str, int]:
        """Scheme, host and port (RFC 6454); credentials go to one origin only."""
        return self.scheme, self.host, self.port

    @property
    def authority(self) -> str:
        """Host and port of the server."""
        return f"{self.host}:{self.port}"


def parsed(url: str) -> WebUrl:
    """Parses a URL; percent-encodes invalid characters as UTF-8, and drops the fragment.

    Bytes that are not UTF-8 are represented by ``surrogateescape``.

    Raises:
      ValueError: The URL is not ``http`` or ``https``, or has no valid host.
    """
    # urlsplit would drop line feeds and tabs.
    parts = urlsplit(_BLANK.sub(lambda match: f"%{ord(match[0]):02X}", url))
    if parts.scheme not in _PORTS:
        raise ValueError("neither http nor https")
    port = parts.port
    if port == 0:
        raise ValueError("port 0")
    target = _encoded(parts.path, _IN_PATH) or "/"
    if parts.query:
        target += "?" + _encoded(parts.query, _IN_QUERY)
    userinfo, at_sign, _ = parts.netloc.rpartition("@")
    return WebUrl(
        parts.scheme,
        _host(parts),
        _PORTS[parts.scheme] if port is None else port,
        target,
        unquote(userinfo) if at_sign else None,
    )


def redirected(url: WebUrl, location: bytes) -> str:
    """The target of a ``Location`` header: an absolute URL of any scheme, not checked.

    The bytes are usually UTF-8, as in browsers, though RFC 9110 requires ASCII.

    Raises:
      ValueError: The target is not a URL.
    """
    text = location.decode("utf-8", "surrogateescape").strip()
    return urljoin(url.text, _BLANK.sub(lambda match: f"%{ord(match[0]):02X}", text))


def _host(parts: SplitResult) -> str:
    host = parts.hostname or ""
    if "[" in parts.netloc:
        if "%" in host:
            raise ValueError("an interface of one machine")
        return str(ipaddress.IPv6Address(host))
    if not host.isascii():
        # As in browsers, UTS 46 maps characters that IDNA 2008 alone would refuse, such as capitals.
        host = idna.encode(host, uts46=True).decode()
    if not _NAME.fullmatch(host):
        raise ValueError("no host")
    return host


def _encoded(text: str, safe: str) -> str:
    return quote(_STRAY_PERCENT.sub("%25", text), safe=safe, errors="surrogateescape")
