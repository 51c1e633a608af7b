"""What all storage backends share: the record of a file, and the language of patterns."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class StoredFile:
    """A file or object, as a listing or ``stat`` saw it.

    Attributes:
      path: an absolute path or a URI, which opens it.
      size: bytes, or None where the storage does not say (a dangling symbolic link, too).
      version: another string for other content: the generation (``gs://``), the modification time in ns
        (local), the time of the last update (others); None where the storage does not say.
    """

    path: str
    size: int | None
    version: str | None


_GLOB = re.compile(r"[*?[]")


def has_glob(pattern: str) -> bool:
    """Whether ``pattern`` holds a character that could mean more than itself."""
    return _GLOB.search(pattern) is not None


def escape(path: str) -> str:
    """A pattern that matches exactly ``path``, whatever characters it holds."""
    return _GLOB.sub(r"[\g<0>]", path)


def split_glob(pattern: str) -> tuple[str, str]:
    """Split before the first path segment with a glob character: ``a/b/*.jpg`` → ``a/b/``, ``*.jpg``."""
    glob = _GLOB.search(pattern)
    start = pattern.rfind("/", 0, glob.start() if glob else None) + 1
    return pattern[:start], pattern[start:]


def fixed_start(pattern: str) -> str:
    """The folder below which a pattern looks, with a slash at its end; a pattern without a glob names a folder."""
    literal = pattern if not has_glob(pattern) else split_glob(pattern)[0]
    return literal.rstrip("/") + "/"


def matcher(pattern: str) -> Callable[[str], object]:
    """A function that says whether a path matches ``pattern`` from end to end.

    ``*``, ``?`` and ``[...]`` (``[!...]`` negates) stop at ``/``, and ``**`` does not. ``**/`` between
    slashes also stands for no folder at all, so ``a/**/*.jpg`` includes ``a/1.jpg``, as in shells and Git.
    These are the patterns of Beam's ``FileSystem.translate_pattern``, whose ``?`` and ``[!...]`` match a
    ``/`` too, and whose ``a/**/b`` does not match ``a/b``.

    Raises:
      ValueError: a range in brackets runs backwards.
    """
    try:
        return re.compile(_translate(pattern), re.DOTALL).fullmatch
    except re.error as error:
        raise ValueError(f"bad pattern {pattern!r}: {error}") from error


def _translate(pattern: str) -> str:
    segments = pattern.split("/")
    parts = []
    for segment in segments[:-1]:
        parts.append("(?:.*/)?" if segment == "**" else _translate_segment(segment) + "/")
    return "".join(parts) + _translate_segment(segments[-1])


# A bracket that nothing closes, or that closes around nothing, is a plain character.
_TOKEN = re.compile(r"\*\*+|\*|\?|\[!?(?:\][^\]]*|[^\]]+)\]|.", re.DOTALL)


def _translate_segment(segment: str) -> str:
    return "".join(_translate_token(token) for token in _TOKEN.findall(segment))


def _translate_token(token: str) -> str:
    if token.startswith("**"):
        return ".*"
    if token in ("*", "?"):
        return "[^/]*" if token == "*" else "[^/]"
    if len(token) == 1:
        return re.escape(token)
    inside = token[1:-1]
    negated = inside.startswith("!") and inside != "!"
    # Of what a class may hold, only the dash keeps a meaning.
    chars = re.sub(r"[\\^\[\]&~|]", r"\\\g<0>", inside[negated:])
    return f"[^/{chars}]" if negated else f"(?!/)[{chars}]"
