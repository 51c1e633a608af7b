"""The members of a zip, by its central directory, and their bytes.

The format is that of PKWARE's APPNOTE 6.3.10 (https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT). A member
consists of two headers and its bytes. The headers have to agree, and the bytes have to match them.
"""

from __future__ import annotations

import stat
import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from beamlabel.transforms.archive_member import Member, Zipped
from beamlabel.transforms.inputs.archives.entries import (
    MOST_BYTES,
    ArchiveError,
    Broken,
    Entry,
    Problem,
    clean_name,
)
from beamlabel.transforms.inputs.archives.windows import Window
from beamlabel.transforms.records import ImageError, Reason, Stage

STORED, DEFLATED = 0, 8
LOCAL_MAGIC, EMPTY_MAGIC = b"PK\3\4", b"PK\5\6"

_END = struct.Struct("<4s4H2LH")
_END_64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR = struct.Struct("<4sLQL")
_CENTRAL = struct.Struct("<4s4B4HL2L5H2L")
_LOCAL = struct.Struct("<4s2B4HL2L2H")
_MAX_COMMENT = 0xFFFF
_IN_64 = 0xFFFFFFFF
_ENCRYPTED, _PATCHED, _STRONG, _UTF8, _MASKED = 0x1, 0x20, 0x40, 0x800, 0x2000
_DESCRIPTOR = 0x8
_UNIX = 3
# Local headers have extra fields of their own, rarely longer than this.
_LOCAL_EXTRA = 256
# Deflated bytes may begin with tables of this size.
_TREES = 512


class _Directory(NamedTuple):
    """The place of the central directory.

    Attributes:
      start: its first byte.
      size: bytes.
      entries: number of its members.
      shift: bytes before the zip, such as a self-extracting program; offsets do not count them.
    """

    start: int
    size: int
    entries: int
    shift: int


class _Header(NamedTuple):
    """An entry of the central directory."""

    name: bytes
    extra: bytes
    flags: int
    method: int
    crc32: int
    packed_size: int
    size: int
    offset: int
    mode: int


def zip_size(window: Window) -> int:
    """The number of members according to a zip.

    Raises:
      ArchiveError: it is damaged.
    """
    return _directory(window).entries


def zip_entries(window: Window) -> Iterator[Entry | Broken]:
    """The members by the central directory, then a ``Broken`` if the rest is unreadable.

    Raises:
      OSError: the archive cannot be read; this may be temporary.
    """
    try:
        directory = _directory(window)
        overlapping = _overlapping(window, directory)
        for number, header in enumerate(_headers(window, directory)):
            problem = _problem(header)
            if number in overlapping:
                problem = Reason.CORRUPT, "the member overlaps others of the zip"
            room = directory.start - header.offset
            name = _name(header)
            zipped = Zipped(header.packed_size, header.method, header.crc32, zlib.crc32(header.name), room)
            size = header.size if header.size <= MOST_BYTES else 0
            yield Entry(clean_name(name), size, header.offset, problem, name.endswith("/"), zipped)
    except ArchiveError as error:
        yield Broken(error.problem)


def _directory(window: Window) -> _Directory:
    assert window.end is not None
    size = window.end
    start = max(size - _END.size - _MAX_COMMENT, 0)
    tail = window.read(start, size - start)
    place = len(tail) - _END.size
    while place >= 0 and not (
        tail.startswith(EMPTY_MAGIC, place)
        and place + _END.size + _END.unpack_from(tail, place)[-1] == len(tail)
    ):
        place = tail.rfind(EMPTY_MAGIC, 0, place + len(EMPTY_MAGIC) - 1)
    if place < 0:
        raise ArchiveError(Reason.TRUNCATED, "the archive's end has no central directory of a zip")
    _, disk, first_disk, here, entries, length, offset, _ = _END.unpack_from(tail, place)
    end = start + place
    if place >= _LOCATOR.size and tail.startswith(b"PK\6\7", place - _LOCATOR.size):
        *_, record, disks = _LOCATOR.unpack_from(tail, place - _LOCATOR.size)
        end, record = _found_64(window, end - _LOCATOR.size, record)
        _, _, _, _, disk, first_disk, here, entries, length, offset = _END_64.unpack(record)
        disk = max(disk, disks - 1)
    if disk or first_disk or here != entries:
        raise ArchiveError(Reason.UNSUPPORTED_FORMAT, "the archive is one part of a multi-part zip")
    begin = end - length
    if begin < offset or length < entries * _CENTRAL.size:
        raise ArchiveError(Reason.CORRUPT, "the zip's end record points to no central directory")
    return _Directory(begin, length, entries, begin - offset)


