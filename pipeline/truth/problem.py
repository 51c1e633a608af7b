"""A problem of the truth or the rows: its count and the first few examples."""

from __future__ import annotations

from dataclasses import dataclass, field

SHOWN = 5
_MAX_CHARACTERS = 200


@dataclass(frozen=True)
class Problem:
    """A problem of the truth or the rows: its count and a few examples."""

    what: str
    count: int
    examples: tuple[str, ...] = ()


@dataclass
class Examples:
    """A count, and the first texts that were counted."""

    count: int = 0
    texts: list[str] = field(default_factory=list)

    def add(self, text: str) -> None:
        """Counts one text."""
        self.count += 1
        if len(self.texts) < SHOWN:
            self.texts.append(text[:_MAX_CHARACTERS])

    def problem(self, what: str) -> tuple[Problem, ...]:
        """The problem, unless the count is zero."""
        return (Problem(what, self.count, tuple(self.texts)),) if self.count else ()
