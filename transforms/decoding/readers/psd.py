"""Reads the merged picture of PSD and PSB files (Adobe Photoshop File Formats Specification).

Channels beyond the colors (saved selections, spot colors) are no part of the merged picture. A merged picture with
transparency stores its colors already mixed with white. Readers disagree on that, so it is refused unless it is opaque.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

import numpy as np
from PIL import Image

from beamlabel.transforms.decoding.picture.options import DecodeOptions, Picture, check_pixels, refusal
from beamlabel.transforms.decoding.picture.pillow_image import load
from beamlabel.transforms.decoding.picture.pillow_modes import finish
from beamlabel.transforms.decoding.picture.variants import check_variant
from beamlabel.transforms.decoding.readers.binary import part, unpack
from beamlabel.transforms.records import Reason

_MODES = {
    0: "bitmap",
    1: "gray",
    2: "palette",
    3: "rgb",
    4: "cmyk",
    7: "multichannel",
    8: "duotone",
    9: "lab",
}
_CHANNELS = {"bitmap": 1, "gray": 1, "palette": 1, "rgb": 3, "cmyk": 4}
_COMPRESSIONS = {0: "plain", 1: "packbits", 2: "zip", 3: "zip with prediction"}
_PROFILE, _VERSION_INFO, _TRANSPARENT_INDEX = 1039, 1057, 1047
_SECTION = "the PSD's sections"


class _Psd(NamedTuple):
    mode: str
    width: int
    height: int
    depth: int
    channels: int
    palette: bytes
    resources: dict[int, bytes]
    transparent: bool
    compression: str
    big: bool
    start: int


def read_psd(data: bytes, options: DecodeOptions) -> Picture:
    """Decodes the merged picture.

    Raises:
      ImageError: ``too_many_pixels``, ``truncated``, ``corrupt`` or ``unsupported_format`` (also for files that were
        saved without their merged picture).
    """
    psd = _header(data, options.max_pixels)
    kind = "psb" if psd.big else "psd"
    check_variant(f"{kind} {psd.mode} {psd.depth} bit, {psd.compression}")
    version = psd.resources.get(_VERSION_INFO, b"")
    if len(version) >= 5 and not version[4]:
        raise refusal(Reason.UNSUPPORTED_FORMAT, "the PSD was saved without its merged picture")
    if _TRANSPARENT_INDEX in psd.resources and psd.mode == "palette":
        raise refusal(Reason.UNSUPPORTED_FORMAT, "a PSD with a transparent color is not supported")
    profile = psd.resources.get(_PROFILE) if options.color_profile == "convert" else None

    def decode() -> tuple[np.ndarray, bool]:
        used = _CHANNELS[psd.mode]
        planes = _planes(data, psd, used + (1 if psd.transparent else 0))
        if psd.transparent and not (planes.pop() == 255).all():
            raise refusal(Reason.UNSUPPORTED_FORMAT, "the PSD's merged picture has transparent parts")
        return finish(_image(psd, planes), profile)

    pixels, converted = load(decode, "PSD", psd.width, psd.height)
    return Picture(pixels, psd.width, psd.height, "psd", converted=converted)


def _header(data: bytes, max_pixels: int) -> _Psd:
    version, channels, height, width, depth, mode = unpack(">H6xHIIHH", data, 4, "the PSD's header")
    if version not in (1, 2):
        raise refusal(Reason.CORRUPT, f"the PSD has the unknown version {version}")
    if width < 1 or height < 1:
        raise refusal(Reason.CORRUPT, f"the PSD has an invalid size of {width}×{height} pixels")
    check_pixels(width, height, max_pixels)
    big = version == 2
    (length,) = unpack(">I", data, 26, _SECTION)
    palette = part(data, 30, length, _SECTION)
    position = 30 + length
    (length,) = unpack(">I", data, position, _SECTION)
    resources = _resources(part(data, position + 4, length, _SECTION))
    position += 4 + length
    wide = ">Q" if big else ">I"
    (length,) = unpack(wide, data, position, _SECTION)
    position += struct.calcsize(wide)
    layers = _layer_count(part(data, position, length, _SECTION), wide)
    position += length
    (compression,) = unpack(">H", data, position, _SECTION)
    name = _MODES.get(mode, f"mode {mode}")
    used = _CHANNELS.get(name, channels)
    if channels < used:
        raise refusal(Reason.CORRUPT, f"the {name} PSD has only {channels} channels")
    coding = _COMPRESSIONS.get(compression, f"compression {compression}")
    transparent = layers < 0 and channels > used
    return _Psd(
        name, width, height, depth, channels, palette, resources, transparent, coding, big, position + 2
    )


def _resources(section: bytes) -> dict[int, bytes]:
    """Image resources by their numbers; the list ends at the first damaged one."""
    found: dict[int, bytes] = {}
    position = 0
    while section[position : position + 4] == b"8BIM" and position + 12 <= len(section):
        (number,) = struct.unpack_from(">H", section, position + 4)
        name = section[position + 6] + 1
        start = position + 6 + name + name % 2
        if start + 4 > len(section):
            break
        (length,) = struct.unpack_from(">I", section, start)
        found.setdefault(number, section[start + 4 : start + 4 + length])
        position = start + 4 + length + length % 2
    return found


def _layer_count(section: bytes, wide: str) -> int:
    """The layer count; negative if the first channel after the colors is the merged picture's transparency."""
    start = struct.calcsize(wide)
    if len(section) < start + 2 or not struct.unpack_from(wide, section)[0]:
        return 0
    return int(struct.unpack_from(">h", section, start)[0])


