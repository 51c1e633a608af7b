"""Texts that can be shown: nothing in them moves the cursor, forges a line, or breaks the encoding."""

from __future__ import annotations


def escaped(text: str, *, kept: str = "") -> str:
    """The text with all that cannot be printed written as Python writes it, such as ``\\x1b``, ``\\n`` and ``\\u202e``.

    Args:
      text: any; surrogates, which stand for bytes of names that are no UTF-8, included.
      kept: characters that stay.
    """
    if text.isprintable():
        return text
    return "".join(
        one if one.isprintable() or one in kept else one.encode("unicode_escape").decode() for one in text
    )


def indented(text: str) -> str:
    """Lines, escaped, of which those that follow the first are indented, so that none passes for a message."""
    return escaped(text, kept="\n\t").replace("\n", "\n    ")
