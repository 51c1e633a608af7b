"""Small input files that share a unit, so that a thousand of them do not make a thousand shards."""

from __future__ import annotations

import dataclasses
import hashlib
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from beamlabel.transforms.inputs.packed_refs import unpack_parts
from beamlabel.transforms.inputs.sources.registry import source_of
from beamlabel.transforms.inputs.sources.source import Planned, SourceOptions
from beamlabel.transforms.records import InputFile, WorkUnit, unit_id

MAX_SHARED_FILES = 1024
"""The largest number of files in a unit; the unit and its record name each file."""

_SMALL_BYTES = 1 << 20
# Files that are planned at a time: on a bucket, planning is waiting.
_THREADS = 16
_AHEAD = 64


def is_small(file: InputFile) -> bool:
    """Whether a file's size allows it to share a unit with others."""
    return file.size is not None and file.size <= _SMALL_BYTES


def plan_ahead(files: Sequence[tuple[int, InputFile]], options: SourceOptions) -> Iterator[Planned]:
    """The units of files, in order, without a limit; several small files are planned at a time."""
    if len(files) == 1:
        number, file = files[0]
        yield from source_of(file.format).plan(number, file, options, None)
        return

    def plan_one(number: int, file: InputFile) -> list[Planned]:
        return list(source_of(file.format).plan(number, file, options, None))

    waiting = deque[Future[list[Planned]]]()
    with ThreadPoolExecutor(_THREADS) as threads:
        for number, file in files:
            waiting.append(threads.submit(plan_one, number, file))
            if len(waiting) > _AHEAD:
                yield from waiting.popleft().result()
        for future in waiting:
            yield from future.result()


def plan_limited(files: Sequence[tuple[int, InputFile]], options: SourceOptions) -> Iterator[Planned]:
    """The units of files, in order, up to the limit over all of them.

    The number of references left for a file is known once the files before it are planned. Small files are planned
    ahead as if the files before them had no references; a file that reaches the limit is planned again.
    """
    assert options.limit is not None
    remaining = options.limit

    def plan_one(number: int, file: InputFile, limit: int) -> list[Planned]:
        return list(source_of(file.format).plan(number, file, options, limit))

    tried: dict[int, Future[list[Planned]]] = {}
    begun = 0
    with ThreadPoolExecutor(_THREADS) as threads:
        for place, (number, file) in enumerate(files):
            begun = max(begun, place)
            while remaining and begun < min(place + _THREADS, len(files)) and len(files) > 1:
                if is_small(files[begun][1]):
                    tried[begun] = threads.submit(plan_one, *files[begun], remaining)
                begun += 1
            found = tried.pop(place, None) if remaining else None
            planned = None if found is None else found.result()
            if planned is not None and sum(unit.references for unit in planned) < remaining:
                yield from planned
                remaining -= sum(unit.references for unit in planned)
                continue
            for unit in source_of(file.format).plan(number, file, options, remaining):
                yield unit
                remaining -= unit.references


def share(planned: Iterable[Planned], options: SourceOptions) -> Iterator[WorkUnit]:
    """Merges consecutive units that are whole files, as long as the merged unit does not get too large."""
    parts: list[WorkUnit] = []
    references = 0
    for unit, count in planned:
        is_whole = unit.start == 0 and unit.last
        fits = references + count <= options.unit_rows(0) and len(parts) < MAX_SHARED_FILES
        if parts and not (is_whole and fits):
            yield _shared(parts)
            parts, references = [], 0
        if is_whole:
            parts.append(unit)
            references += count
        else:
            yield unit
    if parts:
        yield _shared(parts)


def _shared(parts: list[WorkUnit]) -> WorkUnit:
    if len(parts) == 1:
        return parts[0]
    names = hashlib.sha256("\n".join(part.unit_id for part in parts).encode()).hexdigest()
    number = int(parts[0].unit_id.partition("-")[0])
    left_out = Counter[str]()
    for part in parts:
        left_out.update(dict(part.left_out))
    return WorkUnit(
        unit_id=unit_id(number, 0, names),
        input_file=parts[0].input_file,
        start=0,
        stop=sum(part.stop for part in parts),
        last=True,
        left_out=tuple(sorted(left_out.items())),
        parts=tuple(dataclasses.replace(part, left_out=()) for part in parts),
    )


def parts_of(unit: WorkUnit) -> tuple[WorkUnit, ...]:
    """The parts of a shared unit, with their references if these were staged.

    Raises:
      OSError: staged references cannot be read.
    """
    return unit.parts if unit.refs_path is None else unpack_parts(unit)
