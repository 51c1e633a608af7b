"""Decodes images made to cost time or memory: ``python benchmarks/bombs.py [NAME ...]``.

Each file holds one extreme of its format: endless metadata, compressed zeros, markers without end, many frames, tiles
or layers, or a large picture in few bytes. The fast readers decode in this process; all others in a child with limits.
The program prints a row for each file, and ends with 1 if a file takes this process more than three seconds of CPU or
512 MB, takes a child a minute more than its deadline, or raises another exception than ``ImageError``. Linux only.
"""

from __future__ import annotations

import argparse
import io
import resource
import struct
import sys
import time
import warnings
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from PIL import Image

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[1] / "tests")]

from beamlabel.transforms.decoding.decode import DecodeOptions, decode  # noqa: E402
from beamlabel.transforms.decoding.in_place import decode_in_place  # noqa: E402
from beamlabel.transforms.decoding.picture.limits import NeedsLimitsError  # noqa: E402
from beamlabel.transforms.records import ImageError  # noqa: E402
from support import attacks, images  # noqa: E402

_OPTIONS = DecodeOptions(16, 16, decode_deadline=5)
_MOST_SECONDS, _MOST_MEGABYTES, _MOST_CHILD_SECONDS = 3.0, 512, 65.0
_SIDE = 9900


def _saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def png_files() -> Iterator[tuple[str, bytes]]:
    """PNG: compressed zeros in each chunk that may be compressed, and many chunks."""
    chunk = images.png_chunk

    def with_chunks(*chunks: bytes) -> bytes:
        return attacks.png(9, 9, 8, 2, *chunks)

    zeros = zlib.compress(bytes(300_000_000), 9)
    yield "PNG, a text of 300 MB (zTXt)", with_chunks(chunk(b"zTXt", b"a\0\0" + zeros))
    yield "PNG, a text of 300 MB (iTXt)", with_chunks(chunk(b"iTXt", b"a\0\1\0\0\0" + zeros))
    yield "PNG, a profile of 300 MB", with_chunks(chunk(b"iCCP", b"a\0\0" + zeros))
    yield (
        "PNG, 8,000 frames without pixels",
        with_chunks(chunk(b"acTL", struct.pack(">II", 8000, 0)), *[chunk(b"fcTL", bytes(26))] * 8000),
    )
    plain = with_chunks()
    head = plain[: plain.index(b"IDAT") - 4]
    yield "PNG, 300 MB of pixels instead of 252 bytes", head + chunk(b"IDAT", zeros) + chunk(b"IEND", b"")
    empty = b"\x78\x01" + b"\0\0\0\xff\xff" * 6_000_000
    yield "PNG, 6 million empty deflate blocks", head + chunk(b"IDAT", empty) + chunk(b"IEND", b"")


def jpeg_files() -> Iterator[tuple[str, bytes]]:
    """JPEG: segments, fill bytes and markers without end, and large pictures."""
    photo, segment = images.photo(), attacks.segment
    plain, progressive = _saved(photo, "JPEG"), _saved(photo, "JPEG", progressive=True)
    start, rest, open_end = plain[:2], plain[2:], plain[:-2]
    code = b"\0" + bytes([0] * 15 + [1]) + b"\0"
    yield "JPEG, 49,000 Huffman tables", start + segment(0xC4, code) * 49_000 + rest
    yield "JPEG, 49,000 quantization tables", start + segment(0xDB, b"\0" + bytes([1] * 64)) * 49_000 + rest
    parts = (segment(0xE2, b"ICC_PROFILE\0" + bytes((n % 256, 255)) + bytes(1000)) for n in range(40_000))
    yield "JPEG, 40,000 parts of a profile", start + b"".join(parts) + rest
    exif = segment(0xE1, b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + bytes(65_000))
    yield "JPEG, 900 EXIF segments", start + exif * 900 + rest
    yield "JPEG, 60 MB of fill bytes", start + b"\xff" * 60_000_000 + rest
    yield "JPEG, 60 MB of stuffed bytes", start + b"\xff\x00" * 30_000_000 + rest
    yield "JPEG, 10 million starts behind it", open_end + b"\xff\xd8\xff" * 10_000_000
    yield "JPEG, 4 million boxes behind it", open_end + b"abcdftyp" * 4_000_000
    restarts = b"\xff\xd0\xff\xd1" * 10_000_000 + b"\xff\xd9"
    yield "JPEG, 20 million restart markers", open_end + restarts
    yield "JPEG, progressive, 20 million restart markers", progressive[:-2] + restarts
    yield "JPEG, 90 megapixels", _saved(Image.new("L", (10_000, 9_000)), "JPEG")
    yield (
        "JPEG, progressive, 40 megapixels",
        _saved(Image.new("RGB", (8_000, 5_000)), "JPEG", progressive=True),
    )
    dense = Image.new("RGB", (3_000, 3_000))
    yield "JPEG, a restart in each block", _saved(dense, "JPEG", restart_marker_blocks=1)


