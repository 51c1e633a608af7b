"""Compressed tars as streams: recognized by their first bytes, inflated in bounded memory and with a size limit."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

import pyarrow as pa

from beamlabel.transforms.inputs.archives.entries import ArchiveError
from beamlabel.transforms.records import Reason

_CHUNK = 64 << 10
# An archive of images hardly shrinks; one that inflates a thousandfold is malicious.
_MAX_RATIO, _FREE_BYTES = 100, 256 << 20
# A dictionary of xz may take 4 GB; at the highest level it takes 64 MB.
_XZ_MEMORY = 256 << 20

_MAGIC = {b"\x1f\x8b": "gzip", b"BZh": "bz2", b"\xfd7zXZ\0": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
_ENDINGS = {
    "gzip": (".tar.gz", ".tgz"),
    "bz2": (".tar.bz2", ".tbz2", ".tbz"),
    "xz": (".tar.xz", ".txz"),
    "zstd": (".tar.zst", ".tzst"),
}
TAR_ENDINGS = (".tar", *(ending for endings in _ENDINGS.values() for ending in endings))
"""The endings of tar names, compressed or not, in lower case."""
ARCHIVE_ENDINGS = (*TAR_ENDINGS, ".zip")
"""The endings of tar and zip names."""


def compression_of(head: bytes) -> str | None:
    """The compression of a file, by its first bytes; None if there is none."""
    return next((kind for magic, kind in _MAGIC.items() if head.startswith(magic)), None)


def is_compressed_tar(head: bytes, path: str) -> bool:
    """Whether a file is a compressed tar, by its first bytes and its name."""
    kind = compression_of(head)
    return kind is not None and path.lower().endswith(_ENDINGS[kind])


class _Counted(io.RawIOBase):
    """A file that counts the bytes read from it and keeps the error of a failed read."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.bytes = 0
        self.error: OSError | None = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            data = self._file.read(len(buffer))
        except OSError as error:
            self.error = error
            raise
        buffer[: len(data)] = data
        self.bytes += len(data)
        return len(data)


class _Decompressed(io.RawIOBase):
    """The output of one of Python's decompressors for a file, which may hold several streams.

    Args:
      file: compressed.
      new: makes a decompressor such as ``bz2.BZ2Decompressor``.
    """

    def __init__(self, file: BinaryIO, new: Callable[[], Any]) -> None:
        self._file, self._new = file, new
        self._decompressor = new()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while True:
            rest = b""
            if self._decompressor.eof:
                rest = self._decompressor.unused_data or self._file.read(_CHUNK)
                # xz may be padded with zeros, in whole words.
                if not rest.strip(b"\0"):
                    return 0
                self._decompressor = self._new()
            elif self._decompressor.needs_input:
                rest = self._file.read(_CHUNK)
                if not rest:
                    raise EOFError("the compressed data end before their end mark")
            data = self._decompressor.decompress(rest, len(buffer))
            if data:
                buffer[: len(data)] = data
                return len(data)


class _Checked(io.RawIOBase):
    """The decompressed bytes; errors become ``ArchiveError``s, and so does exceeding the size limit."""

    def __init__(self, read: Callable[[int], bytes], packed: _Counted) -> None:
        self._read, self._packed = read, packed
        self._bytes = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            data = self._read(len(buffer))
        except (OSError, EOFError, zlib.error, lzma.LZMAError, pa.ArrowException) as error:
            if self._packed.error is not None:  # of the storage, which may be temporary
                raise self._packed.error from error
            is_cut = isinstance(error, EOFError) or "runcated" in str(error)
            reason = Reason.TRUNCATED if is_cut else Reason.CORRUPT
            raise ArchiveError(reason, f"cannot read the rest of the compressed archive: {error}") from error
        buffer[: len(data)] = data
        self._bytes += len(data)
        if self._bytes > _FREE_BYTES + _MAX_RATIO * self._packed.bytes:
            detail = f"the archive inflates to more than {_MAX_RATIO} times its size"
            raise ArchiveError(Reason.TOO_MANY_BYTES, detail)
        return len(data)


@contextmanager
def decompressed(file: BinaryIO, kind: str) -> Iterator[BinaryIO]:
    """The content of a compressed file as a forward-only stream.

    Reading raises ``ArchiveError`` if the file is damaged or a bomb, and ``OSError`` if its storage fails.

    Args:
      file: compressed, at its beginning; stays open.
      kind: from ``compression_of``.
    """
    counted = _Counted(file)
    packed = io.BufferedReader(counted, _CHUNK)
    read: Callable[[int], Any]
    # Each returns the available data up to the requested size, so that the data before any damage are not lost.
    if kind == "gzip":
        read = gzip.GzipFile(fileobj=packed, mode="rb").read1
    elif kind == "zstd":
        read = pa.CompressedInputStream(pa.PythonFile(packed, mode="r"), "zstd").read
    else:
        read = _Decompressed(packed, bz2.BZ2Decompressor if kind == "bz2" else _xz).read
    yield _Checked(read, counted)  # type: ignore[misc]


def _xz() -> lzma.LZMADecompressor:
    return lzma.LZMADecompressor(format=lzma.FORMAT_XZ, memlimit=_XZ_MEMORY)
