"""Options of requests to web servers: user agent, headers, and concurrency."""

from __future__ import annotations

import functools
import importlib.metadata
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

CONTACT_URL = "https://beamlabel.example/"
"""Contact for the operators of web servers: the project's URL, see ``pyproject.toml``."""

PER_HOST = 8
"""Default number of concurrent requests to one host."""

# RFC 9110: a header's name.
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
# Headers that control the transfer, or make the answer other than the whole image.
_OURS = frozenset(
    {
        "accept-encoding",
        "connection",
        "content-length",
        "expect",
        "host",
        "if-match",
        "if-modified-since",
        "if-none-match",
        "if-range",
        "if-unmodified-since",
        "keep-alive",
        "proxy-authorization",
        "proxy-connection",
        "range",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)


@dataclass(frozen=True)
class HttpOptions:
    """Options for fetching ``http://`` and ``https://`` URLs.

    Attributes:
      headers: names and values of additional headers for each image; usually secrets, which no text shows.
      user_agent: the header ``User-Agent``; None: ``default_user_agent``.
      ignore_robots_tag: whether to fetch images whose server sends ``X-Robots-Tag: noai``.
      per_host: concurrent requests to one host from a process.

    Raises:
      ValueError: A value cannot be sent, or is out of range; the message names the argument, but no header's value.
    """

    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    user_agent: str | None = None
    ignore_robots_tag: bool = False
    per_host: int = PER_HOST

    def __post_init__(self) -> None:
        check_headers(self.headers, "http_headers")
        if self.user_agent is not None and (not self.user_agent.strip() or not _is_text(self.user_agent)):
            raise ValueError(f"user_agent must be a non-empty line of text, not {self.user_agent!r}")
        if not isinstance(self.ignore_robots_tag, bool):
            raise ValueError(f"ignore_robots_tag must be True or False, not {self.ignore_robots_tag!r}")
        if isinstance(self.per_host, bool) or not isinstance(self.per_host, int) or self.per_host < 1:
            raise ValueError(f"http_per_host must be a whole number of at least 1, not {self.per_host!r}")

    @property
    def agent(self) -> str:
        """The header ``User-Agent``."""
        return self.user_agent or default_user_agent()


@dataclass(frozen=True)
class HttpHeader:
    """A header from the user. No text shows its value, and JSON cannot serialize it.

    Attributes:
      name: of the header.
      value: of the header, usually a secret.

    Raises:
      ValueError: The header may not be sent; the message does not hold the value.
    """

    name: str
    value: str = field(repr=False)

    def __post_init__(self) -> None:
        _check_header(self.name, self.value)


def _check_header(name: str, value: str) -> None:
    if not _TOKEN.fullmatch(name):
        raise ValueError(f"{name!r} is not a valid header name")
    if name.lower() == "user-agent":
        raise ValueError(f"set {name} with the option user_agent")
    if name.lower() in _OURS:
        raise ValueError(f"{name} cannot be set, since it would break the requests for images")
    if not value.strip():
        raise ValueError(f"{name} has no value")
    if not _is_text(value):
        raise ValueError(f"the value of {name} holds a line break or another control character")


def check_headers(headers: Iterable[tuple[str, str]], argument: str) -> None:
    """Raises ``ValueError`` for headers that may not be sent together; it names the argument, but no value."""
    names = set()
    for name, value in headers:
        try:
            _check_header(name, value)
        except ValueError as error:
            raise ValueError(f"{argument}: {error}") from None
        if name.lower() in names:
            raise ValueError(f"{argument}: {name} is given twice")
        names.add(name.lower())


def headers_of(mapping: Mapping[str, str] | None) -> tuple[tuple[str, str], ...]:
    """Converts the public argument ``http_headers`` for ``HttpOptions``.

    Raises:
      ValueError: A name or value is not a string.
    """
    items = tuple((mapping or {}).items())
    if any(not isinstance(text, str) for item in items for text in item):
        raise ValueError("http_headers must map header names to strings")
    return items


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # a lone surrogate
        return False
    return not _CONTROL.search(text)


@functools.cache
def default_user_agent() -> str:
    """The default ``User-Agent``: program, version, and contact URL."""
    try:
        return f"beamlabel/{importlib.metadata.version('beamlabel')} (+{CONTACT_URL})"
    except importlib.metadata.PackageNotFoundError:
        return f"beamlabel (+{CONTACT_URL})"
