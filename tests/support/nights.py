"""Successive nights: each run has a later date, although all tests share one date."""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

_days = itertools.count(1_700_100_000, 86_400)


@contextmanager
def at_a_later_time() -> Iterator[int]:
    """Dates later runs a day after all earlier ones; returns the date in seconds since 1970."""
    with pytest.MonkeyPatch.context() as patch:
        day = next(_days)
        patch.setenv("SOURCE_DATE_EPOCH", str(day))
        yield day
