"""Approximate progress of this process's workers, counted as elements pass, for display only.

Each tally belongs to one DoFn instance and so to one thread; another thread reads their sum. They live as long as the
process, three numbers per instance.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Tally:
    """The number of finished references, by outcome."""

    predicted: int = 0
    failed: int = 0
    skipped: int = 0

    @property
    def done(self) -> int:
        """The number of all finished references."""
        return self.predicted + self.failed + self.skipped

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            self.predicted + other.predicted, self.failed + other.failed, self.skipped + other.skipped
        )

    def __sub__(self, other: Tally) -> Tally:
        return Tally(
            self.predicted - other.predicted, self.failed - other.failed, self.skipped - other.skipped
        )


_tallies: list[Tally] = []


def new_tally() -> Tally:
    """A tally for one thread to count in."""
    tally = Tally()
    _tallies.append(tally)
    return tally


def total() -> Tally:
    """The sum of all tallies of this process."""
    return sum(list(_tallies), Tally())
