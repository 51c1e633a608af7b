"""Extracts a tarball into a directory: reads it to its end, checks its checksum, and limits its size."""

from __future__ import annotations

import gzip
import tarfile
import tempfile
import zlib
from pathlib import Path, PurePosixPath
from typing import IO, cast

from beamlabel.transforms.inference.artifact import ModuleError

# Bytes. The largest SavedModel holds a graph of 2 GB and its variables.
MAX_BYTES = 8 << 30
MAX_MEMBERS = 10_000
MAX_DEPTH, MAX_NAME_BYTES = 32, 1024
# Weights hardly compress; a tarball that unpacks to more than _FREE_BYTES and this many times its size is a bomb.
MAX_RATIO = 100
_FREE_BYTES = 64 << 20
_GZIP, _BLOCK = b"\x1f\x8b", 1 << 20
_DAMAGED = (tarfile.TarError, gzip.BadGzipFile, EOFError, zlib.error)
# Errors of Python's reader for nested headers, impossible times, names with a NUL, and the like.
_NONSENSE = (ArithmeticError, LookupError, RecursionError, TypeError, ValueError)


def extract_tar(stream: IO[bytes], directory: Path) -> None:
    """Extracts a tarball, compressed by gzip or not.

    Extracts files and directories only: no links, devices or sparse files, and no path that leads out of the directory
    (the ``data`` filter, PEP 706). Reads the whole stream first, so that no part of a damaged one is written: gzip's
    checksum covers the content, and only zeros may follow the end of the archive.

    Args:
      stream: read to its end, in one pass.
      directory: an existing directory.

    Raises:
      ModuleError: not a tarball, damaged, truncated, larger than ``MAX_BYTES``, ``MAX_RATIO`` and the other bounds
        allow, or with members that are refused.
    """
    try:
        # Inside the directory, whose growth shows waiting processes that the download continues.
        with tempfile.NamedTemporaryFile(prefix=".beamlabel-", dir=directory) as plain:
            _unpack(cast("IO[bytes]", _Counted(stream)), plain)
            plain.seek(0)
            with tarfile.open(fileobj=plain, mode="r:") as tar:
                members = _checked(tar)
                _check_end(plain, tar.offset)
                tar.extractall(directory, members, filter="data")
    except tarfile.FilterError as error:
        raise ModuleError(f"the tarball is unsafe to extract: {error}") from error
    except ModuleError:
        raise
    except (*_DAMAGED, *_NONSENSE) as error:
        raise ModuleError(f"not a whole tarball: {error}") from error


class _Counted:
    """Counts the bytes read from a stream."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._begin = b""
        self.count = 0

    def peek_two(self) -> bytes:
        """The first two bytes; ``read`` returns them again."""
        while len(self._begin) < 2 and (more := self._stream.read(2 - len(self._begin))):
            self._begin += more
        return self._begin

    def read(self, size: int = -1) -> bytes:
        if self._begin:
            data, self._begin = self._begin, b""
        else:
            data = self._stream.read(size)
        self.count += len(data)
        return data


def _unpack(stream: IO[bytes], plain: IO[bytes]) -> None:
    counted = cast(_Counted, stream)
    is_gzip = counted.peek_two() == _GZIP
    # Python's gzip reader checks the checksums, reads all members, and refuses other data after them.
    source = gzip.GzipFile(fileobj=stream, mode="rb") if is_gzip else stream
    size = 0
    while block := source.read(_BLOCK):
        size += len(block)
        if size > MAX_BYTES:
            raise ModuleError(f"the tarball unpacks to more than {MAX_BYTES >> 30} GiB")
        if is_gzip and size > _FREE_BYTES + MAX_RATIO * counted.count:
            raise ModuleError(
                f"the tarball unpacks to more than {MAX_RATIO} times its size: {counted.count} bytes gave {size}"
            )
        plain.write(block)


def _checked(tar: tarfile.TarFile) -> list[tarfile.TarInfo]:
    members: list[tarfile.TarInfo] = []
    names: set[PurePosixPath] = set()
    size = 0
    for member in tar:
        name = PurePosixPath(member.name)
        if member.size < 0 or ".." in name.parts:
            raise ModuleError(
                f"the tarball is unsafe to extract: {member.name[:80]!r} ({member.size} bytes) has a bad name or size"
            )
        if len(members) == MAX_MEMBERS:
            raise ModuleError(f"the tarball has more than {MAX_MEMBERS} members")
        if (
            len(name.parts) > MAX_DEPTH
            or len(member.name.encode("utf-8", "surrogateescape")) > MAX_NAME_BYTES
        ):
            raise ModuleError(
                f"the tarball is unsafe to extract: a name is deeper than {MAX_DEPTH} directories or longer than "
                f"{MAX_NAME_BYTES} bytes: {member.name[:80]!r}…"
            )
        if not (member.isreg() or member.isdir()) or member.issparse():
            raise ModuleError(
                f"the tarball is unsafe to extract: {member.name!r} is {_kind(member)}, but a module consists of "
                "files and directories; tar -h packs the targets of links"
            )
        if member.isreg() and name in names:
            raise ModuleError(f"the tarball holds {member.name!r} twice")
        size += member.size
        if size > MAX_BYTES:
            raise ModuleError(f"the tarball unpacks to more than {MAX_BYTES >> 30} GiB")
        names.add(name)
        members.append(member)
    return members


def _kind(member: tarfile.TarInfo) -> str:
    if member.issym() or member.islnk():
        return f"a link to {member.linkname!r}"
    return "a sparse file" if member.issparse() else "a device or a pipe"


def _check_end(plain: IO[bytes], offset: int) -> None:
    """Raises ``ModuleError`` unless an archive ends at ``offset`` and only zeros follow."""
    plain.seek(offset)
    size = 0
    while block := plain.read(_BLOCK):
        if block.strip(b"\0"):
            raise ModuleError(
                f"not a whole tarball: at byte {offset} neither a member begins nor the archive ends"
            )
        size += len(block)
    if size < tarfile.BLOCKSIZE:
        raise ModuleError("not a whole tarball: its end is missing")
