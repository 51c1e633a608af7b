"""Chooses a report's rows: the best of each label, the least certain, the most helpful to correct, and random ones.

The choice depends on the rows alone, not on their order or their division into units. Each unit passes on all its
``candidates``, and the merge chooses from them: a row that is among the best of all is among the best of its unit.
Memory is bounded: a row that is not taken on arrival, or is displaced later, is dropped.
"""

from __future__ import annotations

import functools
import hashlib
import heapq
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

TOP, UNCERTAIN, RANDOM = "top", "uncertain", "random"
CLOSE = "close"
"""Rows between two classes: the smallest margins."""
AT_ODDS = "at_odds"
"""Rows at odds with their neighbors in the space of embeddings; found when the units' candidates are merged."""
KINDS = (TOP, UNCERTAIN, CLOSE, RANDOM)

MAX_ROWS = 144
"""The most rows chosen: a sixth are random, a sixth the least certain, a sixth the most helpful (``CLOSE`` and
``AT_ODDS``), then come the tops of labels, and more random rows fill the rest."""

MAX_HELPFUL = MAX_ROWS // 12
"""The most rows of each of ``CLOSE`` and ``AT_ODDS``."""

MAX_COMPARED = 2 * MAX_ROWS
"""The most random rows that are compared with their neighbors."""

_OTHERS = MAX_ROWS // 6
_TOPS = 3
# Labels with room for all their tops.
_SHOWN_LABELS = (MAX_ROWS - 2 * _OTHERS) // _TOPS
# Labels whose best rows are kept; of more labels, those with the smallest hashes, the same in every unit.
_MAX_LABELS = 128

MAX_CANDIDATES = MAX_COMPARED + _OTHERS + MAX_HELPFUL + _TOPS * _MAX_LABELS
"""The most rows that a unit passes on."""

T = TypeVar("T")


@dataclass(eq=False)
class Candidate(Generic[T]):
    """A row that may be chosen.

    Attributes:
      ref_id, label, score: of the row; label and score are None for a module without logits.
      value: returned for a chosen row.
      margin: distance of the row from another answer, see ``margin``; None if unknown.
      kinds: for which the row may still be chosen; empty: it was displaced.
    """

    ref_id: str
    label: str | None
    score: float | None
    value: T
    margin: float | None = None
    kinds: set[str] = field(default_factory=set)

    @functools.cached_property
    def number(self) -> int:
        """``row_number`` of the reference."""
        return row_number(self.ref_id)


