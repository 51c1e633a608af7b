"""Characters of a URL as JSON, JavaScript and HTML escape them: ``\\u0026``, ``\\x40``, ``&#64;``."""

from __future__ import annotations

import re
from html import unescape

# The characters that separate the parts of a URL. Quotation marks stay escaped, so that JSON stays JSON.
_CODES = "23|25|26|2f|3a|3b|3d|3f|40"
_DECIMAL = "35|37|38|47|58|59|61|63|64"
_SPELLED = re.compile(
    rf"(?i)\\+(?:u00|x)({_CODES})|&(?:#x0*(?:{_CODES})|#0*(?:{_DECIMAL})|num|percnt|sol|colon|semi|equals|quest|commat);"
)


def is_spelled(text: str) -> bool:
    """Whether a text may have such escapes."""
    return ("\\" in text or "&" in text) and _SPELLED.search(text) is not None


def respelled(text: str) -> str:
    """The text with these characters themselves."""
    return _SPELLED.sub(lambda found: chr(int(found[1], 16)) if found[1] else unescape(found[0]), text)
