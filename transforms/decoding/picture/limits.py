"""Where the fast road ends: what may take long, or much memory, is decoded by a child process that has limits.

The fast road is JPEG, PNG and WebP within this process's threads. Whoever reads such a file calls ``need_limits`` as
soon as its header shows that it may take more than a few seconds; all other formats call it at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

FAST_PIXELS = 40_000_000
"""Pixels of a PNG or WebP that are decoded without limits: 2 s of CPU at the most."""

FAST_PROFILE_PIXELS = 10_000_000
"""Pixels whose colours are converted without limits: a CMYK profile takes 0.12 s for a million."""

_in_place: ContextVar[bool] = ContextVar("_in_place", default=False)


class NeedsLimitsError(Exception):
    """The image is not for the fast road; ``decode`` hands it to a child process. No caller of ``decode`` sees it."""


def need_limits() -> None:
    """Raises ``NeedsLimitsError``, but within ``in_place``."""
    if not _in_place.get():
        raise NeedsLimitsError


@contextmanager
def in_place() -> Iterator[None]:
    """Everything is decoded where it is: in a process that has limits, and in a test that looks at a reader."""
    token = _in_place.set(True)
    try:
        yield
    finally:
        _in_place.reset(token)