def _found_64(window: Window, locator: int, told: int) -> tuple[int, bytes]:
    """The offset and bytes of the end record of a zip64: at the place in the locator, or right before it."""
    for offset in (told, locator - _END_64.size):
        record = window.read(offset, _END_64.size) if offset >= 0 else b""
        if record.startswith(b"PK\6\6") and len(record) == _END_64.size:
            return offset, record
    raise ArchiveError(Reason.CORRUPT, "the zip64's locator points to no end record")


def _headers(window: Window, directory: _Directory) -> Iterator[_Header]:
    offset, stop = directory.start, directory.start + directory.size
    for _ in range(directory.entries):
        block = window.read(offset, _CENTRAL.size)
        if len(block) < _CENTRAL.size or not block.startswith(b"PK\1\2"):
            raise ArchiveError(Reason.CORRUPT, f"there is no entry of the central directory at byte {offset}")
        fields = _CENTRAL.unpack(block)
        system, flags, method, crc32, packed_size, size = fields[2], fields[5], fields[6], *fields[9:12]
        name_size, extra_size, comment_size, disk, _, attributes, place = fields[12:]
        rest = window.read(offset + _CENTRAL.size, name_size + extra_size)
        offset += _CENTRAL.size + name_size + extra_size + comment_size
        if offset > stop or len(rest) < name_size + extra_size:
            raise ArchiveError(
                Reason.CORRUPT, "the zip's central directory is longer than its end record says"
            )
        extra = rest[name_size:]
        size, packed_size, place, disk = _in_64(extra, size, packed_size, place, disk)
        if disk:
            raise ArchiveError(Reason.UNSUPPORTED_FORMAT, "the archive is one part of a multi-part zip")
        mode = attributes >> 16 if system == _UNIX else 0
        yield _Header(
            rest[:name_size], extra, flags, method, crc32, packed_size, size, place + directory.shift, mode
        )


def _fields(extra: bytes) -> Iterator[tuple[int, bytes]]:
    place = 0
    while place + 4 <= len(extra):
        kind, size = struct.unpack_from("<2H", extra, place)
        yield kind, extra[place + 4 : place + 4 + size]
        place += 4 + size


def _in_64(extra: bytes, *values: int) -> list[int]:
    """The values of a header; those that do not fit come from the zip64 field."""
    found = dict(_fields(extra)).get(1, b"")
    wide: list[int] = []
    for value in values:
        is_disk = len(wide) == 3
        if value != (0xFFFF if is_disk else _IN_64):
            wide.append(value)
            continue
        size = 4 if is_disk else 8
        if len(found) < size:
            raise ArchiveError(Reason.CORRUPT, "a member of the zip64 lacks its size or place")
        wide.append(int.from_bytes(found[:size], "little"))
        found = found[size:]
    return wide


def _overlapping(window: Window, directory: _Directory) -> frozenset[int]:
    """The numbers of members whose bytes overlap those of others, or the central directory."""
    starts, ends = np.zeros(directory.entries, np.float64), np.zeros(directory.entries, np.float64)
    for number, header in enumerate(_headers(window, directory)):
        starts[number] = header.offset
        ends[number] = header.offset + _LOCAL.size + len(header.name) + header.packed_size
    order = np.lexsort((ends, starts))
    starts, ends = starts[order], ends[order]
    bad = ends > directory.start
    bad[1:] |= starts[1:] < np.maximum.accumulate(ends)[:-1]
    bad[:-1] |= ends[:-1] > starts[1:]
    return frozenset(order[bad].tolist())


def _name(header: _Header) -> str:
    if header.flags & _UTF8:
        return header.name.decode("utf-8", "surrogateescape")
    for kind, value in _fields(header.extra):
        # Info-ZIP's Unicode Path: a version, the CRC of the plain name, and the name.
        if (
            kind == 0x7075
            and value[:1] == b"\1"
            and value[1:5] == zlib.crc32(header.name).to_bytes(4, "little")
        ):
            return value[5:].decode("utf-8", "surrogateescape")
    # macOS and others write UTF-8 without the flag; other text is hardly ever valid UTF-8.
    try:
        return header.name.decode("utf-8")
    except UnicodeDecodeError:
        return header.name.decode("cp437")


