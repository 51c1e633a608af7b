"""The truth of a file: its images are matched with the rows of an output."""

from __future__ import annotations

from array import array
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from beamlabel.pipeline.truth.examples import SHOWN, Examples
from beamlabel.pipeline.truth.file_entries import FileEntries, shown
from beamlabel.pipeline.truth.image_names import parts_of, raw_parts_of
from beamlabel.pipeline.truth.key_level import DOUBT, KeyLevel
from beamlabel.pipeline.truth.name_keys import (
    NONE,
    exact_key,
    id_key,
    is_relative,
    location_key,
    tail_key,
    text_key,
)
from beamlabel.pipeline.truth.problem import Problem
from beamlabel.pipeline.truth.truth import Batches, Classes, Truth

_NO_TRUTH = -2
# Relative names of more folders than that are matched by their file names alone.
_MAX_PARTS = 12


class FileTruth(Truth):
    """Classes by the names of images.

    A name is looked for as it stands among the rows' ``uri``, and as a location by ``image_id``, relative names below
    ``bases``; then below ``folder``; then, if it is relative, at the end of a ``uri``; then by its file name alone.
    What comes first counts. A name that fits several images, and an end that several truths have, match nothing.
    Ends and file names are matched only if all rows were seen before, since they have to be unique there, too.

    Args:
      entries: what the file says.
      bases: folders that relative names in the input were relative to.
      folder: where the file lies.
      image_ids: whether rows have an ``image_id``.
      batches: reads all rows and failures; None if they cannot be read twice.
    """

    def __init__(
        self,
        entries: FileEntries,
        *,
        bases: Sequence[str] = (),
        folder: str | None = None,
        image_ids: bool = True,
        batches: Batches | None = None,
    ) -> None:
        self.entries = entries
        self.multi_label = entries.multi_label
        self._by = entries.kind if entries.kind in ("ref_id", "image_id") else "uri"
        self.columns = (self._by,) if self._by != "uri" or not image_ids else ("uri", "image_id")
        self.by, self.are_ids = self._by, entries.are_ids
        self._row_conflicts = Examples()
        self._levels = [KeyLevel(entries.keys, entries.codes)]
        # How many of the last parts of a uri each level compares; 0: another key.
        self._tails = [0]
        self._locations: list[int] = []
        if self._by == "uri":
            names = map(str, entries.names)
            relative = np.fromiter(map(is_relative, names), bool, len(entries.keys))
            if image_ids:
                self._add_locations(list(dict.fromkeys([*bases, *([folder] if folder else [])])), relative)
            if batches is not None:
                self._add_ends(relative)
        self._usable = [np.ones(len(level.keys), bool) for level in self._levels]
        self._doubtful = np.zeros(len(entries.keys), bool)
        if batches is not None:
            for batch in batches(self.columns):
                self._note(batch)
            self._settle()

    def _add_locations(self, bases: Sequence[str], relative: np.ndarray) -> None:
        is_plain = self.entries.kind == "file"
        for number, base in enumerate(bases or ["/"]):
            keys = array("Q")
            for text, is_one in zip(map(str, self.entries.names), relative.tolist(), strict=True):
                # A file name without a folder is of any folder.
                is_asked = bool(bases) and not (is_plain and "/" not in text) if is_one else number == 0
                keys.append(location_key(text, base) if is_asked else NONE)
            self._locations.append(len(self._levels))
            self._append(keys, 0)

    def _add_ends(self, relative: np.ndarray) -> None:
        lengths = array("i")
        tails, files = array("Q"), array("Q")
        for name, is_one in zip(self.entries.names, relative.tolist(), strict=True):
            parts = parts_of(str(name))
            lengths.append(len(parts) if is_one and 1 < len(parts) <= _MAX_PARTS else 0)
            tails.append(tail_key(parts) if lengths[-1] else NONE)
            files.append(tail_key(parts[-1:]) if parts else NONE)
        found = np.frombuffer(lengths, np.int32)
        for count in sorted(set(found[found > 0].tolist()), reverse=True):
            keys = np.where(found == count, np.frombuffer(tails, np.uint64), np.uint64(NONE))
            self._append(keys, count)
        self._append(files, 1)

    def _append(self, keys: array[int] | np.ndarray, tail: int) -> None:
        self._levels.append(KeyLevel(np.array(keys, np.uint64), self.entries.codes))
        self._tails.append(tail)

    def _row_keys(self, batch: pa.RecordBatch) -> list[list[np.ndarray]]:
        """For each level the keys of the rows: uint64[N] each, of ends as they are and as they are encoded."""
        names = batch.column(self._by).to_pylist()
        if self._by != "uri":
            return [[_keys(text_key(name) if name else NONE for name in names)]]
        found = [[_keys(exact_key(name) if name else NONE for name in names)]]
        located = _keys(id_key(one or "") for one in _ids(batch)) if self._locations else None
        parts = [parts_of(name or "") for name in names]
        raw = [
            raw_parts_of(name) if name and "%" in name else one
            for name, one in zip(names, parts, strict=True)
        ]
        for tail in self._tails[1:]:
            if not tail:
                assert located is not None
                found.append([located])
                continue
            encoded = any(a is not b for a, b in zip(parts, raw, strict=True))
            found.append([_tail_keys(parts, tail), *([_tail_keys(raw, tail)] if encoded else [])])
        return found

    def _note(self, batch: pa.RecordBatch) -> None:
        identities = _ids(batch) if "image_id" in self.columns else [None] * batch.num_rows
        names = batch.column(self._by).to_pylist()
        images = _keys(
            id_key(identity) if identity else text_key(name or "")
            for identity, name in zip(identities, names, strict=True)
        )
        for level, keys in zip(self._levels, self._row_keys(batch), strict=True):
            for one in keys:
                level.note(one, images)

    def _settle(self) -> None:
        """Decides which keys count, all rows being known."""
        taken = np.zeros(len(self.entries.keys), bool)
        for number, (level, tail) in enumerate(zip(self._levels, self._tails, strict=True)):
            hit = level.truths_hit()
            # Name and location say the same in different words; the others are asked if these know nothing.
            new = hit if number < 2 and not tail else hit & ~taken
            unsure = level.many | level.several if tail else level.many
            bad = (
                new & unsure[level.key_of] if self._by == "uri" and len(unsure) else np.zeros(len(new), bool)
            )
            usable = np.zeros(len(level.keys), bool)
            usable[level.key_of[new & ~bad]] = True
            self._usable[number] = usable
            self._doubtful |= bad
            taken |= new
            level.hit[:] = False

    def of_batch(self, batch: pa.RecordBatch) -> list[Classes | None]:
        """See ``Truth``."""
        return [classes or None for classes in self.decided(batch)]

    def decided(self, batch: pa.RecordBatch) -> list[Classes | None]:
        """See ``Truth``."""
        codes = np.full(batch.num_rows, _NO_TRUTH)
        for level, usable, keys in zip(self._levels, self._usable, self._row_keys(batch), strict=True):
            for one in keys:
                places = level.find(one)
                found = places >= 0
                found[found] = usable[places[found]]
                level.hit[places[found]] = True
                values = np.full(batch.num_rows, _NO_TRUTH)
                values[found] = level.code[places[found]]
                differ = found & (codes != _NO_TRUTH) & (codes != values)
                codes = np.where(codes == _NO_TRUTH, values, np.where(differ, DOUBT, codes))
        names = batch.column(self._by)
        for place in np.flatnonzero(codes == DOUBT).tolist():
            self._row_conflicts.add(str(names[place]))
        sets = self.entries.class_sets
        return [sets[code] if code >= 0 else None if code == _NO_TRUTH else () for code in codes.tolist()]

    def known_classes(self) -> frozenset[str]:
        """See ``Truth``."""
        return frozenset(one for classes in self.entries.class_sets for one in classes)

    def _matched(self) -> np.ndarray:
        return np.logical_or.reduce([level.truths_hit() for level in self._levels])

    def unmatched(self) -> int:
        """See ``Truth``."""
        return int(np.count_nonzero(~self._matched()))

    def problems(self) -> tuple[Problem, ...]:
        """See ``Truth``."""
        path, matched = self.entries.path, self._matched()
        moved = np.zeros(len(matched), bool)
        if self._tails[-1] == 1:
            moved = self._levels[-1].truths_hit() & ~np.logical_or.reduce(
                [level.truths_hit() for level in self._levels[:-1]]
            )
        return (
            *self.entries.problems(),
            *self._problem(f"images in {path} that are no row", ~matched & ~self._doubtful),
            *self._problem(
                f"names in {path} that fit several images, or of which several fit one; they match nothing",
                self._doubtful & ~matched,
            ),
            *self._problem(
                f"images in {path} that were matched by their file names alone, being in another folder",
                moved & self._have_folders(moved),
            ),
            *self._row_conflicts.problem(
                f"rows of which {path} says two different things; they have no truth"
            ),
        )

    def _have_folders(self, among: np.ndarray) -> np.ndarray:
        found = np.zeros(len(among), bool)
        for place in np.flatnonzero(among).tolist():
            found[place] = "/" in str(self.entries.names[place])
        return found

    def _problem(self, what: str, are: np.ndarray) -> tuple[Problem, ...]:
        count = int(np.count_nonzero(are))
        examples = tuple(shown(self.entries.names, np.flatnonzero(are)[:SHOWN]))
        return (Problem(what, count, examples),) if count else ()


def _keys(values: object) -> np.ndarray:
    return np.fromiter(values, np.uint64)  # type: ignore[call-overload,no-any-return]


def _ids(batch: pa.RecordBatch) -> list[str | None]:
    found: list[str | None] = batch.column("image_id").to_pylist()
    return found


def _tail_keys(parts: Sequence[Sequence[str]], count: int) -> np.ndarray:
    return _keys(tail_key(one[-count:]) if len(one) >= count else NONE for one in parts)
