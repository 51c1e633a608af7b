"""Measurements → one summary for each contender: medians, ranges, and ratios taken round by round."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

Record = dict[str, Any]


@dataclass(frozen=True)
class Spread:
    """The median, the lowest and the highest of some values, and their number."""

    median: float
    low: float
    high: float
    count: int


def spread(values: Iterable[float | None]) -> Spread | None:
    """None if there is no value but None."""
    known = [value for value in values if value is not None]
    return Spread(statistics.median(known), min(known), max(known), len(known)) if known else None


class Runs:
    """The good runs of one contender, by round and count."""

    def __init__(self, records: Iterable[Record], counts: tuple[int, int]) -> None:
        self.few, self.many = counts
        self.all = list(records)
        self._good = {(r["round"], r["count"]): r for r in self.all if r["problem"] is None}
        self.rounds = sorted({number for number, _ in self._good})

    def fact(self, name: str, count: int) -> Spread | None:
        """Returns the spread over the rounds of a measurement at ``count`` images."""
        return spread(r.get(name) for (_, c), r in self._good.items() if c == count)

    def at(self, name: str, count: int, number: int) -> float | None:
        """Returns a measurement of one run, or None if the run failed or is missing."""
        value: float | None = self._good.get((number, count), {}).get(name)
        return value

    def rate(self, number: int) -> float | None:
        """Returns images a second in the long run: the slope between the two counts of a round."""
        short, long = self.at("seconds", self.few, number), self.at("seconds", self.many, number)
        if short is None or long is None or long <= short:
            return None
        return (self.many - self.few) / (long - short)

    def worst(self, name: str) -> float | None:
        """Returns the lowest value of all good runs."""
        found = spread(r.get(name) for r in self._good.values())
        return None if found is None else found.low


def ratios(of: Runs, to: Runs, figure: Callable[[Runs, int], float | None]) -> Spread | None:
    """Returns ``figure`` of one divided by that of the other, over the rounds that both have."""

    def ratio(number: int) -> float | None:
        above, below = figure(of, number), figure(to, number)
        return above / below if above is not None and below is not None else None

    return spread(ratio(number) for number in of.rounds)


def rate(runs: Runs, number: int) -> float | None:
    return runs.rate(number)


def fact_at(name: str, count: int) -> Callable[[Runs, int], float | None]:
    return lambda runs, number: runs.at(name, count, number)


def of_kind(records: Iterable[Record], kind: str) -> list[Record]:
    return [record for record in records if record["kind"] == kind]
