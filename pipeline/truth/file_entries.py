"""The content of a truth file in memory: each image once, with its classes."""

from __future__ import annotations

import itertools
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from beamlabel.pipeline.errors import UsageError
from beamlabel.pipeline.truth.class_values import classes_of
from beamlabel.pipeline.truth.file_records import TruthFile, TruthRecord, open_truth_file
from beamlabel.pipeline.truth.key_level import NO_CODE
from beamlabel.pipeline.truth.name_keys import exact_key, text_key
from beamlabel.pipeline.truth.problem import Examples, Problem
from beamlabel.pipeline.truth.truth import Classes

_CHUNK = 65536
RIGHT, WRONG = "right", "wrong"


@dataclass
class FileEntries:
    """The images in a truth file.

    Attributes:
      path: path of the file.
      kind: how images are named, see ``FileColumns``.
      names: string[N], in the order of the file.
      keys: uint64[N], keys of the names.
      codes: int32[N], positions in ``class_sets``; ``NO_CODE`` if the file contradicts itself.
      class_sets: all distinct sets of classes.
      multi_label: whether an image may have several classes.
      are_ids: whether classes are whole numbers by the type of their column.
      are_corrections: whether the report of a run exported the file.
      conflicts: images with two truths.
      twice, empty, unnamed, undecided: lines without new information.
    """

    path: str
    kind: str
    names: pa.ChunkedArray
    keys: np.ndarray
    codes: np.ndarray
    class_sets: list[Classes]
    multi_label: bool
    are_ids: bool
    are_corrections: bool = False
    conflicts: Examples = field(default_factory=Examples)
    twice: Examples = field(default_factory=Examples)
    empty: Examples = field(default_factory=Examples)
    unnamed: Examples = field(default_factory=Examples)
    undecided: Examples = field(default_factory=Examples)

    def each_name(self, wanted: np.ndarray) -> Iterator[tuple[int, str]]:
        """Yields the wanted names with their positions, in order; only a chunk of them is in memory as strings."""
        for start in range(0, len(wanted), _CHUNK):
            among = wanted[start : start + _CHUNK]
            if among.any():
                names = self.names.slice(start, _CHUNK).filter(pa.array(among)).to_pylist()
                yield from zip((np.flatnonzero(among) + start).tolist(), names, strict=True)

    def problems(self) -> Iterator[Problem]:
        """Problems of the file itself."""
        yield from self.conflicts.problem(
            f"images with two different truths in {self.path}; they have no truth"
        )
        yield from self.twice.problem(f"lines of {self.path} that repeat an earlier line")
        yield from self.empty.problem(f"lines of {self.path} without a class")
        yield from self.undecided.problem(
            f"corrections in {self.path} that say wrong without a class; these images have no truth"
        )
        yield from self.unnamed.problem(f"lines of {self.path} without an image")


class _Reader:
    """Collects records in arrays."""

    def __init__(self, path: str, separator: str | None) -> None:
        self.chunks: list[pa.Array] = []
        self.names: list[str] = []
        self.keys = array("Q")
        self.codes = array("i")
        self.sets: dict[Classes, int] = {}
        self.empty, self.unnamed, self.undecided = Examples(), Examples(), Examples()
        self.multi_label = separator is not None
        self._separator = separator

    def read(self, records: Iterable[TruthRecord], kind: str) -> None:
        for record in records:
            name = self._name(record, kind)
            found, _ = classes_at(record, self._separator)
            if not name:
                self.unnamed.add(record.place)
            elif not found:
                (self.undecided if record.verdict else self.empty).add(f"{record.place}: {name}")
                if record.verdict:
                    # The reviewer has seen the image, so an earlier truth no longer counts.
                    self._add(name, (), kind)
            else:
                self._add(name, found, kind)
        self._flush()

    def _name(self, record: TruthRecord, kind: str) -> str:
        if record.name is None:
            return ""
        if not isinstance(record.name, str):
            if kind not in ("uri", "file") or isinstance(record.name, (bool, float, list, dict)):
                raise ValueError(f"{record.place}: {str(record.name)[:80]!r} does not name an image")
            return str(record.name)
        return record.name.strip().lower() if kind == "image_id" else record.name

    def _add(self, name: str, found: Classes, kind: str) -> None:
        self.multi_label = self.multi_label or len(found) > 1
        self.names.append(name.encode("utf-8", "backslashreplace").decode())
        self.keys.append(text_key(name) if kind in ("ref_id", "image_id") else exact_key(name))
        self.codes.append(self.sets.setdefault(found, len(self.sets)))
        if len(self.names) == _CHUNK:
            self._flush()

    def _flush(self) -> None:
        self.chunks.append(pa.array(self.names, pa.large_string()))
        self.names.clear()


