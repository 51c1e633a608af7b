"""A file's text as blocks of UTF-8, for each supported compression, and the lines of a list of URIs."""

from __future__ import annotations

import codecs
import gzip
import itertools
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, NamedTuple

import pyarrow as pa

from beamlabel.transforms import storage
from beamlabel.transforms.inputs.uri_length import MAX_URI_BYTES

GZIP_MAGIC = b"\x1f\x8b"
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
UTF16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
BLOCK_BYTES = 1 << 20
# Of one request for a part of a file.
_RANGE_BYTES = 4 << 20
MAX_RECORD_BYTES = 4 << 20
"""The largest line of CSV or JSON; only the beginning of a longer one is held."""


class CutLine(bytes):
    """The beginning of a line that is too long.

    Attributes:
      size: bytes of the whole line, with its end.
    """

    size: int

    def __new__(cls, beginning: bytes, size: int) -> CutLine:
        line = super().__new__(cls, beginning)
        line.size = size
        return line


class TooLong(NamedTuple):
    """A reference that is too long, as its number of bytes."""

    size: int


class TextBlocks(NamedTuple):
    """The text of a file, without a byte order mark.

    Attributes:
      blocks: UTF-8, not verified.
      offset: of the text's first byte in the file; None if the file holds the text in another form (compressed,
        UTF-16), so that no range of its bytes is a range of the text.
      file: the file itself; its position shows how much of it the blocks took.
    """

    blocks: Iterator[bytes]
    offset: int | None
    file: BinaryIO


@contextmanager
def open_text(path: str) -> Iterator[TextBlocks]:
    """Opens a text file: plain, gzip or Zstandard by its first bytes; UTF-8, or UTF-16 with a byte order mark.

    Raises:
      OSError: it cannot be read.
      ValueError: while reading blocks: it is damaged.
    """
    with storage.open_input(path) as raw:
        magic = raw.read(4)
        raw.seek(0)
        stream: Any = raw
        if magic.startswith(GZIP_MAGIC):
            stream = gzip.GzipFile(fileobj=raw)
        elif magic == ZSTD_MAGIC:
            stream = pa.CompressedInputStream(pa.PythonFile(raw, mode="r"), "zstd")
        blocks = _blocks(stream, path)
        first = next(blocks, b"")
        while first and len(first) < len(codecs.BOM_UTF8) and (more := next(blocks, b"")):
            first += more
        mark = next((mark for mark in (codecs.BOM_UTF8, *UTF16_MARKS) if first.startswith(mark)), b"")
        rest: Iterator[bytes] = itertools.chain([first.removeprefix(mark)], blocks)
        if mark in UTF16_MARKS:
            rest = _from_utf16(rest, "utf-16-le" if mark == codecs.BOM_UTF16_LE else "utf-16-be", path)
        is_plain = stream is raw and mark not in UTF16_MARKS
        yield TextBlocks(rest, len(mark) if is_plain else None, raw)


def _blocks(stream: Any, path: str) -> Iterator[bytes]:
    while True:
        try:
            block = stream.read(BLOCK_BYTES)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise ValueError(f"{path}: damaged gzip file: {error}") from error
        except OSError as error:
            if not isinstance(stream, pa.NativeFile) or error.errno is not None:
                raise
            raise ValueError(f"{path}: damaged zstd file: {error}") from error
        if not block:
            return
        yield block


def _from_utf16(blocks: Iterator[bytes], encoding: str, path: str) -> Iterator[bytes]:
    decoder = codecs.getincrementaldecoder(encoding)()
    try:
        for block in blocks:
            yield decoder.decode(block).encode()
        yield decoder.decode(b"", final=True).encode()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: begins as UTF-16 but is not UTF-16: {error}") from error


def lines_of(blocks: Iterator[bytes], most: int = MAX_RECORD_BYTES) -> Iterator[bytes]:
    """Lines with their ends, ``\\n``; a ``CutLine`` for a line of more than ``most`` bytes."""
    held, size = b"", 0  # of a line that continues in the next block
    for block in blocks:
        lines = block.split(b"\n")
        rest = lines.pop()
        if lines and size:
            size += len(lines[0]) + 1
            held += lines.pop(0)[: most + 1 - len(held)]
            yield held + b"\n" if size <= most + 1 else CutLine(held[:most], size)
            held, size = b"", 0
        for line in lines:
            yield line + b"\n" if len(line) <= most else CutLine(line[:most], len(line) + 1)
        size += len(rest)
        held += rest[: most + 1 - len(held)]
    if size:
        yield held if size <= most else CutLine(held[:most], size)


def file_range(path: str, start: int, stop: int) -> Iterator[bytes]:
    """The bytes of a part of a file, without reading any others."""
    with storage.open_input(path) as raw:
        while start < stop and (block := storage.read_range(raw, start, min(_RANGE_BYTES, stop - start))):
            start += len(block)
            yield block


def skip(blocks: Iterator[bytes], count: int) -> Iterator[bytes]:
    """The blocks without their first ``count`` bytes."""
    for block in blocks:
        if count < len(block):
            yield block[count:]
        count -= min(count, len(block))


def head(blocks: Iterator[bytes], most: int) -> tuple[bytes, bool]:
    """The first bytes, at most ``most``, and whether they are the whole text."""
    found = b""
    for block in blocks:
        found += block
        if len(found) > most:
            return found[:most], False
    return found, True


def parse_line(line: bytes) -> str | TooLong | None:
    """The URI in one line, verbatim except for the line's end; None for a blank line or a ``#`` comment.

    Bytes that are not UTF-8 become U+FFFD, so that such a line still becomes a failure row.
    """
    if isinstance(line, CutLine):
        return None if line.startswith(b"#") else TooLong(line.size)
    text = line.rstrip(b"\r\n").decode("utf-8", errors="replace")
    if not text.strip() or text.startswith("#"):
        return None
    return text


def read_lines(path: str) -> Iterator[str | TooLong | None]:
    """Yields ``parse_line`` of every line, so that the position in the stream is the line's number.

    See ``open_text`` for compression and encodings.
    """
    with open_text(path) as text:
        yield from map(
            parse_line, lines_of(text.blocks, MAX_URI_BYTES + 1)
        )  # a ``\r`` may be a part of the line's end
