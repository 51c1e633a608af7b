"""Lines of a text file of URIs, plain, gzip or Zstandard, read in a streaming way."""

from __future__ import annotations

from collections.abc import Iterator

from beamlabel.transforms.inputs.text_blocks import lines_of, open_text


def parse_line(line: bytes) -> str | None:
    """The URI in one line, verbatim but for the line's end; None for a blank line or a ``#`` comment.

    Bytes that are not UTF-8 become U+FFFD, so that such a line still ends as a failure row.
    """
    text = line.rstrip(b"\r\n").decode("utf-8", errors="replace")
    if not text.strip() or text.startswith("#"):
        return None
    return text


def read_lines(path: str) -> Iterator[str | None]:
    """Yields ``parse_line`` of every line, so that the position in the stream is the line's number.

    See ``open_text`` for compression and encodings.
    """
    with open_text(path) as text:
        yield from map(parse_line, lines_of(text.blocks))
