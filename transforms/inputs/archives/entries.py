"""What an archive holds, as its headers say it, and which names are refused."""

from __future__ import annotations

import re
from dataclasses import dataclass

from beamlabel.transforms.archive_member import Member, Zipped
from beamlabel.transforms.records import Reason

Problem = tuple[Reason, str]
"""Why a member, or the rest of an archive, cannot be read: reason and detail."""


@dataclass(frozen=True)
class Entry:
    """A member.

    Attributes:
      name: as ``clean_name`` gives it; bytes that are no UTF-8 as Python's file names have them.
      size: bytes, as the header says.
      offset: of its first byte; in a zip of its local header.
      problem: why it cannot be read, if that is known already.
      is_folder: whether it is a folder, which is neither an image nor left out.
      zipped: of a member of a zip, else None.
    """

    name: str
    size: int
    offset: int
    problem: Problem | None = None
    is_folder: bool = False
    zipped: Zipped | None = None


@dataclass(frozen=True)
class Broken:
    """The end of what can be read of an archive that is damaged: what else it holds nobody knows."""

    problem: Problem


class ArchiveError(Exception):
    """An archive cannot be read on.

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
    """A member's name without ``./`` before it, which means nothing."""
    return _HERE.sub("", name)


def name_problem(name: str) -> Problem | None:
    """Why a name is refused: it leads out of the folder in which an archive is unpacked, here or on Windows."""
    if _ABSOLUTE.match(name):
        return Reason.INVALID_URI, "the name of the archive's member is absolute"
    if ".." in _SEPARATOR.split(name):
        return Reason.INVALID_URI, "the name of the archive's member leads out of the archive by .."
    if "\0" in name:
        return Reason.INVALID_URI, "the name of the archive's member holds a NUL"
    return None


def member_stat(member: Member) -> tuple[int, str | None]:
    """Size and version of a member: in a zip its checksum, which a zip made anew has too, else the archive's."""
    if member.zipped is not None:
        return member.size, f"crc32:{member.zipped.crc32:08x}"
    return member.size, member.archive_version
