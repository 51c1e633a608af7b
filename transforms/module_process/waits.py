"""Waits of many seconds, such as for a compilation: announced, and finished with their duration."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from beamlabel.transforms.secrets.logs import get_logger

_LOGGER = get_logger("beamlabel")

Display = Callable[[str], AbstractContextManager[None]]


@contextmanager
def _nothing(_: str) -> Iterator[None]:
    yield


_on_terminal: Display | None = None


def show_with(display: Display | None) -> None:
    """Has waits shown by ``display`` while they last, as on a terminal; None: a log line tells when one begins."""
    global _on_terminal
    _on_terminal = display


@contextmanager
def wait(doing: str, done: str) -> Iterator[None]:
    """Tells of a wait while it lasts, and its duration at the end.

    Args:
      doing: such as ``Compiling the module (once; cached in DIR)``.
      done: such as ``Compiled the module``; not told if the wait ends with an exception.
    """
    begin = time.monotonic()
    if _on_terminal is None:
        _LOGGER.info("%s", doing)
    with (_on_terminal or _nothing)(doing):
        yield
    _LOGGER.info("%s in %.1f s", done, time.monotonic() - begin)
