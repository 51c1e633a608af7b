"""The members of a tar, by one pass over its headers.

The formats are those of POSIX.1-2001 (https://pubs.opengroup.org/onlinepubs/9799919799/utilities/pax.html), ustar, the
seventh edition, and GNU tar (https://www.gnu.org/software/tar/manual/html_node/Standard.html).
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator

from beamlabel.transforms.inputs.archives.entries import (
    MOST_BYTES,
    ArchiveError,
    Broken,
    Entry,
    Problem,
    clean_name,
)
from beamlabel.transforms.inputs.archives.windows import Window
from beamlabel.transforms.records import Reason
from beamlabel.transforms.secrets.logs import get_logger

BLOCK = 512
_LOGGER = get_logger(__name__)
# The longest name or extended header: no file system allows longer names, and no tar writes longer headers.
_MAX_EXTENSION = 1 << 20
# After the end mark, tars are padded with zeros to a multiple of their record.
_MAX_PADDING = 4 << 20
_GNU_MAGIC = b"ustar  \0"
_PAX = (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE)
_LONG = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)
# The relevant keywords of PAX headers; of other sparse ones, only their presence matters.
_KEYWORDS = (b"path", b"size", b"GNU.sparse.name")
_SPARSE, _SPARSE_MARK = b"GNU.sparse.", "GNU.sparse.any"
_KINDS = {
    tarfile.LNKTYPE: "a hard link",
    tarfile.SYMTYPE: "a symbolic link",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.FIFOTYPE: "a pipe",
}


def is_tar(head: bytes) -> bool:
    """Whether the first ``BLOCK`` bytes of a file are the header of a tar, by their checksum."""
    try:
        return _header(head[:BLOCK]) is not None
    except (tarfile.HeaderError, ValueError):
        return False


def tar_entries(window: Window) -> Iterator[Entry | Broken]:
    """The members in order, then a ``Broken`` if the rest is unreadable.

    Reading continues into an appended tar (``cat a.tar b.tar``). The end mark may be missing, but not a part of a
    block.

    Raises:
      OSError: the archive cannot be read; this may be temporary.
    """
    try:
        yield from _entries(window)
    except ArchiveError as error:
        yield Broken(error.problem)


def _entries(window: Window) -> Iterator[Entry]:
    offset, extensions, defaults = 0, dict[str, str](), dict[str, str]()
    while True:
        header = _next_header(window, offset)
        if header is None:
            if extensions:
                raise ArchiveError(Reason.TRUNCATED, f"the archive ends at byte {offset}, before the member")
            following = _behind_end(window, offset)
            if following is None:
                return
            offset, defaults = following, {}
            continue
        data = offset + BLOCK
        if header.type in _LONG or header.type in _PAX or header.type == tarfile.XGLTYPE:
            found = _extension(window, header, data)
            (defaults if header.type == tarfile.XGLTYPE else extensions).update(found)
            offset = data + _blocks(header.size)
            continue
        facts, extensions = {**defaults, **extensions}, {}
        size = _size(facts, header, offset)
        if size > MOST_BYTES and _has_data(header):
            raise ArchiveError(Reason.CORRUPT, f"the header at byte {offset} claims an impossible size")
        if header.type == tarfile.GNUTYPE_SPARSE:
            data = _behind_sparse_map(window, data, bool(window.read(offset, BLOCK)[482]))
        offset = data + (_blocks(size) if _has_data(header) else 0)
        problem = _problem(header, facts)
        end = window.end
        if end is not None and _has_data(header) and data + size > end:
            problem = Reason.TRUNCATED, f"the archive ends at byte {end}, within this member"
            yield _entry(header, facts, size, data, problem)
            return
        yield _entry(header, facts, size, data, problem)


def _entry(
    header: tarfile.TarInfo, facts: dict[str, str], size: int, data: int, problem: Problem | None
) -> Entry:
    name = facts.get("GNU.sparse.name") or facts.get("path") or header.name
    is_directory = header.type == tarfile.DIRTYPE or (_has_data(header) and name.endswith("/"))
    return Entry(clean_name(name), size if _has_data(header) else 0, data, problem, is_directory)


def _header(block: bytes) -> tarfile.TarInfo | None:
    """A header; None for a block of zeros."""
    try:
        header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
        return None
    if block[257:265] == _GNU_MAGIC:  # has times in place of a prefix
        header.name = block[:100].partition(b"\0")[0].decode("utf-8", "surrogateescape")
    return header


def _next_header(window: Window, offset: int) -> tarfile.TarInfo | None:
    """The header at an offset; None at the end mark and at the end of the file.

    Raises:
      ArchiveError: there are other data.
    """
    block = window.read(offset, BLOCK)
    if not block:
        end = window.end or 0
        if end != offset:  # tars end with a whole block
            raise ArchiveError(
                Reason.TRUNCATED, f"the archive ends at byte {end}, within a member or after it"
            )
        if offset:
            _LOGGER.warning("The tar ends at byte %d without an end mark; it may have been cut there", end)
        return None
    if len(block) < BLOCK and block.strip(b"\0"):
        raise ArchiveError(Reason.TRUNCATED, f"the archive ends at byte {window.end}, within a header")
    try:
        header = _header(block.ljust(BLOCK, b"\0"))
    except (tarfile.HeaderError, ValueError) as error:
        raise ArchiveError(Reason.CORRUPT, f"there is no member header at byte {offset}: {error}") from error
    if header is not None and header.size < 0:
        raise ArchiveError(Reason.CORRUPT, f"the header at byte {offset} has a negative size")
    return header


def _behind_end(window: Window, offset: int) -> int | None:
    """The offset of another tar after the end mark."""
    for place in range(offset, offset + _MAX_PADDING, BLOCK):
        block = window.read(place, BLOCK)
        if len(block) < BLOCK:
            return None
        if block.strip(b"\0"):
            return place if is_tar(block) else None
    return None


def _extension(window: Window, header: tarfile.TarInfo, offset: int) -> dict[str, str]:
    """The data of an extended header on the next member.

    Raises:
      ArchiveError: it is too long, cut off, or malformed.
    """
    if header.size > _MAX_EXTENSION:
        raise ArchiveError(
            Reason.CORRUPT, f"the extended header of {header.size} bytes at byte {offset} is too long"
        )
    content = window.read(offset, header.size)
    if len(content) < header.size:
        raise ArchiveError(Reason.TRUNCATED, f"the archive ends at byte {window.end}, within a header")
    if header.type == tarfile.GNUTYPE_LONGNAME:
        return {"path": content.partition(b"\0")[0].decode("utf-8", "surrogateescape")}
    if header.type == tarfile.GNUTYPE_LONGLINK:
        return {"linkpath": ""}
    return _records(content, offset)


def _records(content: bytes, offset: int) -> dict[str, str]:
    """The records ``LENGTH KEYWORD=VALUE`` of a PAX header."""
    found, place = {}, 0
    while place < len(content) and content[place]:
        digits, blank, _ = content[place : place + 20].partition(b" ")
        length = int(digits) if digits.isdigit() else 0
        record = content[place : place + length]
        keyword, equals, value = record[len(digits) + 1 : -1].partition(b"=")
        if not blank or len(record) != length or not equals or not record.endswith(b"\n"):
            raise ArchiveError(Reason.CORRUPT, f"the extended header at byte {offset + place} is malformed")
        # The others have no effect here, and a tar can hold any number of them.
        if keyword in _KEYWORDS or keyword.startswith(_SPARSE):
            found[_SPARSE_MARK if keyword not in _KEYWORDS else keyword.decode()] = value.decode(
                "utf-8", "surrogateescape"
            )
        place += length
    return found


def _size(facts: dict[str, str], header: tarfile.TarInfo, offset: int) -> int:
    told = facts.get("size")
    if not told:  # an empty value cancels that of a global header
        return header.size
    if not (told.isascii() and told.isdigit() and len(told) < 20):
        raise ArchiveError(Reason.CORRUPT, f"the extended header before byte {offset} has an invalid size")
    return int(told)


def _has_data(header: tarfile.TarInfo) -> bool:
    """Whether a member's bytes follow its header; according to POSIX, unknown types are read as files."""
    return header.isreg() or header.type not in tarfile.SUPPORTED_TYPES


def _behind_sparse_map(window: Window, offset: int, more: bool) -> int:
    while more:
        block = window.read(offset, BLOCK)
        if len(block) < BLOCK:
            raise ArchiveError(Reason.TRUNCATED, f"the archive ends at byte {window.end}, within a header")
        offset, more = offset + BLOCK, bool(block[504])
    return offset


def _problem(header: tarfile.TarInfo, facts: dict[str, str]) -> Problem | None:
    if header.type == tarfile.GNUTYPE_SPARSE or any(name.startswith("GNU.sparse.") for name in facts):
        return Reason.UNSUPPORTED_FORMAT, "the member of the tar is a sparse file"
    if (kind := _KINDS.get(header.type)) is not None:
        return Reason.NOT_A_FILE, f"the archive's member is {kind}"
    if header.type not in (*tarfile.REGULAR_TYPES, tarfile.DIRTYPE):
        return Reason.UNSUPPORTED_FORMAT, f"the archive's member has the unsupported type {header.type!r}"
    return None


def _blocks(size: int) -> int:
    return (size + BLOCK - 1) // BLOCK * BLOCK