def _planes(data: bytes, psd: _Psd, count: int) -> list[np.ndarray]:
    """The first channels, each uint8[H, W]; deeper ones are reduced to their upper 8 bits."""
    row_bytes = -(-psd.width * psd.depth // 8)
    size = row_bytes * psd.height
    lengths = None
    start = psd.start
    if psd.compression == "packbits":
        kind = np.dtype(">u4" if psd.big else ">u2")
        rows = psd.channels * psd.height
        table = part(data, start, rows * kind.itemsize, "the PSD's row lengths")
        start += len(table)
        lengths = np.frombuffer(table, kind).reshape(psd.channels, psd.height).sum(axis=1, dtype=np.int64)
    planes = []
    for channel in range(count):
        length = size if lengths is None else int(lengths[channel])
        encoded = part(data, start, length, "the PSD's picture")
        start += length
        if lengths is not None:
            # Rows are packed separately, so no run crosses a row.
            encoded = Image.frombytes("L", (row_bytes, psd.height), encoded, "packbits", "L").tobytes()
        raw = np.frombuffer(encoded, np.uint8).reshape(psd.height, row_bytes)
        if psd.depth == 1:
            planes.append(np.unpackbits(raw, axis=1, count=psd.width) * np.uint8(255))
        else:
            planes.append(raw[:, :: psd.depth // 8])  # big endian: the first byte is the upper one
    return planes


def _image(psd: _Psd, planes: list[np.ndarray]) -> Image.Image | np.ndarray:
    if psd.mode == "palette":
        if len(psd.palette) != 768:
            raise refusal(Reason.CORRUPT, f"the PSD's palette has {len(psd.palette)} bytes, not 768")
        palette = np.frombuffer(psd.palette, np.uint8).reshape(3, 256).T
        return np.ascontiguousarray(palette)[planes[0]]
    if len(planes) == 1:
        return 255 - planes[0] if psd.mode == "bitmap" else planes[0]
    pixels = np.stack(planes, axis=-1)
    # CMYK is stored with 255 for no ink.
    return Image.fromarray(255 - pixels, "CMYK") if psd.mode == "cmyk" else pixels