def classes_at(record: TruthRecord, separator: str | None) -> tuple[Classes, bool]:
    """The classes of a record; for corrections only the reviewer's.

    Raises:
      ValueError: the record's value is not a class or the verdict is invalid; the message names the record.
    """
    try:
        if record.verdict is not None and str(record.verdict).strip():
            verdict = str(record.verdict).strip().lower()
            if verdict not in (RIGHT, WRONG):
                raise ValueError(f"the verdict {verdict[:40]!r} is neither {RIGHT} nor {WRONG}")
            if verdict == RIGHT and not classes_of(record.value, separator)[0]:
                raise ValueError("the verdict is right, but there is no label")
        return classes_of(record.value, separator)
    except ValueError as error:
        raise ValueError(f"{record.place}: {error}") from error


def read_entries(path: str, key: str | None, value: str | None, separator: str | None) -> FileEntries:
    """Reads a file; holds its names in memory: 64 MB for a million names of 60 characters.

    Args:
      path, key, value: see ``open_truth_file``.
      separator: text between several classes of an image; if given, lines of one image add up.

    Raises:
      UsageError: the file cannot be read or parsed, or has no image with a class.
    """
    with open_truth_file(path, key, value) as file:
        reader = _Reader(path, separator)
        reader.read(file.records, file.columns.kind)
    if not reader.keys:
        raise UsageError(f"--truth {path!r}: it has no image with a class")
    return _merged(path, file, reader, adds_up=separator is not None)


def _merged(path: str, file: TruthFile, reader: _Reader, *, adds_up: bool) -> FileEntries:
    names = pa.chunked_array(reader.chunks, pa.large_string())
    reader.chunks.clear()
    keys, codes = np.array(reader.keys, np.uint64), np.array(reader.codes, np.int32)
    entries = FileEntries(
        path, file.columns.kind, names, keys, codes, list(reader.sets), reader.multi_label, file.are_ids,
        are_corrections=file.columns.verdict is not None,
        empty=reader.empty, unnamed=reader.unnamed, undecided=reader.undecided,
    )  # fmt: skip
    order = np.argsort(keys, kind="stable")
    is_first = np.concatenate(([True], keys[order][1:] != keys[order][:-1]))
    if not is_first.all():
        _merge(entries, order, is_first, reader.sets, adds_up)
    return entries


def _merge(
    entries: FileEntries, order: np.ndarray, is_first: np.ndarray, sets: dict[Classes, int], adds_up: bool
) -> None:
    """Keeps each image once."""
    starts = np.flatnonzero(is_first)
    stops = np.append(starts[1:], len(order))
    for start, stop in zip(
        starts[stops - starts > 1].tolist(), stops[stops - starts > 1].tolist(), strict=True
    ):
        places = order[start:stop].tolist()
        name = str(entries.names[places[0]])
        found = list(dict.fromkeys(int(entries.codes[place]) for place in places))
        if len(found) == 1:
            entries.twice.add(name)
        elif adds_up:
            union = tuple(sorted({one for code in found for one in entries.class_sets[code]}))
            entries.codes[places[0]] = sets.setdefault(union, len(sets))
            if len(sets) > len(entries.class_sets):
                entries.class_sets.append(union)
        else:
            shown = " and ".join(
                repr(", ".join(entries.class_sets[code])) for code in itertools.islice(found, 2)
            )
            entries.conflicts.add(f"{name!r}: {shown}")
            entries.codes[places[0]] = NO_CODE
    kept = np.sort(order[starts])
    entries.names = entries.names.take(pa.array(kept))
    entries.keys, entries.codes = entries.keys[kept], entries.codes[kept]


def shown(names: Any, places: np.ndarray) -> list[str]:
    """The names at some positions."""
    return [str(names[int(place)]) for place in places]
