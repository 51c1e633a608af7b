"""Reads TGA, SGI, Sun raster and PCX: headers here, pixels through Pillow."""

from __future__ import annotations

import struct

from beamlabel.transforms.decoding.picture.by_pillow import read_with_pillow
from beamlabel.transforms.decoding.picture.options import DecodeOptions, Picture, check_pixels, refusal
from beamlabel.transforms.decoding.picture.variants import check_variant
from beamlabel.transforms.decoding.readers.binary import unpack
from beamlabel.transforms.records import Reason

_TGA_KINDS = {1: "palette", 2: "colour", 3: "gray", 9: "palette", 10: "colour", 11: "gray"}
_TGA_DEPTHS = {1: (8, 16), 2: (15, 16, 24, 32), 3: (8, 16), 9: (8, 16), 10: (15, 16, 24, 32), 11: (8, 16)}


def is_tga(data: bytes) -> bool:
    """Whether the data may be a TGA, which has no signature: every field must have a possible value."""
    if len(data) < 18:
        return False
    _, mapped, kind, _, colours, entry, _, _, width, height, depth, flags = struct.unpack_from(
        "<BBBHHBHHHHBB", data
    )
    if kind not in _TGA_KINDS or depth not in _TGA_DEPTHS[kind] or not width or not height:
        return False
    if mapped != (1 if kind in (1, 9) else 0) or flags & 0xC0:
        return False
    return entry in (15, 16, 24, 32) and colours > 0 if mapped else colours == 0


def read_tga(data: bytes, options: DecodeOptions) -> Picture:
    """Decodes a TGA (Truevision TGA File Format Specification 2.0)."""
    _, _, kind, first, _, entry, _, _, width, height, depth, flags = struct.unpack_from("<BBBHHBHHHHBB", data)
    check_pixels(width, height, options.max_pixels)
    what = f"{_TGA_KINDS[kind]} {depth} bit"
    if _TGA_KINDS[kind] == "palette":
        what += f" of {entry} bit" + (" from a later entry" if first else "")
    alpha = f" + {flags & 15} bit alpha" if flags & 15 else ""
    corner = {0: "bottom left", 0x10: "bottom right", 0x20: "top left", 0x30: "top right"}[flags & 0x30]
    check_variant(f"tga {what}{alpha}, {'run lengths' if kind > 8 else 'plain'}, {corner}")
    return read_with_pillow("TGA", data, options, (width, height))


def read_sgi(data: bytes, options: DecodeOptions) -> Picture:
    """Decodes an SGI image (The SGI Image File Format, 1.00)."""
    storage, size, dimension, width, height, channels = unpack(">BBHHHH", data, 2, "the SGI's header")
    (colour_map,) = unpack(">I", data, 104, "the SGI's header")
    height = height if dimension > 1 else 1
    channels = channels if dimension > 2 else 1
    if not width or not height:
        raise refusal(Reason.CORRUPT, f"the SGI has an invalid size of {width}×{height} pixels")
    check_pixels(width, height, options.max_pixels)
    coding = {0: "plain", 1: "run lengths"}.get(storage, f"coding {storage}")
    mapped = f", colour map {colour_map}" if colour_map else ""
    check_variant(f"sgi {channels} channels of {8 * size} bit, {coding}{mapped}")
    return read_with_pillow("SGI", data, options, (width, height))


def read_sun(data: bytes, options: DecodeOptions) -> Picture:
    """Decodes a Sun raster file (rasterfile(5))."""
    width, height, depth, _, kind, mapped, map_bytes = unpack(">7I", data, 4, "the Sun raster's header")
    if not width or not height:
        raise refusal(Reason.CORRUPT, f"the Sun raster has an invalid size of {width}×{height} pixels")
    check_pixels(width, height, options.max_pixels)
    coding = {0: "old", 1: "plain", 2: "run lengths", 3: "rgb"}.get(kind, f"type {kind}")
    palette = {0: "", 1: " palette"}.get(mapped, f" map {mapped}") if map_bytes else ""
    check_variant(f"sun {depth} bit{palette}, {coding}")
    return read_with_pillow("SUN", data, options, (width, height))


def is_pcx(data: bytes) -> bool:
    """Whether the data may be a PCX: maker, version, coding, depth and planes must have possible values."""
    return (
        data[:1] == b"\x0a"
        and data[1:2] in (b"\0", b"\2", b"\3", b"\4", b"\5")
        and data[2:3] in (b"\0", b"\1")
        and data[3:4] in (b"\1", b"\2", b"\4", b"\x08")
    )


def read_pcx(data: bytes, options: DecodeOptions) -> Picture:
    """Decodes a PCX (ZSoft PCX File Format Technical Reference Manual)."""
    left, top, right, bottom = unpack("<4H", data, 4, "the PCX's header")
    version, bits, (planes,) = data[1], data[3], unpack("B", data, 65, "the PCX's header")
    width, height = right - left + 1, bottom - top + 1
    if width < 1 or height < 1:
        raise refusal(Reason.CORRUPT, f"the PCX has an invalid size of {width}×{height} pixels")
    check_pixels(width, height, options.max_pixels)
    palette = ""
    if (bits, planes) == (8, 1):
        palette = " palette" if version == 5 and len(data) > 897 and data[-769] == 12 else " gray"
    coding = "" if data[2] else ", plain"
    check_variant(f"pcx version {version}, {planes} planes of {bits} bit{palette}{coding}")
    return read_with_pillow("PCX", data, options, (width, height))
