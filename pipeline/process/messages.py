"""Messages and answers on the standard streams.

Their text cannot move the cursor, forge a line or break the encoding, and holds no credentials.
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
    """Writes a line to stderr.

    Args:
      text: the line; line breaks in it are escaped.
      command: the name before the line.
    """
    say(f"{command}: {text}")


def answer(text: str) -> None:
    """Writes an answer of one or more lines to stdout.

    Raises:
      StdoutError: the answer cannot be written.
    """
    write_stdout(escaped(public_text(text), kept="\n"))


def answer_json(value: Any) -> None:
    """Writes a value to stdout as JSON of printable characters.

    Raises:
      StdoutError: the JSON cannot be written.
    """
    text = json.dumps(_public(value), indent=1, ensure_ascii=False)
    if not text.replace("\n", "").isprintable():
        text = "".join(one if one.isprintable() or one == "\n" else json.dumps(one)[1:-1] for one in text)
    write_stdout(text + "\n")


def _public(value: Any) -> Any:
    """The value without credentials. Cleans each text alone: a cut in the JSON could remove a quotation mark."""
    if isinstance(value, str):
        return public_text(public_uri(value))
    if isinstance(value, dict):
        return {_public(key): _public(one) for key, one in value.items()}
    return [_public(one) for one in value] if isinstance(value, (list, tuple)) else value


class OneLine(logging.Formatter):
    """Formats a record as a line.

    A record of beamlabel stays one line. Records of libraries and tracebacks may have several lines: those after the
    first are indented, so that they do not look like records.
    """

    def __init__(self) -> None:
        super().__init__("%(levelname)s %(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        text = public_text(super().format(record))
        # If a traceback held credentials, it is text by now.
        if record.name == "beamlabel" and not (record.exc_info or record.exc_text or record.stack_info):
            return escaped(text)
        return indented(text)
