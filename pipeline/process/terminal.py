"""Moving lines on a terminal: the elapsed time of a wait, and log lines above a progress bar."""

from __future__ import annotations

import itertools
import logging
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from beamlabel.transforms.secrets.printable import escaped
from beamlabel.transforms.secrets.text import public_text

_FRAMES = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_PLAIN_FRAMES = r"|/-\ "[:4]
_FRAME_SECONDS = 0.2
_STOP_SECONDS = 1.0
_COLUMNS = 80
_ECHO_COLUMNS = 3


class _AboveBar:
    """A stream that writes its lines above the bar."""

    def write(self, text: str) -> None:
        from tqdm import tqdm

        tqdm.write(text, file=sys.stderr, end="")

    def flush(self) -> None:
        sys.stderr.flush()


@contextmanager
def log_above_bar() -> Iterator[None]:
    """Writes log lines above a tqdm bar on stderr."""
    handlers = [
        handler
        for handler in logging.getLogger().handlers
        if isinstance(handler, logging.StreamHandler) and handler.stream is sys.stderr
    ]
    for handler in handlers:
        handler.setStream(_AboveBar())
    try:
        yield
    finally:
        for handler in handlers:
            handler.setStream(sys.stderr)


@contextmanager
def elapsed_time(doing: str) -> Iterator[None]:
    """Shows a wait and its elapsed time in one line of the terminal, and clears the line at the end.

    Args:
      doing: name of the wait, such as ``Compiling the module``.
    """
    from tqdm import tqdm

    over, begin = threading.Event(), time.monotonic()
    frames = itertools.cycle(_frames())
    text = escaped(public_text(doing))
    bar = tqdm(bar_format="{desc}", desc=_line(text, 0.0, next(frames)), leave=False, file=sys.stderr)

    def turn() -> None:
        with suppress(OSError, ValueError):  # the terminal is gone
            while not over.wait(_FRAME_SECONDS):
                bar.set_description_str(_line(text, time.monotonic() - begin, next(frames)))

    thread = threading.Thread(target=turn, name="elapsed", daemon=True)
    with log_above_bar():
        try:
            with suppress(RuntimeError):  # no more threads: the line does not move
                thread.start()
            yield
        finally:
            over.set()
            if thread.ident is not None:
                thread.join(_STOP_SECONDS)
            bar.close()


def _line(text: str, seconds: float, frame: str) -> str:
    """``Compiling the module ⠙ 0:12``, cut to one line: a longer text could not be cleared."""
    minutes, rest = divmod(int(seconds), 60)
    end = f" {frame} {minutes}:{rest:02}"
    room = columns() - len(end)
    if len(text) > room:
        text = text[: max(room - 3, 0)] + "..."
    return text + end


def columns() -> int:
    """The terminal columns that a moving line may take; they leave room for the ``^C`` of an interrupt."""
    try:
        found = os.get_terminal_size(sys.stderr.fileno()).columns
    except (OSError, ValueError, AttributeError):
        found = 0
    return max((found or _COLUMNS) - _ECHO_COLUMNS, 1)


def _frames() -> str:
    try:
        _FRAMES.encode(sys.stderr.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return _PLAIN_FRAMES
    return _FRAMES
