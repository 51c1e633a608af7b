"""Conversion of times between ISO 8601 text in lines of JSON and integers."""

from __future__ import annotations

import numpy as np


def iso_time(microseconds: int) -> str:
    """A time as ISO 8601, UTC, such as ``2026-11-24T02:00:00.000000Z``.

    Args:
      microseconds: since 1970.
    """
    return f"{np.datetime64(microseconds, 'us')}Z"


def microseconds(text: str) -> int:
    """Microseconds since 1970 of a time from ``iso_time``.

    Raises:
      ValueError: The text is not such a time.
    """
    if not text.endswith("Z"):
        raise ValueError(f"{text!r} is not a time in UTC")
    return int(np.datetime64(text[:-1], "us").astype(np.int64))
