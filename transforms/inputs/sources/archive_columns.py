"""``--keep_columns`` of archives: the kept members, and one type for each in all archives, before the run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from beamlabel.transforms.inputs.archives.entries import ArchiveError, Broken, Entry
from beamlabel.transforms.inputs.archives.open_archive import OpenArchive, open_archive
from beamlabel.transforms.inputs.archives.samples import (
    KEY,
    KeptMember,
    LookedAt,
    SeenValues,
    in_samples,
    kept_bytes,
    kept_values,
    key_and_extension,
)
from beamlabel.transforms.inputs.kept_columns import KeptColumn
from beamlabel.transforms.inputs.sources.image_files import FileKind, kind_by_name
from beamlabel.transforms.inputs.sources.path_filter import PathFilter
from beamlabel.transforms.records import InputFile
from beamlabel.transforms.secrets.logs import get_logger

_SHOWN_EXTENSIONS = 20

_LOGGER = get_logger("beamlabel")


@dataclass
class SeenArchive:
    """The columns in one archive.

    Attributes:
      values: of each column.
      extensions: the number of members with each.
      torn: a sample with members that are not consecutive, if there is one.
    """

    values: list[SeenValues]
    extensions: Counter[str] = field(default_factory=Counter)
    torn: str | None = None


def parse_columns(texts: Sequence[str]) -> list[KeptMember]:
    """Parses the values of ``--keep_columns``.

    Raises:
      ValueError: see ``KeptMember.parse``.
    """
    return [KeptMember.parse(text) for text in texts]


def see_archive(
    file: InputFile, columns: Sequence[KeptMember], wanted: PathFilter, output_format: str, limit: int | None
) -> SeenArchive:
    """Reads the kept members of an archive, and no others.

    Args:
      file: the archive.
      columns: the kept columns.
      wanted: selects the members that are images.
      output_format: ``parquet`` or ``tfrecord``.
      limit: the number of first images to read; None: all.

    Raises:
      OSError, ValueError: the archive cannot be read.
    """
    seen = SeenArchive([SeenValues(column) for column in columns])
    # Keys of incomplete samples: those with an image, and those without.
    lacking: dict[bool, set[int]] = {True: set(), False: set()}
    images = 0
    with open_archive(file, sparing=True) as archive:
        for group in in_samples(_members(archive, columns, wanted, seen), grouped=True):
            first = group[0].entry
            key = key_and_extension(first.name) if isinstance(first, Entry) else None
            has_image = any(member.rest for member in group)
            images += sum(member.rest for member in group)
            try:
                values = kept_values(group, columns)
            except ArchiveError:
                continue  # the reference fails with this error
            if has_image:
                place = f"{file.path}#{key[0] if key else ''}"
                for column, value in zip(seen.values, values, strict=True):
                    column.add(value, place, output_format)
            is_whole = has_image and None not in values
            if key is not None and not is_whole and (has_image or any(value is not None for value in values)):
                lacking[has_image].add(hash(key[0]))
                if hash(key[0]) in lacking[not has_image]:
                    seen.torn = seen.torn or key[0]
            if limit is not None and images >= limit:
                break
    return seen


def _members(
    archive: OpenArchive, columns: Sequence[KeptMember], wanted: PathFilter, seen: SeenArchive
) -> Iterator[LookedAt[bool]]:
    """The members, each with whether it is an image."""
    try:
        for entry in archive.entries():
            if isinstance(entry, Broken):
                return
            split = key_and_extension(entry.name)
            if split is not None and not entry.is_directory:
                seen.extensions[split[1]] += 1
            kind = kind_by_name(entry.name)
            is_image = kind in (FileKind.IMAGE, FileKind.UNKNOWN) and not entry.is_directory
            kept = kept_bytes(entry, columns, archive.read)
            yield LookedAt(entry, kept, is_image and kept is None and wanted.wants_member(entry.name))
    except ArchiveError:
        return  # the run will report the unreadable stream


def unified_members(
    archives: Sequence[tuple[InputFile, SeenArchive]], columns: Sequence[KeptMember]
) -> tuple[KeptColumn, ...]:
    """The columns with types that hold their values in all archives.

    Raises:
      ValueError: no archive has such a member, no type holds all values, or the members of a sample are not
        consecutive.
    """
    extensions = Counter[str]()
    merged = [SeenValues(column) for column in columns]
    for file, seen in archives:
        extensions.update(seen.extensions)
        if seen.torn is not None:
            raise ValueError(
                f"--keep_columns: the members of the sample {seen.torn!r} are not consecutive in {file.path}; write "
                "the archive in the order of its names"
            )
        for whole, part in zip(merged, seen.values, strict=True):
            whole.merge(part)
    for column in columns:
        if column.extension != KEY and not extensions[column.extension] and extensions:
            there = ", ".join(name for name, _ in extensions.most_common(_SHOWN_EXTENSIONS))
            raise ValueError(
                f"--keep_columns {column.source!r}: no member of an archive has this ending; endings: {there}"
            )
    for one in merged:
        if set(one.kinds) == {"null"}:
            _LOGGER.warning("--keep_columns %s: no sample has a value; the column is null", one.column.source)
    return tuple(KeptColumn(one.column.source, one.column.name, one.type()) for one in merged)
