"""The fuzzed parsers: each of beamlabel's own parsers of foreign bytes, and the errors that it may raise."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import os
import random
import struct
import tempfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from beamlabel.transforms.decoding import formats
from beamlabel.transforms.decoding.in_place import decode_in_place
from beamlabel.transforms.decoding.picture import jpeg_header
from beamlabel.transforms.decoding.picture.exif import exif_orientation
from beamlabel.transforms.decoding.picture.limits import in_place
from beamlabel.transforms.decoding.picture.options import DecodeOptions
from beamlabel.transforms.decoding.readers.avif_frames import frame_sizes
from beamlabel.transforms.decoding.readers.tiff_tags import read_tags
from beamlabel.transforms.decoding.thumbnail import thumbnail
from beamlabel.transforms.hub.tarball import extract_tar
from beamlabel.transforms.inference.artifact import ModuleError
from beamlabel.transforms.inputs.archives.entries import ArchiveError, Broken
from beamlabel.transforms.inputs.archives.open_archive import open_archive
from beamlabel.transforms.inputs.archives.tar import tar_entries
from beamlabel.transforms.inputs.archives.windows import FileWindow
from beamlabel.transforms.inputs.archives.zip import zip_entries
from beamlabel.transforms.inputs.file_kinds import content_format, is_image
from beamlabel.transforms.inputs.parquet.page_guard import (
    Chunk,
    DamagedPageError,
    LargePageError,
    PageGuard,
    TooManyRowsError,
)
from beamlabel.transforms.inputs.parquet.page_index import CompactReader, OffsetIndexes, page_rows, walk_pages
from beamlabel.transforms.inputs.parquet_rows import check_parquet
from beamlabel.transforms.inputs.parquet_source import choose_columns, open_parquet
from beamlabel.transforms.inputs.selection import Selection
from beamlabel.transforms.inputs.sources.source import SourceOptions
from beamlabel.transforms.inputs.tables.csv_records import csv_records
from beamlabel.transforms.inputs.tables.json_records import json_records
from beamlabel.transforms.inputs.text_blocks import lines_of, parse_line, read_lines
from beamlabel.transforms.records import Failure, ImageError, InputFile
from beamlabel.transforms.units.open_unit import open_unit
from beamlabel.transforms.units.plan_units import plan_files

MAX_PIXELS = 1 << 14
_OPTIONS = DecodeOptions(8, 8, max_pixels=MAX_PIXELS)
_DIRECTORY = tempfile.TemporaryDirectory(
    prefix="beamlabel-fuzz-",
    dir="/dev/shm" if os.path.isdir("/dev/shm") else None,  # noqa: PTH112
)


class WrongError(AssertionError):
    """A parser returned a wrong result."""


def check(is_right: bool, what: object) -> None:
    if not is_right:
        raise WrongError(str(what)[:200])


def jpeg_segments(data: bytes) -> None:
    header = jpeg_header.read_header(data)
    check(1 <= header.orientation <= 8 and header.width > 0 and header.height > 0, header[:2])
    jpeg_header.without_garbage(data)
    if jpeg_header.has_several_scans(data, header):
        jpeg_header.check_scans(data, header)


def sniffing(data: bytes) -> None:
    formats._reader(data)
    formats._not_decoded(data)
    is_image(data[:64])
    kind = content_format(data[:4096])
    check(kind in ("parquet", "image", "tar", "zip", "text", "binary"), kind)


def pictures(data: bytes) -> None:
    with in_place():
        decoded = decode_in_place(data, _OPTIONS)
    check(decoded.pixels.shape == (8, 8, 3) and decoded.pixels.dtype == np.uint8, decoded.pixels.shape)
    check(0 < decoded.width * decoded.height <= MAX_PIXELS, (decoded.width, decoded.height))


def orientation(data: bytes) -> None:
    found = exif_orientation(data)
    check(isinstance(found, int) and 1 <= found <= 8, found)


def thumbnails(data: bytes) -> None:
    if len(data) < 7:
        return
    height, width = (1 + side % 700 for side in struct.unpack_from("<HH", data))
    pixels = np.resize(np.frombuffer(data[4:], np.uint8), (height, width, 3))
    encoded = thumbnail(np.ascontiguousarray(pixels))
    check(encoded[:2] == b"\xff\xd8" and encoded[-2:] == b"\xff\xd9", encoded[:4])


def avif_sizes(data: bytes) -> None:
    for width, height in frame_sizes(data):
        check(width > 0 and height > 0, (width, height))


def tiff_directory(data: bytes) -> None:
    read_tags(data)


def thrift(data: bytes) -> None:
    for parse in (lambda: CompactReader(data).struct(), lambda: page_rows(data)):
        try:
            parse()
        except ValueError:
            continue


class _File:
    """The methods of a file that the parsers of Parquet and zip call."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = {0: 0, 1: self._at, 2: len(self._data)}[whence] + offset
        check(self._at >= 0, f"sought to {self._at}")
        return self._at

    def read(self, size: int = -1) -> bytes:
        check(size >= 0, f"read of {size} bytes")
        part = self._data[self._at : self._at + size]
        self._at += len(part)
        return part


