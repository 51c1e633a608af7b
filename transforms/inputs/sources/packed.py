"""Units that carry their references: of inputs whose rows cannot be found again by number."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple, Union

from beamlabel.transforms.inputs.packed_refs import PackedRef, pack
from beamlabel.transforms.inputs.sources.source import Planned, SourceOptions
from beamlabel.transforms.records import InputFile, WorkUnit, unit_id


class Found(NamedTuple):
    """A reference as a source finds it: its URI, size and version if a listing told them, and what else the source has
    to know of it, as JSON."""

    uri: str
    listing_stat: tuple[int | None, str | None] | None = None
    rest: Any = None


class LeftOut(NamedTuple):
    """A place that is no reference: a file of a listing, and why. A blank line has no cause."""

    cause: str | None = None


Place = Union[Found, LeftOut]


def plan_packed(
    number: int, file: InputFile, places: Iterator[Place], options: SourceOptions, limit: int | None
) -> Iterator[Planned]:
    """Units of references that travel with them. A row is a place, so the places tile the file."""
    start, planned, refs, row = 0, 0, list[PackedRef](), -1
    full = options.unit_rows(0)
    left_out = Counter[str]()

    def unit(stop: int, *, last: bool) -> Planned:
        packed, sha256 = pack(refs, with_listing_stat=options.selection.asks_for_stats)
        name = unit_id(number, start, sha256)
        causes = tuple(sorted(left_out.items()))
        made = WorkUnit(name, file, start, stop, last, packed_refs=packed, left_out=causes)
        return Planned(made, len(refs))

    if limit != 0:
        for row, place in enumerate(places):
            if isinstance(place, LeftOut):
                if place.cause is not None:
                    left_out[place.cause] += 1
                continue
            if not options.in_sample(place.uri):
                continue
            # A full unit waits for the next reference, so that what trails belongs to the last unit.
            if len(refs) == full:
                yield unit(row, last=False)
                start, refs, full = row, [], options.unit_rows(planned)
                left_out.clear()
            refs.append(PackedRef(row, *place))
            planned += 1
            if planned == limit:
                break
    yield unit(row + 1, last=True)
