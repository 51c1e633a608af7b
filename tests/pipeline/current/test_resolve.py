"""The current outcome of an image: each rule, and all rules against a slow, simple implementation."""

import random

import numpy as np
import pytest

from beamlabel.pipeline.current.entries import ENTRY, FAILURE, ROW, TOMBSTONE, Why
from beamlabel.pipeline.current.resolve import Fate, resolve


def entry(
    kind=ROW, time=0, *, image=1, rank=0, place=0, content=0, version=0, size=-1, why=Why.PASSING, fits=True
):
    return (image, image * 7, time, rank, kind, place, content, version, size, why, fits)


def fates(*entries) -> list[Fate]:
    """The fate of each entry in the given order; positions identify them."""
    placed = [(*one[:5], number, *one[6:]) for number, one in enumerate(entries)]
    ordered, found = resolve(np.array(placed, ENTRY))
    by_place = {int(place): Fate(fate) for place, fate in zip(ordered["place"], found, strict=True)}
    return [by_place[number] for number in range(len(entries))]


def row(time, **facts):
    return entry(ROW, time, **{"content": 5, "version": 6, "size": 7, **facts})


def failure(time, **facts):
    return entry(FAILURE, time, **facts)


KEPT, OLD, DELETED, FAILED, OTHER = Fate


@pytest.mark.parametrize(("entries", "expected"), [
    ([row(1), row(3), row(2)], [OLD, KEPT, OLD]),
    ([row(1, rank=1), row(1, rank=0)], [KEPT, OLD]),
    ([row(1), row(1)], [OLD, KEPT]),
    ([row(1), entry(TOMBSTONE, 2)], [DELETED, OLD]),
    ([row(1), entry(TOMBSTONE, 2), row(3)], [OLD, OLD, KEPT]),
    ([row(2), entry(TOMBSTONE, 2)], [KEPT, OLD]),
    # The row stays if the failure does not concern the image.
    ([row(1), failure(2)], [KEPT, OLD]),
    ([row(1), failure(2, content=5)], [KEPT, OLD]),
    ([row(1), failure(2, content=5, why=Why.LASTING)], [KEPT, OLD]),
    ([row(1), failure(2, version=6, size=7, why=Why.LASTING)], [KEPT, OLD]),
    ([row(1, version=0), failure(2, size=7, why=Why.LASTING)], [KEPT, OLD]),
    # The image is gone or has changed.
    ([row(1), failure(2, size=7, why=Why.LASTING)], [FAILED, KEPT]),
    ([row(1), failure(2, version=6, why=Why.LASTING)], [FAILED, KEPT]),
    ([row(1), failure(2, why=Why.GONE)], [FAILED, KEPT]),
    ([row(1), failure(2, content=9)], [FAILED, KEPT]),
    ([row(1), failure(2, version=9)], [FAILED, KEPT]),
    ([row(1), failure(2, version=6, size=9)], [FAILED, KEPT]),
    ([row(1), failure(2, why=Why.LASTING)], [FAILED, KEPT]),
    ([row(1), failure(2, content=9), failure(3)], [FAILED, OLD, KEPT]),
    ([row(1), failure(2, content=9), row(3)], [OLD, OLD, KEPT]),
    # A touched file has another version but the same content.
    ([row(1), failure(2, content=5, version=9, why=Why.LASTING)], [KEPT, OLD]),
    ([failure(1), failure(2)], [OLD, KEPT]),
    ([failure(1), entry(TOMBSTONE, 2)], [DELETED, OLD]),
    ([row(1), entry(TOMBSTONE, 2), failure(3)], [DELETED, OLD, KEPT]),
    # Another module.
    ([row(1, fits=False)], [OTHER]),
    ([row(1, fits=False), row(2)], [OLD, KEPT]),
    ([row(1, fits=False), failure(2, content=5)], [FAILED, KEPT]),
    ([row(1, fits=False), failure(2, content=5, fits=False)], [OTHER, KEPT]),
    ([row(1, fits=False), entry(TOMBSTONE, 2)], [DELETED, OLD]),
    ([row(1, image=1), row(1, image=2), entry(TOMBSTONE, 5, image=2)], [KEPT, DELETED, OLD]),
])  # fmt: skip
def test_the_rules(entries, expected):
    assert fates(*entries) == expected


def test_nothing_is_current_of_nothing():
    ordered, found = resolve(np.zeros(0, ENTRY))
    assert len(ordered) == len(found) == 0


def judged(entries) -> dict[int, Fate]:
    """The same result by loops over one image at a time."""
    result = {}
    for image in {int(one["high"]) for one in entries}:
        own = sorted(
            (one for one in entries if one["high"] == image),
            key=lambda one: tuple(int(one[name]) for name in ("time", "rank", "kind", "place")),
        )
        for one in own:
            result[int(one["place"])] = Fate.SUPERSEDED
        deleted = max((int(one["time"]) for one in own if one["kind"] == TOMBSTONE), default=-1)
        rows = [number for number, one in enumerate(own) if one["kind"] == ROW]
        failures = [number for number, one in enumerate(own) if one["kind"] == FAILURE]
        kept = False
        if rows:
            newest = own[rows[-1]]
            since = [own[number] for number in failures if number > rows[-1]]
            if deleted > newest["time"]:
                fate = Fate.DELETED
            elif any(ends(one, newest) for one in since) or (
                not newest["fits"] and any(one["fits"] for one in since)
            ):
                fate = Fate.FAILED_SINCE
            else:
                fate = Fate.KEPT if newest["fits"] else Fate.OTHER_MODULE
            result[int(newest["place"])] = fate
            kept = fate == Fate.KEPT
        if failures and not kept and (not rows or failures[-1] > rows[-1]):
            last = own[failures[-1]]
            result[int(last["place"])] = Fate.DELETED if deleted > last["time"] else Fate.KEPT
    return result


def ends(failure, row) -> bool:
    if failure["why"] == Why.GONE:
        return True
    if failure["content"] and row["content"]:
        return bool(failure["content"] != row["content"])
    if failure["version"] and row["version"] and failure["version"] != row["version"]:
        return True
    if failure["bytes"] >= 0 and row["bytes"] >= 0 and failure["bytes"] != row["bytes"]:
        return True
    is_same = failure["version"] == row["version"] and failure["bytes"] == row["bytes"] != -1
    return bool(failure["why"] == Why.LASTING and not is_same)


@pytest.mark.parametrize("seed", range(40))
def test_it_agrees_with_a_slow_judge(seed):
    chance = random.Random(seed)
    entries = [
        entry(
            chance.choice([ROW, ROW, FAILURE, FAILURE, TOMBSTONE]),
            chance.randrange(4),
            image=chance.randrange(1, 30),
            rank=chance.randrange(3),
            content=chance.randrange(3),
            version=chance.randrange(3),
            size=chance.randrange(-1, 2),
            why=chance.choice(list(Why)),
            fits=chance.random() < 0.7,
        )
        for _ in range(150)
    ]
    array = np.array([(*one[:5], number, *one[6:]) for number, one in enumerate(entries)], ENTRY)
    ordered, found = resolve(array)
    expected = judged(array)
    assert {int(p): Fate(f) for p, f in zip(ordered["place"], found, strict=True)} == expected
    outcomes = [int(one["high"]) for one, f in zip(ordered, found, strict=True) if f == Fate.KEPT]
    assert len(outcomes) == len(set(outcomes)), "an image has one outcome at most"
