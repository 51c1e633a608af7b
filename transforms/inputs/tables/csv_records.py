"""Records of CSV text, each with its bytes.

``csv`` finds the records, since it shows which lines belong to each and which are malformed. ``pyarrow.csv``, which
shows neither, reads the cells of the well-formed records (``csv_cells``).
"""

from __future__ import annotations

import csv
import re
from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

from beamlabel.transforms.inputs.text_blocks import MAX_RECORD_BYTES, CutLine

# A record of several lines without an end in so many bytes is malformed, and its lines are read again.
_MAX_RECORD_BYTES = 1 << 20
_LINE_END = re.compile(rb"\r\n?|\n")
# The limit of repeated reading, in bytes: each line adds some more of them.
_MAX_AGAIN, _AGAIN_OF_READ, _BYTES_OF_LINE = 64 << 20, 100, 64


class CsvRecord(NamedTuple):
    """A record.

    Attributes:
      raw: its bytes, with the end of its last line; a ``CutLine`` if it has too many.
      fields: its cells; bytes that are not UTF-8 are surrogates (``surrogateescape``). Empty for a blank line.
      problem: why the record is malformed, else None.
    """

    raw: bytes
    fields: list[str]
    problem: str | None


class _Lines:
    """Lines for ``csv.reader``, which requests as many as a record has."""

    def __init__(self, blocks: Iterator[bytes]) -> None:
        self._lines = _split(blocks)
        self._again = deque[bytes]()
        self._taken: list[bytes] = []
        self._taken_bytes = 0
        self._left = _MAX_AGAIN

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        if len(self._taken) > 1 and self._taken_bytes > _MAX_RECORD_BYTES:
            raise csv.Error(f"no end within {_MAX_RECORD_BYTES} bytes")
        line = self._again.popleft() if self._again else next(self._lines)
        self._taken.append(line)
        self._taken_bytes += len(line)
        if isinstance(line, CutLine):
            raise csv.Error(f"the line has {line.size} bytes, more than the limit of {MAX_RECORD_BYTES}")
        return line.decode("utf-8", "surrogateescape")

    def give_back(self) -> None:
        """Returns all lines of the record except the first, to be read again."""
        again = self._taken[1:]
        self._left -= self._taken_bytes + len(again) * _BYTES_OF_LINE
        if self._left < 0:
            raise ValueError("too many quotation marks are not closed; this is not CSV")
        self._again.extendleft(reversed(again))
        del self._taken[1:]

    def take(self) -> bytes:
        taken = self._taken[0] if len(self._taken) == 1 else b"".join(self._taken)
        self._left += (len(taken) + len(self._taken) * _BYTES_OF_LINE) * _AGAIN_OF_READ
        self._taken.clear()
        self._taken_bytes = 0
        return taken


def _split(blocks: Iterator[bytes]) -> Iterator[bytes]:
    """Lines with their ends: ``\\n``, ``\\r\\n`` or ``\\r``; ``CutLine``s for lines that are too long."""
    rest, dropped = b"", 0  # of an unfinished line: its held bytes, and the number of others
    carried = b""
    for block in blocks:
        if dropped:
            block = carried + block
            end = _line_end(block)
            carried = b"\r" if end is None and block.endswith(b"\r") else b""
            if end is None:
                dropped += len(block) - len(carried)
                continue
            yield CutLine(rest, len(rest) + dropped + end)
            rest, dropped, block = b"", 0, block[end:]
        lines = (rest + block).splitlines(keepends=True)
        # The last line may continue, and a \n may follow its \r.
        rest = lines.pop() if lines and not lines[-1].endswith(b"\n") else b""
        yield from map(_cut, lines)
        if len(rest) > MAX_RECORD_BYTES and not rest.endswith(b"\r"):
            rest, dropped = rest[:MAX_RECORD_BYTES], len(rest) - MAX_RECORD_BYTES
    if dropped:
        yield CutLine(rest, len(rest) + dropped + len(carried))
    else:
        yield from map(_cut, rest.splitlines(keepends=True))


def _line_end(block: bytes) -> int | None:
    """The end of the first line of a block; None if it continues, or a ``\\n`` may follow."""
    match = _LINE_END.search(block)
    return None if match is None or (match[0] == b"\r" and match.end() == len(block)) else match.end()


def _cut(line: bytes) -> bytes:
    return line if len(line) <= MAX_RECORD_BYTES else CutLine(line[:MAX_RECORD_BYTES], len(line))


def csv_records(blocks: Iterator[bytes], delimiter: str) -> Iterator[CsvRecord]:
    """The records of a text, in order, including blank lines.

    Cells may be quoted with ``"``, doubled inside; quoted cells may hold line ends. A record with malformed quotation
    marks ends with its first line, so that the lines after it are not lost. A range of the text that begins and ends
    with records gives the same records as the whole text.

    Args:
      blocks: of UTF-8.
      delimiter: one character.

    Raises:
      ValueError: repeated reading exceeds its limit.
    """
    lines = _Lines(blocks)
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    while True:
        try:
            fields, problem = next(reader), None
        except StopIteration:
            return
        except csv.Error as error:
            lines.give_back()
            fields, problem = [], f"malformed: {error}"
        yield CsvRecord(lines.take(), fields, problem)