class RowSampler(Generic[T]):
    """Takes rows one by one and keeps a bounded number of candidates.

    Args:
      random_rows: number of random rows: ``MAX_ROWS``, or ``MAX_COMPARED`` if they are compared with their neighbors.
    """

    def __init__(self, random_rows: int = MAX_ROWS) -> None:
        self._random_rows = random_rows
        # Heaps whose first entry is displaced next; ref_id breaks ties, and a count distinguishes rows that are in the
        # input twice.
        self._random: list[tuple[int, _Reversed, int, Candidate[T]]] = []
        self._uncertain: list[tuple[float, _Reversed, int, Candidate[T]]] = []
        self._close: list[tuple[float, _Reversed, int, Candidate[T]]] = []
        self._tops: dict[str, list[tuple[float, _Reversed, int, Candidate[T]]]] = {}
        self._label_hashes: list[tuple[int, str]] = []
        self._label_ceiling = 1 << 64
        self._offered = itertools.count()

    def offer(self, candidate: Candidate[T], kinds: Iterable[str] = KINDS) -> bool:
        """Offers a row for the given kinds; returns whether it was taken for any."""
        for kind in kinds:
            heap: list | None
            rank: float
            if kind == RANDOM:
                heap, limit, rank = self._random, self._random_rows, -candidate.number
            elif kind == CLOSE:
                if candidate.margin is None:
                    continue
                heap, limit, rank = self._close, MAX_HELPFUL, -candidate.margin
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
        """Every row that may still be chosen, with its kinds, ordered by ``row_number``."""
        heaps: dict[str, list[list]] = {
            RANDOM: [self._random],
            UNCERTAIN: [self._uncertain],
            CLOSE: [self._close],
            TOP: list(self._tops.values()),
        }
        found: dict[int, tuple[Candidate[T], list[str]]] = {}
        for kind, of_kind in heaps.items():
            for *_, candidate in itertools.chain.from_iterable(of_kind):
                found.setdefault(id(candidate), (candidate, []))[1].append(kind)
        ordered = sorted(found.values(), key=lambda entry: (entry[0].number, entry[0].ref_id))
        return [(candidate.value, kinds) for candidate, kinds in ordered]

    def random(self) -> list[Candidate[T]]:
        """The random rows, in ascending order of ``row_number``."""
        return [entry[-1] for entry in sorted(self._random, reverse=True)]

    def chosen(
        self, counts: Mapping[str, int], at_odds: Iterable[Candidate[T]] = ()
    ) -> list[tuple[T, list[str]]]:
        """Chooses at most ``MAX_ROWS`` distinct rows, each with the kinds that it was chosen for.

        Args:
          counts: rows of each label, also of rows not taken: the frequent labels are shown.
          at_odds: the rows of ``random`` that are at odds with their neighbors, most at odds first.
        """
        found: dict[int, tuple[Candidate[T], list[str]]] = {}

        def choose(kind: str, entries: Iterable[tuple]) -> None:
            for *_, candidate in entries:
                if id(candidate) in found or len(found) < MAX_ROWS:
                    found.setdefault(id(candidate), (candidate, []))[1].append(kind)

        randomly = sorted(self._random, reverse=True)
        choose(RANDOM, randomly[:_OTHERS])
        choose(UNCERTAIN, sorted(self._uncertain, reverse=True))
        choose(AT_ODDS, ((candidate,) for candidate in itertools.islice(at_odds, MAX_HELPFUL)))
        choose(CLOSE, sorted(self._close, reverse=True))
        frequent = sorted(self._tops, key=lambda label: (-counts.get(label, 0), label))[:_SHOWN_LABELS]
        ranked = [sorted(self._tops[label], reverse=True) for label in frequent]
        # The best of every label first, so that no label loses all its rows if there is little room.
        choose(TOP, (row[place] for place in range(_TOPS) for row in ranked if place < len(row)))
        more = [entry for entry in randomly[_OTHERS:] if id(entry[-1]) not in found]
        choose(RANDOM, more[: MAX_ROWS - len(found)])
        return [(candidate.value, kinds) for candidate, kinds in found.values()]

    def _of_label(self, label: str) -> list | None:
        """The label's heap; None if too many labels precede it."""
        known = self._tops.get(label)
        if known is not None:
            return known
        number = row_number(label)
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


def margin(scores: Sequence[float], *, several: bool) -> float | None:
    """The distance of a row from another answer; the smaller it is, the more a correction helps.

    Args:
      scores: the best scores, in descending order.
      several: whether an image may have several classes, each with a score of 0 to 1.

    Returns:
      The best score less the second best (T. Scheffer et al., "Active hidden Markov models for information extraction",
      IDA 2001); for several classes the distance of the score nearest to 1/2 from 1/2. None for fewer than two scores,
      or if one is not finite.
    """
    if len(scores) < 2 or not all(map(math.isfinite, scores)):
        return None
    return min(abs(score - 0.5) for score in scores) if several else scores[0] - scores[1]


class _Reversed(str):
    """Text that sorts backwards: of equal ranks the smaller reference is better."""

    __slots__ = ()

    def __lt__(self, other: str) -> bool:
        return str.__gt__(self, other)


def row_number(text: str) -> int:
    """A 64-bit hash of a reference or a label: the random rows are those with the smallest hashes."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")
