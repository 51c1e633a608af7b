"""Several truths in layers; later ones take precedence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pyarrow as pa

from beamlabel.pipeline.truth.image_names import composed
from beamlabel.pipeline.truth.problem import SHOWN, Problem
from beamlabel.pipeline.truth.truth import Classes, Truth


class LayeredTruth(Truth):
    """Truths layered over each other.

    Args:
      truths: at least one; if two have classes for a row, the later one counts.
      multi_label: whether an image may have several classes, even if no truth gives it several.
    """

    def __init__(self, truths: Sequence[Truth], *, multi_label: bool = False) -> None:
        self.truths = tuple(truths)
        self.columns = tuple(dict.fromkeys(name for truth in truths for name in truth.columns))
        self.multi_label = multi_label or any(truth.multi_label for truth in truths)
        self.by = truths[0].by if len({truth.by for truth in truths}) == 1 else "several"
        self.are_ids = all(truth.are_ids for truth in truths)
        self._seen: Counter[str] = Counter()

    def of_batch(self, batch: pa.RecordBatch) -> list[Classes | None]:
        """See ``Truth``."""
        found = self.truths[0].decided(batch)
        for truth in self.truths[1:]:
            found = [
                under if over is None else over
                for under, over in zip(found, truth.decided(batch), strict=True)
            ]
        for classes in found:
            self._seen.update(classes or ())
        return [classes or None for classes in found]

    def problems(self) -> tuple[Problem, ...]:
        """See ``Truth``; also reports classes that are spelled alike."""
        return (*(problem for truth in self.truths for problem in truth.problems()), *_alike(self._seen))

    def known_classes(self) -> frozenset[str] | None:
        """See ``Truth``."""
        known = [truth.known_classes() for truth in self.truths]
        if None in known:
            return None
        return frozenset().union(*(one for one in known if one is not None))

    def unmatched(self) -> int | None:
        """See ``Truth``: the sum over all truths that know it."""
        counts = [count for truth in self.truths if (count := truth.unmatched()) is not None]
        return sum(counts) if counts else None


def _alike(seen: Counter[str]) -> tuple[Problem, ...]:
    """Classes that differ only in case or spaces, and are most likely the same."""
    groups: dict[str, list[str]] = {}
    for name in seen:
        groups.setdefault(" ".join(composed(name).casefold().replace("_", " ").split()), []).append(name)
    found = [
        " / ".join(f"{name!r} ({seen[name]})" for name in sorted(names))
        for names in groups.values()
        if len(names) > 1
    ]
    what = "classes that differ only in case or spaces and count as several"
    return (Problem(what, len(found), tuple(found[:SHOWN])),) if found else ()
