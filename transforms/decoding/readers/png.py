"""Reads PNG (W3C PNG, third edition): chunks here, pixels through Pillow.

Pillow gets only the chunks that pixels depend on. So a text, profile or time chunk that is too long, cut or damaged
neither changes the picture nor fails it.
"""

from __future__ import annotations

import functools
import io
import struct
import zlib
from typing import NamedTuple

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngImageFile

from beamlabel.transforms.decoding.picture.color import MAX_PROFILE_BYTES, is_needless, profile_of_code_points
from beamlabel.transforms.decoding.picture.exif import exif_orientation
from beamlabel.transforms.decoding.picture.limits import FAST_PIXELS, FAST_PROFILE_PIXELS, need_limits
from beamlabel.transforms.decoding.picture.options import DecodeOptions, Picture, check_pixels, refusal
from beamlabel.transforms.decoding.picture.pillow_image import load
from beamlabel.transforms.decoding.picture.pillow_modes import finish
from beamlabel.transforms.decoding.picture.variants import check_variant
from beamlabel.transforms.records import Reason

SIGNATURE = b"\x89PNG\r\n\x1a\n"

_KINDS = {0: "gray", 2: "rgb", 3: "palette", 4: "gray+alpha", 6: "rgba"}
_PIXELS = frozenset((b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"))
_ASIDE = frozenset((b"eXIf", b"iCCP", b"cICP"))
_SHORT_PROFILE = 1 << 16
# Maximum number of chunks for the fast path: 64 MiB in libpng's chunks of 8 KiB have this many.
_FAST_CHUNKS = 8192


class _Chunks(NamedTuple):
    """The contents of the chunks.

    Attributes:
      header: IHDR: width, height, bit depth, color type, compression, filter, interlace.
      transparency: tRNS, or None.
      aside: eXIf, iCCP and cICP, if they are complete.
      pixels: the file with only the chunks that Pillow needs.
    """

    header: tuple[int, ...]
    transparency: bytes | None
    aside: dict[bytes, bytes]
    pixels: bytes


def read_png(data: bytes, options: DecodeOptions) -> Picture:
    """Decodes the default image of a PNG or APNG.

    Raises:
      ImageError: ``too_many_pixels``, ``truncated``, ``corrupt`` (also a wrong checksum of a chunk that pixels
        depend on) or ``unsupported_format``.
      NeedsLimitsError: the image may take long.
    """
    chunks = _chunks(data, options.max_pixels)
    width, height, depth, colour, *_, interlace = chunks.header
    kind = f"{_KINDS.get(colour, f'colour type {colour}')} {depth} bit"
    details = (" transparent" if chunks.transparency is not None else "") + (
        " interlaced" if interlace == 1 else f" interlace {interlace}" if interlace else ""
    )
    check_variant(f"png {kind}{details}")
    orientation = exif_orientation(chunks.aside[b"eXIf"]) if b"eXIf" in chunks.aside else 1
    profile = _profile(chunks.aside) if options.color_profile == "convert" else None
    if width * height > FAST_PIXELS:
        need_limits()
    # A transparent color of 16 bits takes a second decode.
    twice = depth == 16 and chunks.transparency is not None
    if width * height > FAST_PROFILE_PIXELS and (twice or not is_needless(profile)):
        need_limits()

    def decode() -> tuple[np.ndarray, bool]:
        image = PngImageFile(io.BytesIO(chunks.pixels))
        if image.size != (width, height):
            raise refusal(
                Reason.CORRUPT, f"the PNG has {image.width}×{image.height} pixels, not {width}×{height}"
            )
        image.load()
        return finish(_with_transparency(image, chunks), profile)

    pixels, converted = load(decode, "PNG", width, height, functools.partial(_is_whole, data))
    return Picture(pixels, width, height, "png", orientation, converted=converted)


def _chunks(data: bytes, max_pixels: int) -> _Chunks:
    view = memoryview(data)
    header: tuple[int, ...] | None = None
    transparency = None
    aside: dict[bytes, bytes] = {}
    kept = [(0, len(SIGNATURE))]  # ranges; adjacent ones are merged
    position = len(SIGNATURE)
    fast = _FAST_CHUNKS
    while position + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        start, end = position + 8, position + 8 + length
        fast -= 1
        if header is None:
            header = _header(kind, length, view[start:end])
            check_pixels(header[0], header[1], max_pixels)
        elif kind == b"IHDR":  # Pillow would read the picture's size from it
            raise refusal(Reason.CORRUPT, f"the PNG has a second header at byte {position}")
        elif fast < 0:
            need_limits()
        if kind in _PIXELS or kind in _ASIDE:
            # A chunk beyond the end is left to Pillow, which detects missing pixels.
            good = end + 4 > len(data) or _checksum(view[position + 4 : end]) == _number(view[end : end + 4])
            if kind in _PIXELS and not good:
                name = kind.decode()
                raise refusal(Reason.CORRUPT, f"chunk {name} at byte {position} has a wrong checksum")
            if kind in _PIXELS:
                _keep(kept, position, min(end + 4, len(data)))
            elif good:
                aside.setdefault(kind, data[start:end])
            if kind == b"tRNS":
                transparency = data[start:end]
        elif not kind[0] & 0x20:  # an upper-case first letter marks a critical chunk
            if not kind.isalpha():
                raise refusal(Reason.CORRUPT, f"there is no valid chunk at byte {position}")
            raise refusal(
                Reason.UNSUPPORTED_FORMAT, f"the PNG has the unknown critical chunk {kind.decode()}"
            )
        position = end + 4
        if kind == b"IEND":
            break
    if header is None:
        raise refusal(Reason.TRUNCATED, "the file ends within the PNG header")
    whole = len(kept) == 1 and kept[0][1] in (len(data), position)
    pixels = data if whole else b"".join(view[start:end] for start, end in kept)
    return _Chunks(header, transparency, aside, pixels)


def _header(kind: bytes, length: int, content: memoryview) -> tuple[int, ...]:
    if kind == b"CgBI":
        raise refusal(Reason.UNSUPPORTED_FORMAT, "Apple's variant of PNG (CgBI) is not supported")
    if kind != b"IHDR" or length != 13:
        raise refusal(Reason.CORRUPT, "the PNG does not begin with its header")
    if len(content) < 13:
        raise refusal(Reason.TRUNCATED, "the file ends within the PNG header")
    header = struct.unpack(">IIBBBBB", content)
    if not (0 < header[0] < 1 << 31 and 0 < header[1] < 1 << 31):
        raise refusal(Reason.CORRUPT, f"the PNG has an invalid size of {header[0]}×{header[1]} pixels")
    return header


def _keep(kept: list[tuple[int, int]], start: int, end: int) -> None:
    if kept[-1][1] == start:
        kept[-1] = kept[-1][0], end
    else:
        kept.append((start, end))


def _checksum(content: memoryview) -> int:
    return zlib.crc32(content)


def _number(content: memoryview) -> int:
    return int.from_bytes(content, "big")


def _with_transparency(image: Image.Image, chunks: _Chunks) -> Image.Image:
    """The image with its transparent color in the units of the decoded values.

    tRNS is in the units of the file. Pillow scales gray of 2 and 4 bits, and color of 16 bits, to 8 bits. For color of
    16 bits all bits are compared, so the lower ones are decoded separately.
    """
    transparent = image.info.get("transparency")
    depth = chunks.header[2]
    if transparent is None or isinstance(transparent, bytes):
        return image
    if image.mode == "L" and depth in (2, 4):
        image.info["transparency"] = transparent * 255 // ((1 << depth) - 1)
    elif image.mode == "RGB" and depth == 16:
        lower = PngImageFile(io.BytesIO(chunks.pixels))
        # RGB;16L takes the second byte of each pair, which in a PNG is the lower one.
        lower.tile = [tile._replace(args="RGB;16L") for tile in lower.tile]
        lower.load()
        values = np.asarray(image).astype(np.uint16) << 8 | np.asarray(lower)
        solid = (values != np.array(transparent, np.uint16)).any(axis=2)
        del image.info["transparency"]
        image.putalpha(Image.fromarray(np.where(solid, 255, 0).astype(np.uint8)))
    return image


def _profile(aside: dict[bytes, bytes]) -> bytes | None:
    """The ICC profile: cICP precedes iCCP; gAMA and cHRM are ignored, since they are wrong in many files."""
    if len(aside.get(b"cICP", b"")) == 4:
        primaries, transfer, matrix, full = aside[b"cICP"]
        if matrix == 0 and full == 1:
            return profile_of_code_points(primaries, transfer)
    chunk = aside.get(b"iCCP")
    if chunk is None:
        return None
    return _short_profile(chunk) if len(chunk) <= _SHORT_PROFILE else _inflate_profile(chunk)


def _inflate_profile(chunk: bytes) -> bytes | None:
    """The ICC profile of an iCCP chunk: a name, a zero, the method (0), zlib's data; None if it is broken."""
    name, separator, rest = chunk.partition(b"\0")
    if not separator or not 0 < len(name) < 80 or rest[:1] != b"\0":
        return None
    try:
        profile = zlib.decompressobj().decompress(rest[1:], MAX_PROFILE_BYTES + 1)
    except zlib.error:
        return None
    # The profile states its own length; the rest is padding.
    return profile[: int.from_bytes(profile[:4], "big")]


_short_profile = functools.lru_cache(maxsize=64)(_inflate_profile)


def _is_whole(data: bytes) -> bool:
    position = len(SIGNATURE)
    while position + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        position += 12 + length
        if kind == b"IEND":
            return position <= len(data)
    return False
