"""Lines of a text file of URIs, plain or gzip, read in a streaming way."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from typing import BinaryIO

from beamlabel.transforms import storage

GZIP_MAGIC = b"\x1f\x8b"
_BOM = b"\xef\xbb\xbf"


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

    gzip is told by its magic bytes, not by the name. A UTF-8 byte order mark is dropped.
    """
    with storage.open_input(path) as raw:
        compressed = raw.read(2) == GZIP_MAGIC
        raw.seek(0)
        stream: BinaryIO = gzip.GzipFile(fileobj=raw) if compressed else raw  # type: ignore[assignment]
        try:
            for number, line in enumerate(stream):
                yield parse_line(line.removeprefix(_BOM) if number == 0 else line)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise ValueError(f"{path}: a damaged gzip file: {error}") from error
