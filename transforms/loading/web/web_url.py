"""The URL of an image on the web, in its parts, and as it is sent."""

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
# RFC 3986: what may stand in a path and in a query as it is, beside letters, digits and "-._~".
_IN_PATH = "/%:@!$&'()*+,;="
_IN_QUERY = _IN_PATH + "?"


class WebUrl(NamedTuple):
    """An absolute URL.

    Attributes:
      scheme: ``http`` or ``https``.
      host: a name in ASCII and lower case, or an IP address without brackets.
      port: its own, or the scheme's.
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
        """Scheme, host and port (RFC 6454): what is meant for one origin is no other's business."""
        return self.scheme, self.host, self.port

    @property
    def authority(self) -> str:
        """Host and port: whom requests are made to."""
        return f"{self.host}:{self.port}"


def parsed(url: str) -> WebUrl:
    """The parts of a URL; characters that a URL cannot hold are percent-encoded as UTF-8, the fragment is left out.

    Bytes that are no UTF-8 are those that ``surrogateescape`` stands for.

    Raises:
      ValueError: it is no ``http`` or ``https`` URL of a host.
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
    """Where a ``Location`` leads from a URL: an absolute URL of any scheme, not checked.

    The bytes are UTF-8 as a rule, as browsers take them, though RFC 9110 wants ASCII.

    Raises:
      ValueError: it is no URL.
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
        # As browsers do: UTS 46 maps what IDNA 2008 alone would refuse, such as capitals.
        host = idna.encode(host, uts46=True).decode()
    if not _NAME.fullmatch(host):
        raise ValueError("no host")
    return host


def _encoded(text: str, safe: str) -> str:
    return quote(_STRAY_PERCENT.sub("%25", text), safe=safe, errors="surrogateescape")
