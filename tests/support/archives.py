"""Archives for the tests: written by Python's own modules, or byte by byte if these cannot write them."""

from __future__ import annotations

import io
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Mapping

from beamlabel.transforms.inputs.archives.entries import Broken, Entry
from beamlabel.transforms.inputs.archives.tar import tar_entries
from beamlabel.transforms.inputs.archives.windows import FileWindow, StreamWindow
from beamlabel.transforms.inputs.archives.zip import zip_entries


def tar(members: Mapping[str, bytes] | Iterable[tuple[str, bytes]], **options: object) -> bytes:
    """A tar of files."""
    pairs = members.items() if isinstance(members, Mapping) else members
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", **options) as archive:  # type: ignore[call-overload]
        for name, data in pairs:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def tar_member(name: str, data: bytes = b"", **attributes: object) -> bytes:
    """Header and bytes of one member, with the given attributes of ``TarInfo``."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for attribute, value in attributes.items():
        setattr(info, attribute, value)
    return info.tobuf(tarfile.GNU_FORMAT) + padded(data)


def padded(data: bytes) -> bytes:
    """The data, padded to whole blocks."""
    return data + bytes(-len(data) % tarfile.BLOCKSIZE)


def with_checksum(header: bytes) -> bytes:
    """The header with a correct checksum."""
    blank = header[:148] + b" " * 8 + header[156:512]
    return blank[:148] + b"%06o\0 " % sum(blank) + blank[156:] + header[512:]


def zipped(members: Mapping[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A zip of files."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def zip_by_hand(
    data: bytes,
    *,
    name: bytes = b"a.jpg",
    local_name: bytes | None = None,
    size: int | None = None,
    method: int = 8,
    flags: int = 0,
    crc32: int | None = None,
    attributes: int = 0,
    entries: int = 1,
    disk: int = 0,
) -> bytes:
    """A zip of one member with arbitrary headers; its directory may list the member several times."""
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = deflate.compress(data) + deflate.flush() if method == 8 else data
    crc32 = zlib.crc32(data) if crc32 is None else crc32
    size = len(data) if size is None else size
    common = struct.pack("<2H2H3L", flags, method, 0, 0x21, crc32, len(packed), size)
    shown = name if local_name is None else local_name
    local = b"PK\3\4" + struct.pack("<H", 20) + common + struct.pack("<2H", len(shown), 0) + shown + packed
    central = b"PK\1\2" + struct.pack("<2H", 3 << 8 | 20, 20) + common
    central += struct.pack("<5H2L", len(name), 0, 0, disk, 0, attributes << 16, 0) + name
    end = struct.pack(
        "<4s4H2LH", b"PK\5\6", disk, disk, entries, entries, len(central) * entries, len(local), 0
    )
    return local + central * entries + end


def entries_of(data: bytes, *, kind: str = "tar", stream: bool = False) -> list[Entry | Broken]:
    """The members of an in-memory archive."""
    file = io.BytesIO(data)
    if kind == "zip":
        return list(zip_entries(FileWindow(file, len(data), sparing=False)))
    return list(tar_entries(StreamWindow(file) if stream else FileWindow(file, len(data), sparing=True)))
