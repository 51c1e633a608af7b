"""A fault of the truth or of the rows, counted."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """Something that the truth or the rows lack: how many, and a few examples."""

    what: str
    count: int
    examples: tuple[str, ...] = ()
