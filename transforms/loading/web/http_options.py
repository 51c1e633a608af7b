"""How a program asks servers of the web: who it says it is, which headers it sends, and how much at a time."""

from __future__ import annotations

import functools
import importlib.metadata
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

CONTACT_URL = "https://beamlabel.example/"
"""Where those whose servers are asked find who asks; the project's, see ``pyproject.toml``."""

PER_HOST = 8
"""Requests at a time to one host, unless the options say otherwise."""

# RFC 9110: a header's name.
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
# They say how a message is sent, or make its answer another than the whole image.
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
    """How ``http://`` and ``https://`` are fetched.

    Attributes:
      headers: name and value of what each request for an image says beside our own; secrets, as a rule, which no
        text shows.
      user_agent: who asks; None: ``default_user_agent``.
      ignore_robots_tag: whether images are taken whose server says ``X-Robots-Tag: noai``.
      per_host: requests at a time to one host from a process.

    Raises:
      ValueError: a value that cannot be sent, or is out of range; names the argument, and holds no header's value.
    """

    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    user_agent: str | None = None
    ignore_robots_tag: bool = False
    per_host: int = PER_HOST

    def __post_init__(self) -> None:
        check_headers(self.headers, "http_headers")
        if self.user_agent is not None and (not self.user_agent.strip() or not _is_text(self.user_agent)):
            raise ValueError(f"user_agent must be a line of text that is not empty, not {self.user_agent!r}")
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
    """A header that the user has given. No text shows its value, and JSON does not take it.

    Attributes:
      name: of the header.
      value: it is a secret, as a rule.

    Raises:
      ValueError: it may not be sent; the message does not hold the value.
    """

    name: str
    value: str = field(repr=False)

    def __post_init__(self) -> None:
        _check_header(self.name, self.value)


def _check_header(name: str, value: str) -> None:
    if not _TOKEN.fullmatch(name):
        raise ValueError(f"{name!r} is no name of a header")
    if name.lower() == "user-agent":
        raise ValueError(f"{name} has an option of its own: user_agent")
    if name.lower() in _OURS:
        raise ValueError(f"{name} is not for you to set: images would be fetched wrongly, or not at all")
    if not value.strip():
        raise ValueError(f"{name} has no value")
    if not _is_text(value):
        raise ValueError(f"the value of {name} holds a line break or another control character")


def check_headers(headers: Iterable[tuple[str, str]], argument: str) -> None:
    """Raises ``ValueError``, which names the argument and no value, for headers that may not be sent together."""
    names = set()
    for name, value in headers:
        try:
            _check_header(name, value)
        except ValueError as error:
            raise ValueError(f"{argument}: {error}") from None
        if name.lower() in names:
            raise ValueError(f"{argument}: {name} is there twice")
        names.add(name.lower())


def headers_of(mapping: Mapping[str, str] | None) -> tuple[tuple[str, str], ...]:
    """The public argument ``http_headers`` as ``HttpOptions`` takes it.

    Raises:
      ValueError: a name or a value is no text.
    """
    items = tuple((mapping or {}).items())
    if any(not isinstance(text, str) for item in items for text in item):
        raise ValueError("http_headers must be texts by the names of headers")
    return items


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # a lone surrogate
        return False
    return not _CONTROL.search(text)


@functools.cache
def default_user_agent() -> str:
    """What requests for images say that they come from: program, version, and where to ask about it."""
    try:
        return f"beamlabel/{importlib.metadata.version('beamlabel')} (+{CONTACT_URL})"
    except importlib.metadata.PackageNotFoundError:
        return f"beamlabel (+{CONTACT_URL})"
