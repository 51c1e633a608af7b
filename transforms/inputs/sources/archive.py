"""An archive whose members are the images. A unit carries their places; bytes are read by range on loading."""

from __future__ import annotations

import dataclasses
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pyarrow as pa

from beamlabel.transforms.archive_member import Member, Zipped
from beamlabel.transforms.inputs.archives.entries import (
    ArchiveError,
    Broken,
    Entry,
    Problem,
    member_stat,
    name_problem,
)
from beamlabel.transforms.inputs.archives.open_archive import (
    TAR,
    ZIP,
    OpenArchive,
    check_version,
    open_archive,
)
from beamlabel.transforms.inputs.archives.samples import (
    KeptMember,
    LookedAt,
    Value,
    in_samples,
    kept_bytes,
    kept_values,
    stored_value,
)
from beamlabel.transforms.inputs.archives.zip import zip_size
from beamlabel.transforms.inputs.file_kinds import IMAGE_HEAD_BYTES, is_image
from beamlabel.transforms.inputs.packed_refs import references
from beamlabel.transforms.inputs.sources.image_files import FileKind, kind_by_name
from beamlabel.transforms.inputs.sources.packed import Found, LeftOut, Place, plan_packed, unnamed_failure
from beamlabel.transforms.inputs.sources.path_filter import PathFilter
from beamlabel.transforms.inputs.sources.source import (
    Planned,
    Source,
    SourceOptions,
    ref_id,
)
from beamlabel.transforms.inputs.uri_length import too_long_failure, too_many_bytes
from beamlabel.transforms.records import Failure, ImageRef, InputFile, Reason, Stage, WorkUnit, unit_id
from beamlabel.transforms.secrets.logs import get_logger
from beamlabel.transforms.storage.identity import image_id_of_member

ARCHIVES = (TAR, ZIP)
"""The formats of archives."""

_LOGGER = get_logger(__name__)
# The first members of an archive; their size stands for the others'.
_LOOKED_AT = 64


class ArchiveSource(Source):
    """Members of a tar or zip. A row is a member, from 0, also if it is not an image."""

    def plan(
        self, number: int, file: InputFile, options: SourceOptions, limit: int | None
    ) -> Iterator[Planned]:
        selection = options.selection
        chosen = options.sample < 1 or limit is not None or selection.labeled or selection.only
        with open_archive(file, sparing=bool(chosen)) as archive:
            places = _places(archive, options)
            if archive.compression is None:
                yield from plan_packed(number, file, places, options, limit)
            else:
                yield _plan_whole(number, file, places, options, limit)

    def refs(self, unit: WorkUnit, options: SourceOptions) -> Iterator[ImageRef | Failure]:
        return self.wanted_refs(unit, options, lambda _: True, Counter())

    def wanted_refs(
        self, unit: WorkUnit, options: SourceOptions, is_wanted: Callable[[str], bool], left_out: Counter[str]
    ) -> Iterator[ImageRef | Failure]:
        if unit.packed_refs is not None or unit.refs_path is not None:
            refs = _packed_refs(unit, options)
        else:
            # The planner did not read the archive.
            refs = _streamed_refs(unit, options, left_out)
        return (ref for ref in refs if is_wanted(ref.ref_id))

    def estimate(self, file: InputFile, options: SourceOptions) -> int:
        with open_archive(file, sparing=True) as archive:
            if file.format == ZIP:
                try:
                    return zip_size(archive.directory)
                except ArchiveError:
                    return 1
            images = bytes_seen = 0
            for number, entry in enumerate(archive.entries()):
                if number == _LOOKED_AT or isinstance(entry, Broken):
                    return round(images * max(file.size or 0, bytes_seen) / max(bytes_seen, 1))
                images += not entry.is_directory and _may_be_image(entry.name, options.files)
                bytes_seen = entry.offset + entry.size
            return images


def _may_be_image(name: str, wanted: PathFilter) -> bool:
    return kind_by_name(name) in (FileKind.IMAGE, FileKind.UNKNOWN) and wanted.wants_member(name)


