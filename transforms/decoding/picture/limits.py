"""The end of the fast path: a child process with limits decodes images that may take long or much memory.

The fast path is JPEG, PNG and WebP in this process's threads. Their readers call ``need_limits`` as soon as the header
shows that the image may take more than a few seconds. Readers of all other formats call it at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

FAST_PIXELS = 40_000_000
"""Maximum pixels of a PNG or WebP decoded without limits: at most 2 s of CPU."""

FAST_PROFILE_PIXELS = 10_000_000
"""Maximum pixels whose colors are converted without limits: a CMYK profile takes 0.12 s per million."""

_in_place: ContextVar[bool] = ContextVar("_in_place", default=False)


class NeedsLimitsError(Exception):
    """The image is unfit for the fast path. ``decode`` catches this and hands the image to a child process."""


def need_limits() -> None:
    """Raises ``NeedsLimitsError``, except within ``in_place``."""
    if not _in_place.get():
        raise NeedsLimitsError


@contextmanager
def in_place() -> Iterator[None]:
    """Decodes everything in this process: for a process that has limits, and for tests of a reader."""
    token = _in_place.set(True)
    try:
        yield
    finally:
        _in_place.reset(token)
