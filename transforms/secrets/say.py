"""What is written on a stream that people read, and is no log record: the only place that does so."""

from __future__ import annotations

import sys
from typing import Protocol

from beamlabel.transforms.secrets.printable import escaped
from beamlabel.transforms.secrets.text import public_text


class Stream(Protocol):
    """What of a stream is needed."""

    def write(self, text: str, /) -> object:
        """Writes a text."""

    def flush(self) -> object:
        """Has it written now."""


def say(text: str, stream: Stream | None = None, *, kept: str = "") -> None:
    """Writes a line, without credentials, and without what moves a cursor or forges a line.

    Args:
      text: the line, without its end; it stays one.
      stream: where to; None: stderr.
      kept: characters that stay, as ``"\\n"`` of several lines.
    """
    stream = sys.stderr if stream is None else stream
    stream.write(f"{escaped(public_text(text), kept=kept)}\n")
    stream.flush()
