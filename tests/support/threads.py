"""Faults of threads: no new thread can start."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest


@contextmanager
def no_more_threads(monkeypatch: pytest.MonkeyPatch, name: str = "", *, after: int = 0) -> Iterator[None]:
    """Lets only the first ``after`` threads whose names begin with ``name`` start, as at a container's limit."""
    real, started = threading.Thread.start, [0]

    def start(thread: threading.Thread) -> None:
        if not thread.name.startswith(name):
            return real(thread)
        started[0] += 1
        if started[0] > after:
            raise RuntimeError("can't start new thread")
        return real(thread)

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        yield