class _Image(NamedTuple):
    """A member that is an image, or the unreadable rest of an archive.

    Attributes:
      entry: the member.
      problem: why it fails, if known already.
      values: of the kept columns.
      data: its bytes, if the archive is not seekable.
    """

    entry: Entry | Broken
    problem: Problem | None
    values: list[Value]
    data: bytes | None


def _plan_whole(
    number: int, file: InputFile, places: Iterator[Place], options: SourceOptions, limit: int | None
) -> Planned:
    """The only unit of an archive that is not seekable.

    A worker reads the archive up to ``stop``, or to the end of its byte range.
    """
    if limit is None:
        # Its number of members is unknown, so it shares its unit with no other.
        unit = WorkUnit(unit_id(number, 0), file, 0, 1, last=True, byte_range=(0, file.size or 0))
        return Planned(unit, sys.maxsize)
    stop = planned = 0
    for row, place in enumerate(places) if limit else ():
        if isinstance(place, Found) and options.in_sample(place.uri):
            planned, stop = planned + 1, row + 1
            if planned == limit:
                break
    return Planned(WorkUnit(unit_id(number, 0), file, 0, stop, last=True), planned)


def _places(archive: OpenArchive, options: SourceOptions) -> Iterator[Place]:
    for image in _images(archive, options, with_data=False):
        if isinstance(image, LeftOut):
            yield image
            continue
        rest: dict[str, Any] = {"kept": image.values} if image.values else {}
        if image.problem is not None:
            rest["problem"] = image.problem
        if isinstance(image.entry, Entry):
            member = archive.member(image.entry)
            place = (member.offset, member.size, member.zipped and dataclasses.astuple(member.zipped))
            yield Found(_uri(archive.file, image.entry), None, {"place": place, **rest})
        else:
            yield Found(archive.file.path, None, rest)


def _images(archive: OpenArchive, options: SourceOptions, *, with_data: bool) -> Iterator[_Image | LeftOut]:
    """The members in order, as images or left out; ``with_data``: with the bytes of each image."""
    columns = [KeptMember.parse(f"{each.source}={each.name}") for each in options.columns.kept]
    kinds = [each.type for each in options.columns.kept]
    looked = (_looked_at(entry, archive, options, columns, with_data) for entry in archive.entries())
    for group in in_samples(_to_the_end(looked), grouped=bool(columns)):
        if all(isinstance(member.rest, LeftOut) for member in group):
            yield from (member.rest for member in group)
            continue
        problem, values = None, []
        try:
            values = kept_values(group, columns)
            values = [stored_value(value, kind) for value, kind in zip(values, kinds, strict=True)]
        except ArchiveError as error:
            problem = error.problem
        for member in group:
            if isinstance(member.rest, LeftOut):
                yield member.rest
            else:
                image = member.rest
                yield image._replace(problem=image.problem or problem, values=values)


def _to_the_end(members: Iterator[LookedAt[_Image | LeftOut]]) -> Iterator[LookedAt[_Image | LeftOut]]:
    """The members, and the error that ends an unreadable stream."""
    try:
        for member in members:
            yield member
            if isinstance(member.rest, _Image) and isinstance(member.entry, Broken):
                _LOGGER.warning("%s", member.entry.problem[1])
    except ArchiveError as error:
        yield _broken(Broken(error.problem))


def _broken(entry: Broken) -> LookedAt[_Image | LeftOut]:
    return LookedAt(entry, None, _Image(entry, entry.problem, [], None))


def _looked_at(
    entry: Entry | Broken,
    archive: OpenArchive,
    options: SourceOptions,
    columns: list[KeptMember],
    with_data: bool,
) -> LookedAt[_Image | LeftOut]:
    if isinstance(entry, Broken):
        return _broken(entry)
    kind = _kind(entry, archive, options.files)
    kept = kept_bytes(entry, columns, archive.read) if columns else None
    if kind is not FileKind.IMAGE:
        return LookedAt(entry, kept, LeftOut(None if entry.is_directory else kind.value))
    problem = entry.problem or name_problem(entry.name)
    data = None
    if with_data and problem is None:
        if entry.size > options.max_bytes:
            detail = f"the image has {entry.size} bytes, more than --max_bytes {options.max_bytes}"
            problem = Reason.TOO_MANY_BYTES, detail
        elif not entry.size:
            problem = Reason.EMPTY_FILE, "0 bytes"
        elif options.in_sample(_uri(archive.file, entry)):
            data = archive.read(entry)
            if len(data) < entry.size:
                detail = f"the archive ends at byte {archive.directory.end}, within this member"
                data, problem = None, (Reason.TRUNCATED, detail)
    return LookedAt(entry, kept, _Image(entry, problem, [], data))


