"""The members of an archive according to its headers, and the names that are refused."""

from __future__ import annotations

import re
from dataclasses import dataclass

from beamlabel.transforms.archive_member import Member, Zipped
from beamlabel.transforms.records import Reason

Problem = tuple[Reason, str]
"""Why a member, or the rest of an archive, is unreadable: reason and detail."""


@dataclass(frozen=True)
class Entry:
    """A member.

    Attributes:
      name: from ``clean_name``; bytes that are not UTF-8 are surrogates, as in Python's file names.
      size: bytes, from the header.
      offset: of its first byte; in a zip, of its local header.
      problem: why it is unreadable, if known already.
      is_directory: whether it is a directory, which is neither an image nor left out.
      zipped: for a member of a zip, else None.
    """

    name: str
    size: int
    offset: int
    problem: Problem | None = None
    is_directory: bool = False
    zipped: Zipped | None = None


@dataclass(frozen=True)
class Broken:
    """The end of the readable part of a damaged archive; the rest is unknown."""

    problem: Problem


class ArchiveError(Exception):
    """The rest of an archive is unreadable.

    Attributes:
      problem: reason and detail, for a ``Broken``.
    """

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.problem: Problem = (reason, detail)


_HERE = re.compile(r"^(?:\./+)+")
_SEPARATOR = re.compile(r"[/\\]")
_ABSOLUTE = re.compile(r"[/\\]|[A-Za-z]:[/\\]")


def clean_name(name: str) -> str:
    """A member's name without a leading ``./``, which has no meaning."""
    return _HERE.sub("", name)


def name_problem(name: str) -> Problem | None:
    """Why a name is refused: it leads out of the directory into which an archive is unpacked, here or on Windows."""
    if _ABSOLUTE.match(name):
        return Reason.INVALID_URI, "the name of the archive's member is absolute"
    if ".." in _SEPARATOR.split(name):
        return Reason.INVALID_URI, "the name of the archive's member leads out of the archive with .."
    if "\0" in name:
        return Reason.INVALID_URI, "the name of the archive's member holds a NUL"
    return None


def member_stat(member: Member) -> tuple[int, str | None]:
    """Size and version of a member: in a zip, its checksum, which outlives a new zip; else the archive's version."""
    if member.zipped is not None:
        return member.size, f"crc32:{member.zipped.crc32:08x}"
    return member.size, member.archive_version
