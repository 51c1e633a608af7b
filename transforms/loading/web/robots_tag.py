"""``X-Robots-Tag``: whether a server forbids the use of an image by models.

The header's form is Google's (developers.google.com/search/docs/crawling-indexing/robots-meta-tag): directives
separated by commas, which hold for all crawlers, or for the crawler named before a colon. DeviantArt introduced
``noai`` and ``noimageai`` in 2022, and other sites adopted them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_FORBIDDING = frozenset({"noai", "noimageai"})
# Text before a colon: a crawler's name, or a directive with a value.
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]+")
_WITH_VALUE = frozenset({"max-image-preview", "max-snippet", "max-video-preview", "unavailable_after"})
# RFC 9110: a comment in User-Agent, in parentheses.
_COMMENT = re.compile(r"\([^()]*\)")


def forbidding(tags: Iterable[str], user_agent: str) -> str | None:
    """The first directive of an answer that forbids the image's use, in lower case; None if there is none.

    Args:
      tags: values of the header, one for each occurrence.
      user_agent: of the request; directives for its products or for ``beamlabel`` apply.
    """
    names = {"beamlabel", "*", *_products(user_agent)}
    for tag in tags:
        concerns_us = True
        for part in tag.lower().split(","):
            directive = part.strip()
            before, colon, after = directive.partition(":")
            name = before.strip()
            if colon and _NAME.fullmatch(name) and name not in _WITH_VALUE:
                concerns_us, directive = name in names, after.strip()
            if concerns_us and directive in _FORBIDDING:
                return directive
    return None


def _products(user_agent: str) -> Iterable[str]:
    words = _COMMENT.sub(" ", user_agent.lower()).split()
    return (word.partition("/")[0] for word in words)
