"""Shows a warning once if several steps or processes of a run give it."""

from __future__ import annotations

import logging
import threading

_lock = threading.Lock()
_said: set[str] = set()


def warn_once(logger: logging.Logger, text: str) -> None:
    """Logs a warning, unless this process has logged the same text before."""
    with _lock:
        if text in _said:
            return
        _said.add(text)
    logger.warning("%s", text)


def is_repeated(line: str) -> bool:
    """Whether a line, such as one of a worker process's log, holds a warning that this process has logged."""
    with _lock:
        return any(text in line for text in _said)
