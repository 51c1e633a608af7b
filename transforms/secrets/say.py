"""The only place that writes to a stream for people other than through log records."""

from __future__ import annotations

import sys
from typing import Protocol

from beamlabel.transforms.secrets.printable import escaped
from beamlabel.transforms.secrets.text import public_text


class Stream(Protocol):
    """The required methods of a stream."""

    def write(self, text: str, /) -> object:
        """Writes text."""

    def flush(self) -> object:
        """Writes buffered text now."""


def say(text: str, stream: Stream | None = None, *, kept: str = "") -> None:
    """Writes a line without credentials and without characters that move a cursor or forge a line.

    Args:
      text: the line without its end; it stays one line.
      stream: the target; None: stderr.
      kept: characters that stay, as ``"\\n"`` of several lines.
    """
    stream = sys.stderr if stream is None else stream
    stream.write(f"{escaped(public_text(text), kept=kept)}\n")
    stream.flush()
