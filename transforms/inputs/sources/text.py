"""A text file with a URI per line."""

from __future__ import annotations

from collections.abc import Iterator

from beamlabel.transforms.inputs.packed_refs import references
from beamlabel.transforms.inputs.sources.packed import Found, LeftOut, Place, plan_packed, unnamed_failure
from beamlabel.transforms.inputs.sources.source import Planned, Source, SourceOptions, ref_id
from beamlabel.transforms.inputs.text_blocks import TooLong, open_text, parse_line, read_lines
from beamlabel.transforms.records import Failure, ImageRef, InputFile, WorkUnit
from beamlabel.transforms.storage.identity import image_id
from beamlabel.transforms.storage.uris import resolve

# The beginning of a file; the length of its lines stands for the others'.
_LOOKED_AT_BYTES = 1 << 18


class TextSource(Source):
    """A file with a URI per line, except for blank lines and comments. A row is a line, from 0."""

    def plan(
        self, number: int, file: InputFile, options: SourceOptions, limit: int | None
    ) -> Iterator[Planned]:
        yield from plan_packed(number, file, _places(file.path), options, limit)

    def refs(self, unit: WorkUnit, options: SourceOptions) -> Iterator[ImageRef | Failure]:
        for ref in references(unit):
            if (failure := unnamed_failure(ref, unit)) is not None:
                yield failure
                continue
            row, uri, listing_stat, _ = ref
            location = resolve(uri, options.base_dir)
            identity = ref_id(unit.input_file.path, row)
            yield ImageRef(
                uri,
                identity,
                location,
                row,
                unit.unit_id,
                listing_stat=listing_stat,
                image_id=image_id(location),
            )

    def estimate(self, file: InputFile, options: SourceOptions) -> int:
        with open_text(file.path) as text:
            head = next(text.blocks, b"")
            if text.offset is not None:
                head = head[:_LOOKED_AT_BYTES]
            used = len(head) if text.offset is not None else text.file.tell()
        lines = sum(parse_line(line) is not None for line in head.splitlines(keepends=True))
        return round(lines * max(file.size or 0, used) / used) if used else 0


def _places(path: str) -> Iterator[Place]:
    for uri in read_lines(path):
        yield LeftOut() if uri is None else uri if isinstance(uri, TooLong) else Found(uri)