def other_files() -> Iterator[tuple[str, bytes]]:
    """Formats that a child decodes, and texts that look like images."""
    photo, large = images.photo(), Image.new("RGB", (_SIDE, _SIDE))
    gif = _saved(photo.convert("P"), "GIF")
    frame = b"\x2c" + struct.pack("<HHHH", 0, 0, 1, 1) + b"\0\x02\x02L\x01\0"
    yield "GIF, 5 million comments", gif[:-1] + b"\x21\xfe\x01a\0" * 5_000_000 + b";"
    yield "GIF, 300,000 frames", gif[:-1] + frame * 300_000 + b";"
    for kind in ("tiff_adobe_deflate", "tiff_lzw", "packbits", "lzma", "zstd"):
        yield f"TIFF, 98 megapixels, {kind}", _saved(large, "TIFF", compression=kind)
    yield "WebP, lossless, 39 megapixels", _saved(Image.new("RGB", (6_000, 6_500)), "WEBP", lossless=True)
    yield "AVIF, 81 megapixels", _saved(Image.new("RGB", (9_000, 9_000)), "AVIF", speed=10)
    yield "JPEG 2000, 35,344 tiles", _saved(Image.new("L", (3_000, 3_000)), "JPEG2000", tile_size=(16, 16))
    yield "JPEG 2000, 299 layers", _saved(photo, "JPEG2000", quality_layers=list(range(1, 300)))
    yield "ICO, 65,535 entries", b"\0\0\1\0\xff\xff" + bytes(16 * 65_535)
    for what, size in (("empty", 8), ("of size 0", 0)):
        icons = (b"TOC " + struct.pack(">I", size)) * 2_000_000
        yield f"ICNS, 2 million parts, {what}", b"icns" + struct.pack(">I", 8 + len(icons)) + icons
    yield "QOI, 100 megapixels", b"qoif" + struct.pack(">IIBB", 10_000, 10_000, 3, 0) + b"\xfd" * 2_000_000
    head = b"DDS " + struct.pack("<7I", 124, 0x1007, _SIDE, _SIDE, 0, 0, 0) + bytes(44)
    head += struct.pack("<II4sIIIII", 32, 4, b"DXT1", 0, 0, 0, 0, 0) + bytes(20)
    yield "DDS, 98 megapixels", head + bytes(_SIDE * _SIDE // 2)
    head = b"\x0a\5\1\x08" + struct.pack("<HHHH", 0, 0, 9_999, 9_999) + bytes(53) + b"\3"
    yield "PCX, 100 megapixels", head + struct.pack("<H", 10_000) + bytes(58) + b"\xff\0" * 2_000_000
    yield "PPM, 243 million numbers", b"P3 9000 9000 255 " + b"1 " * 20_000_000
    head = b"BM" + struct.pack("<IHHI", 0, 0, 0, 1078) + struct.pack("<IiiHH", 40, _SIDE, _SIDE, 1, 8)
    yield (
        "BMP, runs of a pixel",
        head + struct.pack("<IIiiII", 1, 0, 0, 0, 256, 256) + bytes(1024) + b"\1\1" * 5_000_000,
    )
    yield "SVG, an endless declaration", b"<!DOCTYPE svg [" + b"] '" * 500_000
    yield "XML, comments without end", b"<?xml ?>" + b" <!-- -- " * 200_000


def outcome(data: bytes) -> tuple[str, str]:
    """Decodes a file; returns the place, this process or a child, and the result."""

    def result(decoder: Callable[[bytes, DecodeOptions], Any]) -> str:
        try:
            decoded = decoder(data, _OPTIONS)
        except ImageError as error:
            return f"{error.reason.value}: {error.detail[:80]}"
        return f"decoded, {decoded.width} × {decoded.height}"

    try:
        return "here", result(decode_in_place)
    except NeedsLimitsError:
        return "child", result(decode)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="beginnings of the files' names (default: all)"
    )
    names = tuple(parser.parse_args().names)
    warnings.simplefilter("ignore")
    decode(_saved(images.photo().convert("P"), "GIF"), _OPTIONS)  # starts a child
    print("| file | MB | decoded in | CPU here, s | by the clock, s | more memory here, MB | result |")
    print("| --- | ---: | --- | ---: | ---: | ---: | --- |")
    good = True
    for kind in (png_files, jpeg_files, other_files):
        for name, data in kind():
            if names and not name.startswith(names):
                continue
            begin, cpu = time.monotonic(), time.process_time()
            memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            try:
                place, found = outcome(data)
            except Exception as error:
                place, found, good = "-", f"**{type(error).__name__}: {error}**", False
            cpu, seconds = time.process_time() - cpu, time.monotonic() - begin
            more = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory) >> 10
            good &= cpu < _MOST_SECONDS and more < _MOST_MEGABYTES and seconds < _MOST_CHILD_SECONDS
            size = len(data) / 1e6
            print(
                f"| {name} | {size:.1f} | {place} | {cpu:.2f} | {seconds:.2f} | {more} | {found} |",
                flush=True,
            )
    sys.exit(not good)


if __name__ == "__main__":
    main()
