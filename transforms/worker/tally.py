"""How far this process's workers are, counted as elements pass: for whoever watches, and never the truth.

Each tally belongs to one DoFn instance and so to one thread; their sum is read by another. They stay for as long
as the process does, three numbers an instance.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Tally:
    """References that are done, by what became of them."""

    predicted: int = 0
    failed: int = 0
    skipped: int = 0

    @property
    def done(self) -> int:
        """All of them."""
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
    """What all of this process have counted so far."""
    return sum(list(_tallies), Tally())
