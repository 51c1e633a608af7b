"""The TFRecord file format, without TensorFlow.

Beam has a public transform that writes TFRecords but no public function, and tfx-bsl has neither. The
format, as TensorFlow documents it (https://www.tensorflow.org/tutorials/load_data/tfrecord), is for each
record::

    uint64  length, little endian
    uint32  masked CRC-32C of the length
    bytes   data
    uint32  masked CRC-32C of the data

with ``masked(crc) = ((crc >> 15) | (crc << 17)) + 0xa282ead8``, modulo 2³².
"""

from __future__ import annotations

import gzip
import struct
from collections.abc import Iterable, Iterator
from typing import BinaryIO

import google_crc32c

_LENGTH = struct.Struct("<Q")
_CRC = struct.Struct("<I")
# zlib's own default: level 9 takes twice as long for one percent.
_GZIP_LEVEL = 6


def write_records(file: BinaryIO, records: Iterable[bytes], *, compression: str = "none") -> None:
    """Writes records, framed, to an open file.

    Args:
      file: open for writing; stays open.
      records: the serialized records.
      compression: ``none`` or ``gzip``. The same records give the same bytes: no time stamp, no name.
    """
    if compression == "none":
        _write_framed(file, records)
        return
    with gzip.GzipFile(filename="", mode="wb", compresslevel=_GZIP_LEVEL, fileobj=file, mtime=0) as zipped:
        _write_framed(zipped, records)


def read_records(file: BinaryIO, *, compression: str = "none") -> Iterator[bytes]:
    """The records of an open file, in a streaming way.

    Raises:
      ValueError: the file is cut off, or a checksum is wrong.
      OSError: it cannot be read, or is not gzip.
    """
    if compression == "none":
        yield from _read_framed(file)
        return
    with gzip.GzipFile(mode="rb", fileobj=file) as zipped:
        yield from _read_framed(zipped)


def _read_framed(file: BinaryIO | gzip.GzipFile) -> Iterator[bytes]:
    while length := file.read(_LENGTH.size):
        head_crc = file.read(_CRC.size)
        if len(length) < _LENGTH.size or head_crc != _masked_crc(length):
            raise ValueError("the TFRecord file is damaged: a record's length is wrong")
        (size,) = _LENGTH.unpack(length)
        record = file.read(size)
        if len(record) < size or file.read(_CRC.size) != _masked_crc(record):
            raise ValueError("the TFRecord file is cut off or damaged")
        yield record


def _write_framed(file: BinaryIO | gzip.GzipFile, records: Iterable[bytes]) -> None:
    for record in records:
        length = _LENGTH.pack(len(record))
        file.write(b"".join((length, _masked_crc(length), record, _masked_crc(record))))


def _masked_crc(data: bytes) -> bytes:
    crc = google_crc32c.value(data)
    return _CRC.pack((((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF)