def _problem(header: _Header) -> Problem | None:
    kind = stat.S_IFMT(header.mode)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        what = "a symbolic link" if kind == stat.S_IFLNK else "a device or pipe"
        return Reason.NOT_A_FILE, f"the archive's member is {what}"
    if header.size > MOST_BYTES:
        return Reason.CORRUPT, "the member of the zip claims an impossible size"
    if header.flags & (_ENCRYPTED | _STRONG | _MASKED):
        return Reason.UNSUPPORTED_FORMAT, "the member of the zip is encrypted"
    if header.flags & _PATCHED or header.method not in (STORED, DEFLATED):
        return (
            Reason.UNSUPPORTED_FORMAT,
            f"the member of the zip has the unsupported compression method {header.method}",
        )
    if header.method == STORED and header.packed_size != header.size:
        return Reason.CORRUPT, "the stored member of the zip has two different sizes"
    return None


def packed_range(member: Member) -> tuple[int, int]:
    """Offset and length that most likely cover a member with its local header."""
    assert member.zipped is not None
    size = _LOCAL.size + _LOCAL_EXTRA + member.zipped.packed_size
    return member.offset, min(size, member.zipped.room)


def unpacked(window: Window, member: Member, *, most: int | None = None) -> bytes:
    """The bytes of a member, after a check of its headers and its checksum.

    Args:
      window: over the archive.
      member: of the zip.
      most: the number of first bytes to read, without the checksum; None: all.

    Raises:
      ImageError: the bytes do not match the headers.
    """
    zipped = member.zipped
    assert zipped is not None
    wanted = zipped.packed_size if most is None else min(zipped.packed_size, most + _TREES)
    block = window.read(member.offset, min(_LOCAL.size + _LOCAL_EXTRA + wanted, zipped.room))
    if len(block) >= _LOCAL.size:
        needed = _LOCAL.size + sum(_LOCAL.unpack_from(block)[-2:])
        if len(block) < needed <= zipped.room:
            block = window.read(member.offset, needed)
    data_at = _data_offset(block, member)
    packed = block[data_at : data_at + wanted]
    if len(packed) < wanted:
        place = data_at + len(packed)
        packed += window.read(member.offset + place, min(wanted - len(packed), zipped.room - place))
    if len(packed) < wanted:
        raise _corrupt(Reason.TRUNCATED, "the zip ends within the member")
    limit = member.size if most is None else min(member.size, most)
    data = packed if zipped.method == STORED else _inflated(packed, limit, whole=most is None)
    if most is not None:
        return data[:most]
    if len(data) != member.size:
        raise _corrupt(
            Reason.CORRUPT, f"the member has {len(data)} bytes, but the zip's headers say {member.size}"
        )
    if zlib.crc32(data) != zipped.crc32:
        raise _corrupt(Reason.CORRUPT, "the checksum of the zip's member does not match")
    return data


def _data_offset(block: bytes, member: Member) -> int:
    """The offset of the bytes after a local header, which has to agree with the central directory."""
    zipped = member.zipped
    assert zipped is not None
    if len(block) < _LOCAL.size or not block.startswith(LOCAL_MAGIC):
        raise _corrupt(
            Reason.CORRUPT,
            "the zip's central directory points to no header of this member",
        )
    fields = _LOCAL.unpack_from(block)
    flags, method, crc32, packed_size, size, name_size, extra_size = fields[3], fields[4], *fields[7:]
    name = block[_LOCAL.size : _LOCAL.size + name_size]
    extra = block[_LOCAL.size + name_size : _LOCAL.size + name_size + extra_size]
    try:
        size, packed_size = _in_64(extra, size, packed_size)
    except ArchiveError:
        size = packed_size = -1
    told = (crc32, packed_size, size)
    expected = (zipped.crc32, zipped.packed_size, member.size)
    # With a descriptor after the bytes, the header may have been written before they were known.
    is_open = flags & _DESCRIPTOR and all(
        one in (0, other) for one, other in zip(told, expected, strict=True)
    )
    same = told == expected or is_open
    if method != zipped.method or zlib.crc32(name) != zipped.name_crc32 or not same:
        raise _corrupt(Reason.CORRUPT, "the zip's member and its central directory differ")
    if flags & (_ENCRYPTED | _STRONG):
        raise _corrupt(Reason.UNSUPPORTED_FORMAT, "the member of the zip is encrypted")
    return _LOCAL.size + name_size + extra_size


def _inflated(packed: bytes, limit: int, *, whole: bool) -> bytes:
    inflate = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        data = inflate.decompress(packed, limit + 1)
    except zlib.error as error:
        raise _corrupt(Reason.CORRUPT, f"cannot inflate the zip's member: {error}") from error
    if len(data) > limit and whole:
        raise _corrupt(
            Reason.CORRUPT, f"the zip's member is larger than the {limit} bytes in the zip's headers"
        )
    return data


def _corrupt(reason: Reason, detail: str) -> ImageError:
    return ImageError(Stage.FETCH, reason, detail)
