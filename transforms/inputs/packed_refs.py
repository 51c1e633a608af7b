"""References of text files and listings on their way to the worker that opens their unit.

Units carry their references packed as long as all of them together stay small, because a runner that shuffles in memory
holds several copies of everything that crosses a reshuffle. The references of later units lie in the staging directory,
and the unit holds their path.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import struct
import zlib
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple

from beamlabel.transforms import storage
from beamlabel.transforms.records import WorkUnit
from beamlabel.transforms.worker.daemon_pool import DaemonPool

CARRIED_BYTES = 256 << 10
"""Packed references that all units together carry: of ten to fifty thousand images."""

# Limits for staged references that are being written: their units, and their bytes.
_WRITES = 32
_HELD_BYTES = 32 << 20
_UNPACKED_BYTES = 1 << 15
_DIRECTORY = "references"
_LENGTH = struct.Struct("<i")
_encode = json.JSONEncoder(separators=(",", ":")).encode
# Text as ``_encode`` writes it.
_quoted = json.encoder.encode_basestring_ascii


class PackedRef(NamedTuple):
    """A reference of a text file, a listing or an archive, on its way to a worker.

    Attributes:
      row: its row.
      uri: its URI.
      listing_stat: size in bytes and version from the listing, if requested.
      rest: further data of its source, as JSON.
    """

    row: int
    uri: str
    listing_stat: tuple[int | None, str | None] | None = None
    rest: Any = None


class Packed(NamedTuple):
    """References as bytes, and the SHA-256 of their content, which does not depend on the compression."""

    data: bytes
    sha256: str


def pack(refs: Sequence[PackedRef], *, with_listing_stat: bool) -> Packed:
    """References as deflated lines of JSON: about a fifth of the text, so that a shuffled unit stays small.

    The SHA-256 covers size and version too, if they are known: a unit with a replaced image is another unit. They
    travel only ``with_listing_stat``.
    """
    told = _lines(refs)
    is_told = with_listing_stat or all(ref.listing_stat is None for ref in refs)
    text = told if is_told else _lines(ref._replace(listing_stat=None) for ref in refs)
    return Packed(zlib.compress(text), hashlib.sha256(told).hexdigest())


def _lines(refs: Iterable[PackedRef]) -> bytes:
    return "\n".join(map(_line, refs)).encode()


def _line(ref: PackedRef) -> str:
    """The JSON array of a reference, without a None at its end.

    One planner formats every reference of a list: this format takes 0.5 microseconds, ``json.dumps`` 3.8.
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
        lines, _, rest = (rest + inflate.decompress(waiting, _UNPACKED_BYTES)).rpartition(b"\n")
        yield from map(_reference, _values(lines))
        waiting = inflate.unconsumed_tail
    rest += inflate.flush()
    yield from map(_reference, _values(rest))


def _values(lines: bytes) -> list[list[Any]]:
    """Lines of JSON, parsed at once: a third of the time of parsing line by line."""
    values: list[list[Any]] = json.loads(f"[{lines.decode().replace(chr(10), ',')}]")
    return values


def _reference(value: list[Any]) -> PackedRef:
    if len(value) == 2:
        return PackedRef(*value)
    row, uri, listing_stat, rest = (*value, None)[:4]
    return PackedRef(row, uri, None if listing_stat is None else tuple(listing_stat), rest)


class RefSpiller:
    """Decides which units carry their references, and stages those of the others.

    Args:
      staging_dir: a local directory or a URI that all workers can reach.
      groups: the number of separately planned groups of files; each gets an equal share of the carried bytes.
    """

    def __init__(self, staging_dir: str, groups: int = 1) -> None:
        self._directory = storage.join(staging_dir, _DIRECTORY)
        self._carried, self._groups = 0, groups

    def spill(self, unit: WorkUnit) -> WorkUnit:
        """The unit in the form that may cross a reshuffle.

        The name of a unit identifies its references, and so names their staged file; planning again finds them there.

        Raises:
          OSError: the staging directory cannot be written.
        """
        data = self._to_stage(unit)
        return unit if data is None else self._stage(unit, data)

    def spill_all(self, units: Iterable[WorkUnit], threads: DaemonPool) -> Iterator[WorkUnit]:
        """Applies ``spill`` to many units, in order; several staged units are written at a time.

        A unit is yielded once its references are staged.

        Raises:
          OSError: see ``spill``.
        """
        waiting = deque[tuple[WorkUnit | Future[WorkUnit], int]]()
        held = 0
        for unit in units:
            data = self._to_stage(unit)
            size = 0 if data is None else len(data)
            waiting.append((unit if data is None else threads.submit(self._stage, unit, data), size))
            held += size
            del data
            while waiting and (len(waiting) > _WRITES or held > _HELD_BYTES or _is_there(waiting[0][0])):
                one, size = waiting.popleft()
                held -= size
                yield one if isinstance(one, WorkUnit) else threads.result(one)
        for one, _ in waiting:
            yield one if isinstance(one, WorkUnit) else threads.result(one)

    def _to_stage(self, unit: WorkUnit) -> bytes | None:
        """The staged bytes of a unit; None if the unit carries them, or there are none."""
        carried = [part.packed_refs for part in unit.parts or (unit,) if part.packed_refs is not None]
        if not carried:
            return None
        self._carried += sum(map(len, carried))
        if self._carried <= CARRIED_BYTES // self._groups:
            return None
        return _framed(unit) if unit.parts else carried[0]

    def _stage(self, unit: WorkUnit, data: bytes) -> WorkUnit:
        path = storage.join(self._directory, unit.unit_id)
        storage.create_if_absent(path, data)
        return dataclasses.replace(without_references(unit), refs_path=path)


def _is_there(one: WorkUnit | Future[WorkUnit]) -> bool:
    return isinstance(one, WorkUnit) or one.done()


def without_references(unit: WorkUnit) -> WorkUnit:
    """The unit and its parts without the references that they carry."""
    parts = tuple(dataclasses.replace(part, packed_refs=None) for part in unit.parts)
    return dataclasses.replace(unit, packed_refs=None, refs_path=None, parts=parts)


def _framed(unit: WorkUnit) -> bytes:
    """The references of a unit's parts, one after the other, each after its length; -1 for none."""
    framed = bytearray()
    for part in unit.parts:
        data = part.packed_refs
        framed += _LENGTH.pack(-1 if data is None else len(data)) + (data or b"")
    return bytes(framed)


def unpack_parts(unit: WorkUnit) -> tuple[WorkUnit, ...]:
    """The parts of a unit with their staged references.

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
    raise ValueError(f"unit {unit.unit_id} of {unit.input_file.path} has no references")