def _kind(entry: Entry, archive: OpenArchive, wanted: PathFilter) -> FileKind:
    if entry.is_directory:
        return FileKind.OTHER
    if not wanted.wants_member(entry.name):
        return FileKind.EXCLUDED
    # Two dots are not the dot of a hidden directory.
    kind = kind_by_name(entry.name if name_problem(entry.name) is None else entry.name.rpartition("/")[2])
    if kind is not FileKind.UNKNOWN:
        return kind
    if entry.problem is not None or not entry.size:
        return FileKind.OTHER
    try:
        return FileKind.IMAGE if is_image(archive.read(entry, IMAGE_HEAD_BYTES)) else FileKind.OTHER
    except ArchiveError:
        if archive.compression is not None:  # then the rest is unreadable, too
            raise
        return FileKind.IMAGE  # it fails as an image


def _uri(file: InputFile, entry: Entry) -> str:
    return f"{file.path}#{entry.name}"


def _packed_refs(unit: WorkUnit, options: SourceOptions) -> Iterator[ImageRef | Failure]:
    check_version(unit.input_file)
    for ref in references(unit):
        if (failure := unnamed_failure(ref, unit)) is not None:
            yield failure
            continue
        row, uri, _, rest = ref
        if "place" in rest:
            offset, size, zipped = rest["place"]
            file = unit.input_file
            member = Member(file.path, file.version, offset, size, zipped and Zipped(*zipped))
        else:
            member = None
        yield _ref(unit, options, row, uri, member, rest.get("problem"), rest.get("kept") or [])


def _streamed_refs(
    unit: WorkUnit, options: SourceOptions, left_out: Counter[str]
) -> Iterator[ImageRef | Failure]:
    with open_archive(unit.input_file, sparing=False) as archive:
        for row, image in enumerate(_images(archive, options, with_data=True)):
            if row == unit.stop and unit.byte_range is None:
                return
            if isinstance(image, LeftOut):
                if image.cause is not None:
                    left_out[image.cause] += 1
                continue
            uri, member = unit.input_file.path, None
            if isinstance(image.entry, Entry):
                uri, member = _uri(unit.input_file, image.entry), archive.member(image.entry)
            if not options.in_sample(uri):
                continue
            if (length := too_many_bytes(uri)) is not None:
                yield too_long_failure(length, ref_id(unit.input_file.path, row), row, unit.unit_id)
            else:
                ref = _ref(unit, options, row, uri, member, image.problem, image.values)
                yield (
                    dataclasses.replace(ref, data=image.data, member=None)
                    if isinstance(ref, ImageRef)
                    else ref
                )


def _ref(
    unit: WorkUnit,
    options: SourceOptions,
    row: int,
    uri: str,
    member: Member | None,
    problem: Problem | None,
    values: list[Value],
) -> ImageRef | Failure:
    path = unit.input_file.path
    identity = ref_id(path, row)
    known = None if member is None else image_id_of_member(path, uri[len(path) + 1 :])
    if member is None or problem is not None:
        assert problem is not None
        reason, detail = problem
        size, version = (None, unit.input_file.version) if member is None else member_stat(member)
        return Failure(
            uri, identity, Stage.FETCH, Reason(reason), detail, row, unit.unit_id, known, size, version
        )
    kept = zip(values, options.columns.kept, strict=True)
    return ImageRef(
        uri,
        identity,
        uri,
        row,
        unit.unit_id,
        passthrough=tuple(pa.array([value], column.type) for value, column in kept),
        listing_stat=member_stat(member),
        image_id=known,
        member=member,
    )
