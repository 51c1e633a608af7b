"""Text that is safe to show: it cannot move the cursor, forge a line, or break the encoding."""

from __future__ import annotations


def escaped(text: str, *, kept: str = "") -> str:
    """The text with unprintable characters in Python's escapes, such as ``\\x1b``, ``\\n`` and ``\\u202e``.

    Args:
      text: any; may hold surrogates, which stand for bytes of names that are not UTF-8.
      kept: characters that stay.
    """
    if text.isprintable():
        return text
    return "".join(
        one if one.isprintable() or one in kept else one.encode("unicode_escape").decode() for one in text
    )


def indented(text: str) -> str:
    """Escaped lines, indented after the first, so that none can pass for a message."""
    return escaped(text, kept="\n\t").replace("\n", "\n    ")
