"""References of text files and listings on their way to the worker that opens their unit.

A unit carries them packed, as long as all units together carry little: whatever crosses a reshuffle is held
several times over by a runner that shuffles in memory. Those of later units lie in the staging folder, and the
unit says where.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from beamlabel.transforms import storage
from beamlabel.transforms.records import WorkUnit

CARRIED_BYTES = 256 << 10
"""Packed references that the units of a bundle carry themselves: of ten to fifty thousand images."""

_UNPACKED_BYTES = 1 << 16
_FOLDER = "references"
_LENGTH = struct.Struct("<i")
_encode = json.JSONEncoder(separators=(",", ":")).encode
# Of text, as ``_encode`` writes it.
_quoted = json.encoder.encode_basestring_ascii


class PackedRef(NamedTuple):
    """A reference of a text file, a listing or an archive, as it travels: its row and URI, what the listing told of it
    (size in bytes and version), if that is asked for, and what else its source has to know of it, as JSON."""

    row: int
    uri: str
    listing_stat: tuple[int | None, str | None] | None = None
    rest: Any = None


class Packed(NamedTuple):
    """References as bytes, and the SHA-256 of what they say, which does not depend on how it was deflated."""

    data: bytes
    sha256: str


def pack(refs: Sequence[PackedRef], *, with_listing_stat: bool) -> Packed:
    """References as deflated lines of JSON: about a fifth of the text, so that a shuffled unit stays small.

    The SHA-256 is over size and version too, if they are known: a unit with an image that was replaced is another
    unit. Only ``with_listing_stat`` do they travel.
    """
    told = _lines(refs)
    is_told = with_listing_stat or all(ref.listing_stat is None for ref in refs)
    text = told if is_told else _lines(ref._replace(listing_stat=None) for ref in refs)
    return Packed(zlib.compress(text), hashlib.sha256(told).hexdigest())


def _lines(refs: Iterable[PackedRef]) -> bytes:
    return "\n".join(map(_line, refs)).encode()


def _line(ref: PackedRef) -> str:
    """The JSON array of a reference, without the None at its end.

    One planner does this for every reference of a list: put together by hand it takes 0.5 microseconds, and by
    ``json.dumps`` 3.8.
    """
    row, uri, listing_stat, rest = ref
    if rest is not None:
        return _encode(ref)
    if listing_stat is None:
        return f"[{row},{_quoted(uri)}]"
    size, version = listing_stat
    told = "null" if size is None else str(size), "null" if version is None else _quoted(version)
    return f"[{row},{_quoted(uri)},[{told[0]},{told[1]}]]"


def unpack(packed: bytes) -> Iterator[PackedRef]:
    """The inverse of ``pack``, a block at a time: ten thousand references are some megabytes of objects."""
    inflate, waiting, rest = zlib.decompressobj(), packed, b""
    while waiting:
        *lines, rest = (rest + inflate.decompress(waiting, _UNPACKED_BYTES)).split(b"\n")
        yield from map(_reference, lines)
        waiting = inflate.unconsumed_tail
    rest += inflate.flush()
    yield from map(_reference, filter(None, rest.split(b"\n")))


def _reference(line: bytes) -> PackedRef:
    row, uri, *more = json.loads(line)
    listing_stat, rest = (*more, None, None)[:2]
    return PackedRef(row, uri, None if listing_stat is None else tuple(listing_stat), rest)


class RefSpiller:
    """Decides which units carry their references, and stages those of the others.

    Args:
      staging_dir: a local folder or a URI that all workers see.
    """

    def __init__(self, staging_dir: str) -> None:
        self._folder = storage.join(staging_dir, _FOLDER)
        self._carried = 0

    def spill(self, unit: WorkUnit) -> WorkUnit:
        """The unit as it may cross a reshuffle.

        Staged references are named by their unit, whose name says what they are; whoever plans them again
        finds them there.

        Raises:
          OSError: the staging folder cannot be written.
        """
        carried = [part.packed_refs for part in unit.parts or (unit,) if part.packed_refs is not None]
        if not carried:
            return unit
        self._carried += sum(map(len, carried))
        if self._carried <= CARRIED_BYTES:
            return unit
        path = storage.join(self._folder, unit.unit_id)
        storage.create_if_absent(path, _framed(unit) if unit.parts else carried[0])
        return dataclasses.replace(without_references(unit), refs_path=path)


def without_references(unit: WorkUnit) -> WorkUnit:
    """The unit, and its parts, without the references that they carry."""
    parts = tuple(dataclasses.replace(part, packed_refs=None) for part in unit.parts)
    return dataclasses.replace(unit, packed_refs=None, refs_path=None, parts=parts)


def _framed(unit: WorkUnit) -> bytes:
    """What the parts of a unit carry, one after the other, each after its length; -1 for nothing."""
    framed = bytearray()
    for part in unit.parts:
        data = part.packed_refs
        framed += _LENGTH.pack(-1 if data is None else len(data)) + (data or b"")
    return bytes(framed)


def unpack_parts(unit: WorkUnit) -> tuple[WorkUnit, ...]:
    """The parts of a unit with the references that were staged for them.

    Raises:
      OSError: these cannot be read.
    """
    assert unit.refs_path is not None
    framed, at, parts = storage.read_bytes(unit.refs_path), 0, []
    for part in unit.parts:
        (length,) = _LENGTH.unpack_from(framed, at)
        at += _LENGTH.size
        data = None if length < 0 else framed[at : at + length]
        at += max(length, 0)
        parts.append(dataclasses.replace(part, packed_refs=data))
    return tuple(parts)


def references(unit: WorkUnit) -> Iterator[PackedRef]:
    """The references that a unit carries or has staged.

    Raises:
      OSError: staged ones cannot be read.
      ValueError: it has none.
    """
    if unit.packed_refs is not None:
        return unpack(unit.packed_refs)
    if unit.refs_path is not None:
        return unpack(storage.read_bytes(unit.refs_path))
    raise ValueError(f"unit {unit.unit_id} of {unit.input_file.path} carries no references")
