"""Values of headers that are credentials, in texts about requests."""

from __future__ import annotations

import re

from beamlabel.transforms.secrets.names import FILE_ENDINGS

_MENTIONED = re.compile(
    "(?i)authorization|bearer|basic|cookie|api-key|[_-]token|x-[a-z-]{0,40}(?:key|secret|auth)"
)
# After a name: `: `, `=`, `', b'` or `": "`.
_IS = r"[\"']?\s*[:=,]\s*b?[\"']?"
_WORD = r"[\w.~+/=:-]{8,}"
_PAIRS = r"[\w-]+=(?:\"[^\"\n]*\"|[^\s,\"']+)(?:\s*,\s*[\w-]+=(?:\"[^\"\n]*\"|[^\s,\"']+))*"
_NAMED = re.compile(
    # A scheme and its value; the value of an unknown scheme has a digit.
    rf"(?i)\b((?:proxy-)?authorization{_IS})"
    rf"(?:(?:(?:bearer|basic|token|digest|negotiate|apikey|oauth|sharedkey(?:lite)?|hawk|signature)"
    rf"|[\w-]+(?=\s+\S*\d))\s+(?:{_PAIRS}|{_WORD})|{_WORD})"
    rf"|\b((?:x-(?:[a-z]{{1,20}}-){{0,5}}(?:key|token|secret|auth|signature)|api-key|private-token){_IS}){_WORD}"
    rf"|\b((?:set-)?cookie{_IS})[\w-]+=[^\n\"']+"
)
# A scheme without the name of its header.
_SCHEME = re.compile(
    rf"(?i)\b((?:bearer|basic)\s+)(?=[\w.~+/=-]*\d)(?![^\s\"'`:]*\.(?:{FILE_ENDINGS})\b)[\w.~+/=-]{{8,}}"
)
_REMOVED = "***"


def without_headers(text: str) -> str:
    """A text without the values of headers such as ``Authorization``, ``Cookie`` and ``X-Api-Key``. Idempotent."""
    if not _MENTIONED.search(text):
        return text
    text = _NAMED.sub(lambda found: (found[1] or found[2] or found[3]) + _REMOVED, text)
    return _SCHEME.sub(rf"\1{_REMOVED}", text)