def parquet_pages(data: bytes) -> None:
    file: Any = _File(data)
    for parse in (lambda: OffsetIndexes(file), lambda: walk_pages(file, 0, len(data), 1000)):
        try:
            parse()
        except ValueError:
            continue
    for kind, has_lists in (("BYTE_ARRAY", False), ("BYTE_ARRAY", True), ("INT64", False)):
        guard = PageGuard()
        guard.watch([Chunk(0, len(data), "uri", kind, "SNAPPY", has_lists)], 4096)
        try:
            for start in range(0, len(data), 700):
                guard.see(start, data[start : start + 700])
        except (TooManyRowsError, LargePageError, DamagedPageError):
            continue


def _outcomes(path: str, file: InputFile, made: SourceOptions) -> None:
    selection = Selection(made.selection)
    for unit in plan_files([(0, file)], made):
        *refs, end = open_unit(unit, made, selection)
        check(end.sent == len(refs), (end.sent, len(refs)))
        for ref in refs:
            check(not isinstance(ref, Failure) or bool(ref.detail), ref)


def parquet_file(data: bytes) -> None:
    path = _written("list.parquet", data)
    with open_parquet(path) as file:
        if file.metadata.num_rows > 10_000:
            return
        columns = choose_columns(file.schema_arrow, uri=None, image=None, kept=(), path=path)
    check_parquet(path, columns)
    _outcomes(path, InputFile(path, "parquet"), SourceOptions("/", columns, shard_rows=50))


def text_lines(data: bytes) -> None:
    whole = list(lines_of(iter([data]), 40))
    cut = list(lines_of((data[at : at + 7] for at in range(0, len(data), 7)), 40))
    check(whole == cut and [type(one) for one in whole] == [type(one) for one in cut], "blocks matter")
    size = sum(getattr(line, "size", len(line)) for line in whole)
    check(size == len(data), (size, len(data)))
    list(map(parse_line, whole))


def text_file(data: bytes) -> None:
    for one in read_lines(_written("list.txt", data)):
        check(one is None or isinstance(one, tuple) or bool(one.strip()), repr(one))


def tables(data: bytes) -> None:
    for records in (json_records, functools.partial(csv_records, delimiter=",")):
        raw = b"".join(record.raw for record in records(iter([data])))
        check(raw == data, f"{records}: {len(raw)} bytes of {len(data)}")


def tars(data: bytes) -> None:
    _entries(tar_entries(_window(data)))


def zips(data: bytes) -> None:
    _entries(zip_entries(_window(data)))
    path = _written("images.zip", data)
    file = InputFile(path, "zip", size=len(data))
    with open_archive(file, sparing=True) as archive:
        for entry in itertools.islice(archive.entries(), 20):
            if not isinstance(entry, Broken) and entry.problem is None and entry.size < 1 << 20:
                try:
                    archive.read(entry)
                except ArchiveError:
                    continue


def compressed_tars(data: bytes) -> None:
    path = _written("images.tar.gz", data)
    with open_archive(InputFile(path, "tar", size=len(data)), sparing=True) as archive:
        _entries(archive.entries())


def hub_tarball(data: bytes) -> None:
    with tempfile.TemporaryDirectory(dir=_DIRECTORY.name) as directory:
        target = Path(directory) / "module"
        target.mkdir()
        with open(_written("module.tar.gz", data), "rb") as stream:  # noqa: PTH123
            extract_tar(stream, target)
        check([path.name for path in Path(directory).iterdir()] == ["module"], "a file outside the directory")


def _window(data: bytes) -> FileWindow:
    file: Any = _File(data)
    return FileWindow(file, len(data), sparing=True)


def _entries(entries: Iterator[Any]) -> None:
    for entry in itertools.islice(entries, 5000):
        check(isinstance(entry, Broken) or (entry.size >= 0 and entry.offset >= 0), entry)


def _written(name: str, data: bytes) -> str:
    path = os.path.join(_DIRECTORY.name, name)  # noqa: PTH118
    with open(path, "wb") as file:  # noqa: PTH123
        file.write(data)
    return path


@dataclasses.dataclass(frozen=True)
class Target:
    """A parser.

    Attributes:
      name: its name in reports.
      parse: the function, called with any bytes.
      errors: errors that it may raise.
    """

    name: str
    parse: Callable[[bytes], None]
    errors: tuple[type[BaseException], ...] = ()


