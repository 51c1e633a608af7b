"""Patterns match by the definition of the language, and none takes long."""

from __future__ import annotations

import functools
import random

import pytest

from beamlabel.transforms.storage.patterns import matcher


def matches(pattern: str, path: str) -> bool:
    """Matches by the definition: tries each reading of each star."""

    @functools.cache
    def from_(place: int, at: int) -> bool:
        if place == len(pattern):
            return at == len(path)
        if pattern.startswith("**/", place) and (place == 0 or pattern[place - 1] == "/"):
            ends = (end + 1 for end in range(at, len(path)) if path[end] == "/")
            return from_(place + 3, at) or any(from_(place + 3, end) for end in ends)
        if pattern.startswith("**", place):
            return any(from_(place + 2, end) for end in range(at, len(path) + 1))
        if pattern[place] == "*":
            end = path.find("/", at)
            return any(from_(place + 1, one) for one in range(at, (len(path) if end < 0 else end) + 1))
        if at == len(path):
            return False
        is_same = path[at] != "/" if pattern[place] == "?" else path[at] == pattern[place]
        return is_same and from_(place + 1, at + 1)

    return from_(0, 0)


def test_stars_mean_what_they_say() -> None:
    rng = random.Random(1)
    found = 0
    for _ in range(3000):
        pattern = "".join(rng.choices(["a", "b", "/", "*", "**", "?", "/**/", "**/"], k=rng.randrange(1, 8)))
        if "***" in pattern:
            continue
        match = matcher(pattern)
        for _ in range(8):
            path = "".join(rng.choices("ab/", k=rng.randrange(10)))
            assert bool(match(path)) == matches(pattern, path), (pattern, path)
            found += matches(pattern, path)
    assert found > 500


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("*a" * 40 + "*b", "a" * 240),
        ("**/" + "*a" * 40 + "*b", "a/" * 5 + "a" * 240),
        ("**/a" + "/**/a" * 30 + "/b", "a/" * 100 + "c"),
        ("**a" * 30 + "b", "a" * 240),
    ],
)
def test_no_pattern_takes_longer_than_people_wait(pattern: str, path: str) -> None:
    assert not matcher(pattern)(path)
