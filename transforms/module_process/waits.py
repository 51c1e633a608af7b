"""Announces waits of many seconds, such as for a compilation, and logs their duration at the end."""

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
    """Shows waits with ``display``, as on a terminal; None: logs a line when a wait begins."""
    global _on_terminal
    _on_terminal = display


@contextmanager
def wait(doing: str, done: str) -> Iterator[None]:
    """Announces a wait, and logs its duration at the end.

    Args:
      doing: text during the wait, such as ``Compiling the module (once; cached in DIR)``.
      done: text for the duration, such as ``Compiled the module``; not logged after an exception.
    """
    begin = time.monotonic()
    if _on_terminal is None:
        _LOGGER.info("%s", doing)
    with (_on_terminal or _nothing)(doing):
        yield
    _LOGGER.info("%s in %.1f s", done, time.monotonic() - begin)
