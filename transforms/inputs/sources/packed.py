"""Units that carry their references, for inputs whose rows cannot be found by number."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple, Union

from beamlabel.transforms.inputs.packed_refs import PackedRef, pack
from beamlabel.transforms.inputs.sources.source import Planned, SourceOptions, ref_id
from beamlabel.transforms.inputs.text_blocks import TooLong
from beamlabel.transforms.inputs.uri_length import too_long_failure, too_many_bytes
from beamlabel.transforms.records import Failure, InputFile, WorkUnit, unit_id


class Found(NamedTuple):
    """A reference from a source.

    Attributes:
      uri: its URI.
      listing_stat: size and version, if from a listing.
      rest: further data of the source, as JSON.
    """

    uri: str
    listing_stat: tuple[int | None, str | None] | None = None
    rest: Any = None


class LeftOut(NamedTuple):
    """A place without a reference: a file of a listing, and the cause. A blank line has no cause."""

    cause: str | None = None


Place = Union[Found, TooLong, LeftOut]

# The key in ``PackedRef.rest`` for the bytes of a URI that is too long; the URI itself does not travel.
_TOO_LONG = "too_long"
# The largest size of a unit's references, not counting the last one.
_UNIT_BYTES = 8 << 20


def plan_packed(
    number: int, file: InputFile, places: Iterator[Place], options: SourceOptions, limit: int | None
) -> Iterator[Planned]:
    """Units that carry their references. A row is a place, so the places tile the file."""
    start, planned, refs, row, held = 0, 0, list[PackedRef](), -1, 0
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
            if isinstance(place, Found) and (size := too_many_bytes(place.uri)) is not None:
                place = TooLong(size)
            if isinstance(place, TooLong):
                ref, sampled = PackedRef(row, "", None, {_TOO_LONG: place.size}), ref_id(file.path, row)
            else:
                ref, sampled = PackedRef(row, *place), place.uri
            if not options.in_sample(sampled):
                continue
            # A full unit waits for the next reference, so that trailing places belong to the last unit.
            if len(refs) == full or held >= _UNIT_BYTES:
                yield unit(row, last=False)
                start, refs, held, full = row, [], 0, options.unit_rows(planned)
                left_out.clear()
            refs.append(ref)
            held += len(ref.uri)
            planned += 1
            if planned == limit:
                break
    yield unit(row + 1, last=True)


def unnamed_failure(ref: PackedRef, unit: WorkUnit) -> Failure | None:
    """The outcome of a reference whose URI is too long; None for any other."""
    size = None if ref.rest is None else ref.rest.get(_TOO_LONG)
    if size is None:
        return None
    return too_long_failure(size, ref_id(unit.input_file.path, ref.row), ref.row, unit.unit_id)
