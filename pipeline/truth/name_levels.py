"""The ways to match a truth's image names with rows, the surest first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from beamlabel.pipeline.truth.file_entries import FileEntries
from beamlabel.pipeline.truth.image_names import composed, parts_below, parts_of, plain_name, raw_parts_of
from beamlabel.pipeline.truth.key_level import KeyLevel
from beamlabel.pipeline.truth.name_keys import (
    NONE,
    exact_key,
    id_key,
    is_relative,
    keys_of,
    location_key,
    tail_key,
    text_key,
)
from beamlabel.pipeline.truth.truth import values_of

NAME, LOCATION, PLAIN, END = "name", "location", "plain", "end"
# Relative names with more parts than this are matched by file name alone.
_MAX_PARTS = 12


@dataclass
class NameLevel:
    """One way to match names.

    Attributes:
      index: the keys of all truths.
      kind: ``NAME`` (an unchanged column), ``LOCATION`` (``image_id``), ``PLAIN`` (``uri``, in any Unicode form),
        or ``END`` of the ``uri``.
      tail: for ``END``, the number of last parts to compare.
      is_sure: whether it also applies to a name that another way has matched.
      is_base: whether it takes relative names below a base directory of an input.
      usable: bool by key: whether rows with this key get the truth.
    """

    index: KeyLevel
    kind: str = NAME
    tail: int = 0
    is_sure: bool = False
    is_base: bool = False
    usable: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.usable = np.ones(len(self.index.keys), bool)


def first_level(entries: FileEntries) -> NameLevel:
    """Matches unchanged names."""
    return NameLevel(KeyLevel(entries.keys, entries.codes), is_sure=True)


def location_levels(
    entries: FileEntries, wanted: np.ndarray, bases: Sequence[str], directory: str | None
) -> Iterator[NameLevel]:
    """Matches wanted names by location: absolute ones, relative ones below ``bases``, then below ``directory``."""
    is_plain = entries.kind == "file"
    asked = list(dict.fromkeys([*bases, *([directory] if directory else [])]))
    if not bases:
        asked.insert(0, "")  # for absolute names alone
    for number, base in enumerate(asked):
        keys = np.zeros(len(entries.keys), np.uint64)
        for place, name in entries.each_name(wanted):
            # A file name without a directory may be in any directory.
            is_below = bool(base) and not (is_plain and "/" not in name)
            is_asked = is_below if is_relative(name) else number == 0
            keys[place] = location_key(name, base or "/") if is_asked else NONE
        index = KeyLevel(keys, entries.codes)
        if len(index.keys):
            yield NameLevel(index, LOCATION, is_sure=number == 0, is_base=base in bases)


def end_levels(entries: FileEntries, wanted: np.ndarray) -> Iterator[NameLevel]:
    """Matches plain names, then ends of locations: whole relative names, the longest first, then any file name.

    Names that are not wanted matter too: they decide whether a file name is unique.
    """
    count = len(entries.keys)
    lengths, tails, files = np.zeros(count, np.uint8), np.zeros(count, np.uint64), np.zeros(count, np.uint64)
    plain = np.zeros(count, np.uint64)
    for place, written in entries.each_name(np.ones(count, bool)):
        name = plain_name(written)
        is_below = is_relative(name)
        parts = parts_below(name) if is_below else parts_of(name)
        if wanted[place] and 1 < len(parts) <= _MAX_PARTS and is_below:
            lengths[place], tails[place] = len(parts), tail_key(parts)
        if wanted[place] and not is_below and (name != written or not name.isascii()):
            plain[place] = exact_key(name)
        if parts:
            files[place] = tail_key(parts[-1:])
    if plain.any():
        yield NameLevel(KeyLevel(plain, entries.codes), PLAIN)
    for length in sorted(set(lengths[lengths > 0].tolist()), reverse=True):
        keys = np.where(lengths == length, tails, np.uint64(NONE))
        yield NameLevel(KeyLevel(keys, entries.codes), END, tail=int(length))
    yield NameLevel(KeyLevel(files, entries.codes), END, tail=1)


def row_keys(batch: pa.RecordBatch, by: str, levels: Sequence[NameLevel]) -> list[list[np.ndarray]]:
    """The keys of the rows for each level: uint64[N] each; for ends also in percent-encoded form.

    Args:
      batch: rows with the column ``by``, and ``image_id`` if a level needs locations.
      by: ``uri``, ``ref_id`` or ``image_id``.
      levels: levels whose keys are wanted.
    """
    names = values_of(batch, by)
    key = exact_key if by == "uri" else text_key
    found: list[list[np.ndarray]] = []
    parts: list[list[str]] | None = None
    for level in levels:
        if level.kind == NAME:
            found.append([keys_of(key(name) if name else NONE for name in names)])
        elif level.kind == LOCATION:
            found.append([keys_of(id_key(one or "") for one in values_of(batch, "image_id"))])
        elif level.kind == PLAIN:
            found.append([keys_of(exact_key(composed(name)) if name else NONE for name in names)])
        else:
            parts = parts or [parts_of(name or "") for name in names]
            encoded = [
                raw_parts_of(name) if name and "%" in name else one
                for name, one in zip(names, parts, strict=True)
            ]
            both = [parts, encoded] if encoded != parts else [parts]
            found.append([_tail_keys(one, level.tail) for one in both])
    return found


def image_keys(batch: pa.RecordBatch) -> np.ndarray:
    """The key of each row's image, uint64[N]; from ``uri`` for rows without ``image_id``."""
    pairs = zip(values_of(batch, "image_id"), values_of(batch, "uri"), strict=True)
    return keys_of(id_key(identity) if identity else text_key(uri or "") for identity, uri in pairs)


def _tail_keys(parts: Sequence[Sequence[str]], count: int) -> np.ndarray:
    return keys_of(tail_key(one[-count:]) if len(one) >= count else NONE for one in parts)