TARGETS = (
    Target("JPEG segments and scans", jpeg_segments, (ImageError,)),
    Target("first bytes", sniffing),
    Target("pictures", pictures, (ImageError, MemoryError)),
    Target("EXIF", orientation),
    Target("thumbnail", thumbnails),
    Target("AV1 frames", avif_sizes, (ImageError,)),
    Target("TIFF directory", tiff_directory, (ImageError,)),
    Target("Thrift", thrift),
    Target("Parquet pages", parquet_pages),
    Target("Parquet file", parquet_file, (ValueError,)),
    Target("lines", text_lines),
    Target("list, plain or compressed", text_file, (ValueError,)),
    Target("CSV and JSON lines", tables),
    Target("tar", tars),
    Target("zip", zips, (ValueError, ArchiveError)),
    Target("compressed tar", compressed_tars, (ValueError, ArchiveError)),
    Target("module's tarball", hub_tarball, (ModuleError,)),
)
"""All targets; the first byte of an input selects one."""


def run(data: bytes) -> None:
    """Parses ``data`` with the target of its first byte; raises errors that the target must not raise."""
    if not data:
        return
    target = TARGETS[data[0] % len(TARGETS)]
    try:
        target.parse(data[1:])
    except target.errors:
        return


def seeds(most: int) -> Iterator[bytes]:
    """Yields valid inputs of fewer than ``most`` bytes, from the tests' corpus and made here."""
    from support.corpus import corpus
    from support.images import every_kind

    numbers = {target.name: bytes((number,)) for number, target in enumerate(TARGETS)}
    files = [file.data for file in corpus() if len(file.data) < most] + [
        data for data in every_kind().values() if len(data) < most
    ]
    for place, data in enumerate(files):
        if place % 5 == 0:  # decoding takes a hundred times as long as reading headers
            yield numbers["pictures"] + data
        yield numbers["first bytes"] + data[:200]
        if data.startswith(b"\xff\xd8"):
            yield numbers["JPEG segments and scans"] + data
            if (at := data.find(b"Exif\0\0")) > 0:
                yield numbers["EXIF"] + data[at : at + 200]
        if data[4:8] == b"ftyp":
            yield numbers["AV1 frames"] + data
        if data[:2] in (b"II", b"MM"):
            yield numbers["TIFF directory"] + data
    yield numbers["thumbnail"] + b"\x20\0\x30\0" + random.Random(0).randbytes(500)
    yield from (numbers[name] + data for name, data in _other_seeds() if len(data) < most)


def _other_seeds() -> Iterator[tuple[str, bytes]]:
    import gzip
    import io
    import tarfile
    import zipfile

    import pyarrow as pa

    for order in "<>":
        head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "IH", 8, 2)
        entries = struct.pack(order + "HHIHH", 274, 3, 1, 6, 0) + struct.pack(order + "HHII", 274, 4, 2, 40)
        yield from (("EXIF", start + head + entries + bytes(20)) for start in (b"", b"Exif\0\0"))
    for options in ({}, {"use_dictionary": False, "write_page_index": True}, {"data_page_version": "2.0"}):
        sink = io.BytesIO()
        table = pa.table({"uri": [f"{n}.jpg" for n in range(40)], "n": list(range(40))})
        pq.write_table(table, sink, row_group_size=20, store_schema=False, **options)
        data = sink.getvalue()
        footer = data[-8 - int.from_bytes(data[-8:-4], "little") : -8]
        yield from (("Parquet file", data), ("Parquet pages", data[4:]), ("Thrift", footer))
    text = b"a.jpg\r\n# no\n\n\xef\xbb\xbfb.jpg\nhttps://images.example/c.jpg"
    utf16 = "a.jpg\nb.jpg\n".encode("utf-16")
    for data in (text, utf16, gzip.compress(text), gzip.compress(gzip.compress(text)), zlib.compress(text)):
        yield from (("lines", data), ("list, plain or compressed", data))
    yield "CSV and JSON lines", b'uri,n\na.jpg,1\n"b,\n""c""",2\n{"uri": "a", "n": [1, {"x": null}]}\n'
    for kind in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        sink = io.BytesIO()
        with tarfile.open(fileobj=sink, mode="w", format=kind) as tar:
            for name in ("a.jpg", "d" * 120 + "/b.jpg", "saved_model.pb"):
                info = tarfile.TarInfo(name)
                info.size = 5
                tar.addfile(info, io.BytesIO(b"12345"))
        for name in ("tar", "compressed tar", "module's tarball"):
            yield name, sink.getvalue()[:-8192] if name == "tar" else gzip.compress(sink.getvalue())
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        sink = io.BytesIO()
        with zipfile.ZipFile(sink, "w", method) as archive:
            archive.writestr("a.jpg", b"1" * 50)
            archive.writestr("b/é.jpg", b"2" * 50)
        yield "zip", sink.getvalue()
