"""Matches the images of a truth file with the rows of an output."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from beamlabel.pipeline.truth.file_entries import FileEntries, shown
from beamlabel.pipeline.truth.image_names import plain_name
from beamlabel.pipeline.truth.key_level import DOUBT
from beamlabel.pipeline.truth.name_levels import (
    END,
    NameLevel,
    end_levels,
    first_level,
    image_keys,
    location_levels,
    row_keys,
)
from beamlabel.pipeline.truth.problem import SHOWN, Examples, Problem
from beamlabel.pipeline.truth.truth import Batches, Classes, Truth, values_of

_NO_TRUTH = -2


class FileTruth(Truth):
    """Classes by the names of images.

    A name is first compared with the rows' ``uri`` and, as a location, with their ``image_id``; relative names are
    taken below ``bases``. Next it is tried below ``directory``; then, if relative, as the end of a ``uri``; then by its
    file name alone. The first match counts. A name that fits several images matches nothing, and neither does an end
    that several truths share. Ends and file names have to be unique among the rows as well, so they are matched only
    if all rows were read before.

    Args:
      entries: content of the file.
      bases: base directories of relative names in the input.
      directory: directory of the file.
      image_ids: whether rows have an ``image_id``.
      batches: reads all rows and failures; None if they cannot be read twice.
    """

    def __init__(
        self,
        entries: FileEntries,
        *,
        bases: Sequence[str] = (),
        directory: str | None = None,
        image_ids: bool = True,
        batches: Batches | None = None,
    ) -> None:
        self.entries = entries
        self.multi_label = entries.multi_label
        self._by = entries.kind if entries.kind in ("ref_id", "image_id") else "uri"
        self.columns = (self._by,) if self._by != "uri" or not image_ids else ("uri", "image_id")
        self.by, self.are_ids = self._by, entries.are_ids
        self._row_conflicts = Examples()
        self._levels = [first_level(entries)]
        self._doubtful = np.zeros(len(entries.keys), bool)
        if self._by != "uri":
            return
        if batches is not None:
            self._note(batches, self._levels)
        wanted = ~self._levels[0].index.truths_hit()
        if wanted.any():
            others = list(location_levels(entries, wanted, bases, directory)) if image_ids else []
            if batches is not None:
                others += end_levels(entries, wanted)
                self._note(batches, others)
            self._levels += others
        if batches is not None:
            self._settle()

    def _note(self, batches: Batches, levels: Sequence[NameLevel]) -> None:
        for batch in batches(self.columns):
            images = image_keys(batch)
            for level, keys in zip(levels, row_keys(batch, self._by, levels), strict=True):
                for one in keys:
                    level.index.note(one, images)

    def _settle(self) -> None:
        """Decides which keys count, after all rows were noted."""
        count = len(self.entries.keys)
        hits = [level.index.truths_hit() for level in self._levels]
        below = sum(
            (hit.astype(np.uint8) for level, hit in zip(self._levels, hits, strict=True) if level.is_base),
            np.zeros(count, np.uint8),
        )
        taken = np.zeros(count, bool)
        for level, hit in zip(self._levels, hits, strict=True):
            index = level.index
            new = hit if level.is_sure else hit & ~taken
            unsure = index.many | index.several if level.kind == END else index.many
            bad = new & (unsure[index.key_of] if len(unsure) else False)
            if level.is_base:
                bad |= new & (below > 1)
            level.usable = np.zeros(len(index.keys), bool)
            level.usable[index.key_of[new & ~bad]] = True
            self._doubtful |= bad
            taken |= new
            index.forget()
        self._levels = [self._levels[0], *(level for level in self._levels[1:] if level.usable.any())]

    def of_batch(self, batch: pa.RecordBatch) -> list[Classes | None]:
        """See ``Truth``."""
        return [classes or None for classes in self.decided(batch)]

    def decided(self, batch: pa.RecordBatch) -> list[Classes | None]:
        """See ``Truth``."""
        codes = np.full(batch.num_rows, _NO_TRUTH)
        for level, keys in zip(self._levels, row_keys(batch, self._by, self._levels), strict=True):
            for one in keys:
                places = level.index.find(one)
                found = places >= 0
                found[found] = level.usable[places[found]]
                level.index.hit[places[found]] = True
                values = np.full(batch.num_rows, _NO_TRUTH)
                values[found] = level.index.code[places[found]]
                differ = found & (codes != _NO_TRUTH) & (codes != values)
                codes = np.where(codes == _NO_TRUTH, values, np.where(differ, DOUBT, codes))
        names = values_of(batch, self._by)
        for place in np.flatnonzero(codes == DOUBT).tolist():
            self._row_conflicts.add(str(names[place]))
        sets = self.entries.class_sets
        return [sets[code] if code >= 0 else None if code == _NO_TRUTH else () for code in codes.tolist()]

    def known_classes(self) -> frozenset[str]:
        """See ``Truth``."""
        return frozenset(one for classes in self.entries.class_sets for one in classes)

    def _matched(self) -> np.ndarray:
        return np.logical_or.reduce([level.index.truths_hit() for level in self._levels])

    def unmatched(self) -> int:
        """See ``Truth``."""
        return int(np.count_nonzero(~self._matched()))

    def problems(self) -> tuple[Problem, ...]:
        """See ``Truth``."""
        path, matched = self.entries.path, self._matched()
        moved = np.zeros(len(matched), bool)
        if self._levels[-1].tail == 1:
            moved = self._levels[-1].index.truths_hit()
            moved &= ~np.logical_or.reduce([level.index.truths_hit() for level in self._levels[:-1]])
        return (
            *self.entries.problems(),
            *self._problem(f"images in {path} without a row", ~matched & ~self._doubtful),
            *self._problem(
                f"names in {path} that fit several images, or share one image; they match nothing",
                self._doubtful & ~matched,
            ),
            *self._problem(
                f"images in {path} that were matched by file name alone, since their directory differs",
                moved & self._have_directories(moved),
            ),
            *self._row_conflicts.problem(f"rows with two different truths in {path}; they have no truth"),
        )

    def _have_directories(self, among: np.ndarray) -> np.ndarray:
        found = np.zeros(len(among), bool)
        for place in np.flatnonzero(among).tolist():
            found[place] = "/" in plain_name(str(self.entries.names[place]))
        return found

    def _problem(self, what: str, are: np.ndarray) -> tuple[Problem, ...]:
        count = int(np.count_nonzero(are))
        examples = tuple(shown(self.entries.names, np.flatnonzero(are)[:SHOWN]))
        return (Problem(what, count, examples),) if count else ()
