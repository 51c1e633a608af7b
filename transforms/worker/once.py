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
    """Whether a line of a worker process's log is a warning that this process has logged.

    Only whole warnings count: libraries also give short and empty ones, which occur in other lines.
    """
    if not line.startswith("WARNING "):
        return False
    said = line.rstrip("\n")
    with _lock:
        return any(said.endswith(f": {text}") for text in _said)
