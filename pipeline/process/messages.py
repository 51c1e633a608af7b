"""Messages and answers on the standard streams.

No text in them can move the cursor, forge a line, or break the encoding, and none holds credentials.
"""

from __future__ import annotations

import json
import logging
from typing import Any

from beamlabel.pipeline.process.streams import write_stdout
from beamlabel.transforms.secrets.printable import escaped, indented
from beamlabel.transforms.secrets.say import say
from beamlabel.transforms.secrets.text import public_text, public_uri


def tell(text: str, command: str = "beamlabel") -> None:
    """Writes a line on stderr.

    Args:
      text: the line; it stays one, whatever it holds.
      command: the name before it.
    """
    say(f"{command}: {text}")


def answer(text: str) -> None:
    """Writes an answer, of one or more lines, to stdout.

    Raises:
      StdoutError: they cannot be written.
    """
    write_stdout(escaped(public_text(text), kept="\n"))


def answer_json(value: Any) -> None:
    """Writes a value to stdout as JSON of printable characters.

    Raises:
      StdoutError: it cannot be written.
    """
    text = json.dumps(_public(value), indent=1, ensure_ascii=False)
    if not text.replace("\n", "").isprintable():
        text = "".join(one if one.isprintable() or one == "\n" else json.dumps(one)[1:-1] for one in text)
    write_stdout(text + "\n")


def _public(value: Any) -> Any:
    """The value without credentials, text by text: a cut in the whole JSON could take a quotation mark along."""
    if isinstance(value, str):
        return public_text(public_uri(value))
    if isinstance(value, dict):
        return {_public(key): _public(one) for key, one in value.items()}
    return [_public(one) for one in value] if isinstance(value, (list, tuple)) else value


class OneLine(logging.Formatter):
    """Formats a record as a line.

    A record of beamlabel stays one line. Records of libraries, and tracebacks, may have several: the lines after the
    first are indented, so that none passes for a record.
    """

    def __init__(self) -> None:
        super().__init__("%(levelname)s %(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        text = public_text(super().format(record))
        # A traceback that held credentials is a text by now.
        if record.name == "beamlabel" and not (record.exc_info or record.exc_text or record.stack_info):
            return escaped(text)
        return indented(text)
