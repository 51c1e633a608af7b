"""Which few rows of many a report shows: the best of each label, the least certain, and random ones.

What is chosen depends on the rows alone: not on their order, and not on how they are divided. Each unit hands on all
its ``candidates``, and whoever merges them chooses: a row that is among the best of all is among the best of its
unit. Memory is bounded: a row that is not taken on its arrival, or is displaced later, is forgotten.
"""

from __future__ import annotations

import hashlib
import heapq
import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

TOP, UNCERTAIN, RANDOM = "top", "uncertain", "random"
KINDS = (TOP, UNCERTAIN, RANDOM)

MAX_ROWS = 144
"""Rows that are chosen, if there are as many: a sixth are random, a sixth the least certain, then come the tops of
labels, and what is left of the room is for more random ones."""

_OTHERS = MAX_ROWS // 6
_TOPS = 3
# As many as have room for all their tops.
_SHOWN_LABELS = (MAX_ROWS - 2 * _OTHERS) // _TOPS
# Labels whose best rows are remembered; of more, those with the smallest hashes, in every unit the same ones.
_MAX_LABELS = 128

MAX_CANDIDATES = MAX_ROWS + _OTHERS + _TOPS * _MAX_LABELS
"""Rows that a unit hands on, at most."""

T = TypeVar("T")


@dataclass(eq=False)
class Candidate(Generic[T]):
    """A row that may be chosen.

    Attributes:
      ref_id, label, score: the row's; label and score are None for a module without logits.
      value: what is handed back for a chosen row.
      kinds: the ways in which it is still in the race; none: it was displaced.
    """

    ref_id: str
    label: str | None
    score: float | None
    value: T
    kinds: set[str] = field(default_factory=set)


class RowSampler(Generic[T]):
    """Takes rows one by one and keeps at most a bounded number of candidates."""

    def __init__(self) -> None:
        # Heaps whose first entry is the one to be displaced next; ref_id orders equals, and a count rows that
        # are in the input twice.
        self._random: list[tuple[int, _Reversed, int, Candidate[T]]] = []
        self._uncertain: list[tuple[float, _Reversed, int, Candidate[T]]] = []
        self._tops: dict[str, list[tuple[float, _Reversed, int, Candidate[T]]]] = {}
        self._label_hashes: list[tuple[int, str]] = []
        self._label_ceiling = 1 << 64
        self._offered = itertools.count()

    def offer(self, candidate: Candidate[T], kinds: Iterable[str] = KINDS) -> bool:
        """Enters a row for the kinds named; returns whether it was taken for one of them."""
        for kind in kinds:
            heap: list | None
            rank: float
            if kind == RANDOM:
                heap, limit, rank = self._random, MAX_ROWS, -_hash(candidate.ref_id)
            elif candidate.score is None or candidate.label is None:
                continue
            elif kind == UNCERTAIN:
                heap, limit, rank = self._uncertain, _OTHERS, -candidate.score
            else:
                heap, limit, rank = self._of_label(candidate.label), _TOPS, candidate.score
            if heap is None or (len(heap) == limit and rank < heap[0][0]):
                continue
            candidate.kinds.add(kind)
            entry = (rank, _Reversed(candidate.ref_id), next(self._offered), candidate)
            if len(heap) < limit:
                heapq.heappush(heap, entry)
            else:
                heapq.heappushpop(heap, entry)[-1].kinds.discard(kind)
        return bool(candidate.kinds)

    def candidates(self) -> list[tuple[T, list[str]]]:
        """Every row that may still be chosen, with the kinds that it is in the race for, in an order of their own."""
        heaps: dict[str, list[list]] = {
            RANDOM: [self._random],
            UNCERTAIN: [self._uncertain],
            TOP: list(self._tops.values()),
        }
        found: dict[int, tuple[Candidate[T], list[str]]] = {}
        for kind, of_kind in heaps.items():
            for *_, candidate in itertools.chain.from_iterable(of_kind):
                found.setdefault(id(candidate), (candidate, []))[1].append(kind)
        ordered = sorted(found.values(), key=lambda entry: (_hash(entry[0].ref_id), entry[0].ref_id))
        return [(candidate.value, kinds) for candidate, kinds in ordered]

    def chosen(self, counts: Mapping[str, int]) -> list[tuple[T, list[str]]]:
        """At most ``MAX_ROWS`` rows, each with the kinds that it was chosen for; the same row comes once.

        Args:
          counts: rows of each label, also of those that were not taken: the frequent ones are shown.
        """
        found: dict[int, tuple[Candidate[T], list[str]]] = {}

        def choose(kind: str, entries: Iterable[tuple]) -> None:
            for *_, candidate in entries:
                found.setdefault(id(candidate), (candidate, []))[1].append(kind)

        randomly = sorted(self._random, reverse=True)
        choose(RANDOM, randomly[:_OTHERS])
        choose(UNCERTAIN, sorted(self._uncertain, reverse=True))
        frequent = sorted(self._tops, key=lambda label: (-counts.get(label, 0), label))[:_SHOWN_LABELS]
        ranked = [sorted(self._tops[label], reverse=True) for label in frequent]
        # The best of every label first: where a page lacks room, no label loses all.
        choose(TOP, (row[place] for place in range(_TOPS) for row in ranked if place < len(row)))
        more = [entry for entry in randomly[_OTHERS:] if id(entry[-1]) not in found]
        choose(RANDOM, more[: MAX_ROWS - len(found)])
        return [(candidate.value, kinds) for candidate, kinds in found.values()]

    def _of_label(self, label: str) -> list | None:
        """The label's heap; None where too many labels come before it."""
        known = self._tops.get(label)
        if known is not None:
            return known
        number = _hash(label)
        if number >= self._label_ceiling:
            return None
        if len(self._tops) == _MAX_LABELS:
            largest, displaced = heapq.heappushpop(self._label_hashes, (-number, label))
            self._label_ceiling = -largest
            if displaced == label:
                return None
            for *_, candidate in self._tops.pop(displaced):
                candidate.kinds.discard(TOP)
        else:
            heapq.heappush(self._label_hashes, (-number, label))
        return self._tops.setdefault(label, [])


class _Reversed(str):
    """Text that sorts backwards: of equal ranks the smaller reference is the better one."""

    __slots__ = ()

    def __lt__(self, other: str) -> bool:
        return str.__gt__(self, other)


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")
