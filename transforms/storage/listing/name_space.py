"""Estimates the position of a name among all names, from the names seen so far."""

from __future__ import annotations

import bisect
import string
from collections.abc import Sequence
from typing import NamedTuple

from beamlabel.transforms.storage.listing.stored_file import StoredFile

# Names that are sampled from a page.
_LOOKED_AT = 16
# Characters after the first difference between the ends of a span, for a fine enough resolution.
_FINE = 8
_MOST_TENTHS = 10**10
_HEX = frozenset("abcdef")


class Span(NamedTuple):
    """Consecutive pages: their first and last name, and their number."""

    first: str
    last: str
    pages: float


class NameSpace:
    """Maps names to numbers whose digits are characters, with an alphabet for each place.

    A place that has started over, as the last digit of a counter does, has shown its whole alphabet. For other places
    the remaining characters are guessed: after one digit, any digit.

    Args:
      start: prefix of all names.
    """

    def __init__(self, start: str) -> None:
        self._start = start
        self._seen: list[set[str]] = []
        self._is_whole: list[bool] = []
        self._alphabets: list[list[str]] | None = None

    def learn(self, files: Sequence[StoredFile]) -> None:
        """Samples the files of a page, which are in order."""
        step = max(len(files) // _LOOKED_AT, 1)
        before: str | None = None
        for file in [*files[::step], *files[-1:]]:
            rest = file.path[len(self._start) :]
            while len(self._seen) < len(rest):
                self._seen.append(set())
                self._is_whole.append(False)
                self._alphabets = None
            for seen, character in zip(self._seen, rest, strict=False):
                if character not in seen:
                    seen.add(character)
                    self._alphabets = None
            if before is not None:
                for place in range(_first_difference(before, rest) + 1, len(rest)):
                    if not self._is_whole[place]:
                        self._is_whole[place] = True
                        self._alphabets = None
            before = rest

    def pages_to(self, span: Span, name: str, upto: str | None) -> float:
        """Estimates the number of pages between two names, at the density of the span."""
        depth = self._depth(span)
        top = self._top(depth) if upto is None else self._value(upto, depth)
        # Names of hundreds of characters exceed the range of floats.
        tenths = 10 * (top - self._value(name, depth)) // self._page_width(span, depth)
        return min(tenths, _MOST_TENTHS) / 10

    def after(self, span: Span, name: str, pages: float) -> str:
        """A name about so many pages after another; not after it if there is no such name."""
        depth = self._depth(span)
        value = self._value(name, depth) + max(self._page_width(span, depth) * round(10 * pages) // 10, 1)
        return self._start + self._name(min(value, self._top(depth) - 1), depth)

    def _depth(self, span: Span) -> int:
        return max(_first_difference(span.first, span.last) - len(self._start), 0) + _FINE

    def _page_width(self, span: Span, depth: int) -> int:
        width = self._value(span.last, depth) - self._value(span.first, depth)
        return max(1000 * width // max(round(1000 * span.pages), 1), 1)

    def _alphabet(self, place: int) -> list[str]:
        if self._alphabets is None:
            letters = self._letters_beside_digits()
            self._alphabets = [
                sorted(seen if whole else _guessed(seen, letters))
                for seen, whole in zip(self._seen, self._is_whole, strict=True)
            ]
        return self._alphabets[place] if place < len(self._alphabets) else []

    def _letters_beside_digits(self) -> set[str]:
        """Letters in places that also hold digits, as in hexadecimal numbers."""
        mixed = (seen for seen in self._seen if not seen.isdisjoint(string.digits))
        return {character for seen in mixed for character in seen if character in string.ascii_letters}

    def _value(self, name: str, depth: int) -> int:
        value, rest, begin = 0, len(name), len(self._start)
        for place in range(depth):
            alphabet = self._alphabet(place)
            digit = 0
            if begin + place < rest:
                # The end of a name sorts before all characters.
                digit = min(bisect.bisect_left(alphabet, name[begin + place]) + 1, len(alphabet))
            value = value * (len(alphabet) + 1) + digit
        return value

    def _top(self, depth: int) -> int:
        value = 1
        for place in range(depth):
            value *= len(self._alphabet(place)) + 1
        return value

    def _name(self, value: int, depth: int) -> str:
        digits = []
        for place in reversed(range(depth)):
            value, digit = divmod(value, len(self._alphabet(place)) + 1)
            digits.append(digit)
        characters = []
        for place, digit in enumerate(reversed(digits)):
            if digit == 0:
                break
            characters.append(self._alphabet(place)[digit - 1])
        return "".join(characters)


def _first_difference(one: str, other: str) -> int:
    for place, (left, right) in enumerate(zip(one, other, strict=False)):
        if left != right:
            return place
    return min(len(one), len(other))


def _guessed(seen: set[str], letters: set[str]) -> set[str]:
    """The characters that a place may hold, given those seen there."""
    found = set(seen)
    if not seen.isdisjoint(string.digits):
        found |= {*string.digits, *letters}
    if not seen.isdisjoint(string.ascii_lowercase):
        found |= (
            _HEX if letters and (letters | seen) - set(string.digits) <= _HEX else {*string.ascii_lowercase}
        )
    if not seen.isdisjoint(string.ascii_uppercase):
        found |= {*string.ascii_uppercase}
    return found
