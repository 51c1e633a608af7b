"""The TFRecord file format, without TensorFlow.

Beam has a public transform that writes TFRecords but no public function, and tfx-bsl has neither. The format of a
record, as documented by TensorFlow (https://www.tensorflow.org/tutorials/load_data/tfrecord)::

    uint64  length, little endian
    uint32  masked CRC-32C of the length
    bytes   data
    uint32  masked CRC-32C of the data

with ``masked(crc) = ((crc >> 15) | (crc << 17)) + 0xa282ead8``, modulo 2³².
"""

from __future__ import annotations

import gzip
import struct
import zlib
from collections.abc import Iterable, Iterator
from typing import BinaryIO

import google_crc32c

_LENGTH = struct.Struct("<Q")
_CRC = struct.Struct("<I")
# zlib's default; level 9 takes twice as long and saves one percent.
_GZIP_LEVEL = 6
_GZIP_MAGIC = b"\x1f\x8b"


def write_records(file: BinaryIO, records: Iterable[bytes], *, compression: str = "none") -> None:
    """Writes framed records to an open file.

    Args:
      file: open for writing; stays open.
      records: the serialized records.
      compression: ``none`` or ``gzip``. The same records give the same bytes, without time stamp or name.
    """
    if compression == "none":
        _write_framed(file, records)
        return
    with gzip.GzipFile(filename="", mode="wb", compresslevel=_GZIP_LEVEL, fileobj=file, mtime=0) as zipped:
        _write_framed(zipped, records)


def _write_framed(file: BinaryIO | gzip.GzipFile, records: Iterable[bytes]) -> None:
    for record in records:
        length = _LENGTH.pack(len(record))
        file.write(b"".join((length, _masked_crc(length), record, _masked_crc(record))))


def read_records(file: BinaryIO) -> Iterator[bytes]:
    """Reads and verifies the records of an open file, compressed or not.

    Raises:
      ValueError: A record is damaged or truncated; the message names its number, from 0.
    """
    magic = file.read(len(_GZIP_MAGIC))
    file.seek(0)
    stream = gzip.GzipFile(fileobj=file) if magic == _GZIP_MAGIC else file
    number = 0
    try:
        while head := stream.read(_LENGTH.size + _CRC.size):
            if head[_LENGTH.size :] != _masked_crc(head[: _LENGTH.size]):
                raise ValueError(f"record {number}: the length is damaged or truncated")
            (length,) = _LENGTH.unpack_from(head)
            body = stream.read(length + _CRC.size)
            if len(body) != length + _CRC.size or body[length:] != _masked_crc(body[:length]):
                raise ValueError(f"record {number} is damaged or truncated")
            yield body[:length]
            number += 1
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"record {number}: {error}") from error


def _masked_crc(data: bytes) -> bytes:
    crc = google_crc32c.value(data)
    return _CRC.pack((((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF)
