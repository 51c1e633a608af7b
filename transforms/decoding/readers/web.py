"""Reads GIF, WebP and AVIF: headers here, pixels through Pillow."""

from __future__ import annotations

import functools
import re
import struct

from PIL import Image

from beamlabel.transforms.decoding.picture.by_pillow import read_with_pillow
from beamlabel.transforms.decoding.picture.color import is_needless, profile_of_code_points
from beamlabel.transforms.decoding.picture.exif import exif_orientation
from beamlabel.transforms.decoding.picture.limits import FAST_PIXELS, FAST_PROFILE_PIXELS, need_limits
from beamlabel.transforms.decoding.picture.options import DecodeOptions, Picture, check_pixels, refusal
from beamlabel.transforms.decoding.picture.variants import check_variant
from beamlabel.transforms.decoding.readers.avif_frames import frame_sizes
from beamlabel.transforms.decoding.readers.binary import unpack
from beamlabel.transforms.decoding.readers.boxes import is_whole
from beamlabel.transforms.records import Reason

_GIF, _WEBP = "the GIF's header", "the WebP's header"
# Maximum number of chunks in a WebP for the fast path; each frame of an animation is one.
_FAST_CHUNKS = 4096


def read_gif(data: bytes, options: DecodeOptions) -> Picture:
    """Decodes the first frame of a GIF (87a, 89a); the screen around it is white."""
    width, height, flags = unpack("<HHB", data, 6, _GIF)
    check_pixels(width, height, options.max_pixels)
    position = 13 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
    transparent = False
    while True:
        (kind,) = unpack("B", data, position, _GIF)
        if kind == 0x2C:
            break
        if kind != 0x21:
            raise refusal(
                Reason.CORRUPT, f"the GIF has an unknown block of kind {kind:#x} at byte {position}"
            )
        (label,) = unpack("B", data, position + 1, _GIF)
        position += 2
        while True:  # sub-blocks, up to an empty one
            (length,) = unpack("B", data, position, _GIF)
            if label == 0xF9 and length >= 1:
                transparent = bool(unpack("B", data, position + 1, _GIF)[0] & 1)
            position += 1 + length
            if not length:
                break
    left, top, across, down, local = unpack("<HHHHB", data, position + 1, _GIF)
    if not across or not down or left + across > width or top + down > height:
        raise refusal(Reason.UNSUPPORTED_FORMAT, "the GIF's first frame exceeds its screen")
    if not (flags | local) & 0x80:
        raise refusal(Reason.UNSUPPORTED_FORMAT, "the GIF has no palette")
    palette = "local" if local & 0x80 else "global"
    part = " part of the screen" if (across, down) != (width, height) else ""
    details = (" transparent" if transparent else "") + (" interlaced" if local & 0x40 else "") + part
    check_variant(f"gif {palette} palette{details}")

    def frame_on_white(image: Image.Image) -> Image.Image:
        if not part:
            return image
        frame = image.crop((left, top, left + across, top + down))
        screen = Image.new("RGBA", image.size, (255, 255, 255, 0))
        screen.paste(frame.convert("RGBA"), (left, top))
        return screen

    whole = functools.partial(_is_whole_gif, data)
    return read_with_pillow("GIF", data, options, (width, height), is_whole=whole, mend=frame_on_white)


def _is_whole_gif(data: bytes) -> bool:
    return data.rstrip(b"\0").endswith(b";")


def read_webp(data: bytes, options: DecodeOptions) -> Picture:
    """Decodes the first frame of a WebP (RFC 9649).

    Raises:
      ImageError: ``too_many_pixels``, ``truncated``, ``corrupt`` or ``unsupported_format``.
      NeedsLimitsError: the image may take long.
    """
    (kind,) = unpack("4s", data, 12, _WEBP)
    head = data[20:30]
    unpack("10s", data, 20, _WEBP)
    animated, alpha, extended = False, False, kind == b"VP8X"
    if extended:
        width, height = 1 + int.from_bytes(head[4:7], "little"), 1 + int.from_bytes(head[7:10], "little")
        animated, alpha = bool(head[0] & 0x02), bool(head[0] & 0x10)
    elif kind == b"VP8L":
        bits = int.from_bytes(head[1:5], "little")
        width, height, alpha = 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF), bool(bits >> 28 & 1)
    elif kind == b"VP8 ":
        width, height = (side & 0x3FFF for side in struct.unpack("<HH", head[6:10]))
    else:
        raise refusal(Reason.CORRUPT, f"the WebP begins with the unknown chunk {kind!r}")
    check_pixels(width, height, options.max_pixels)
    chunks = _webp_chunks(data) if extended else {kind: b""}
    coding = "animated" if animated else "lossless" if b"VP8L" in chunks else "lossy"
    check_variant(f"webp {coding}{' + alpha' if alpha else ''}")
    exif, profile = chunks.get(b"EXIF"), chunks.get(b"ICCP")
    if width * height > FAST_PIXELS:
        need_limits()
    if (
        width * height > FAST_PROFILE_PIXELS
        and options.color_profile == "convert"
        and not is_needless(profile)
    ):
        need_limits()
    return read_with_pillow(
        "WEBP",
        data,
        options,
        (width, height),
        profile=profile,
        orientation=exif_orientation(exif) if exif else 1,
        is_whole=lambda: 8 + int.from_bytes(data[4:8], "little") <= len(data),
    )


def _webp_chunks(data: bytes) -> dict[bytes, bytes]:
    """The chunks of the file, with content only for ICCP and EXIF."""
    found: dict[bytes, bytes] = {}
    position, fast = 12, _FAST_CHUNKS
    while position + 8 <= len(data):
        kind, length = struct.unpack_from("<4sI", data, position)
        start = position + 8
        fast -= 1
        if fast < 0:
            need_limits()
        found.setdefault(kind, data[start : start + length] if kind in (b"ICCP", b"EXIF") else b"")
        position = start + length + length % 2
    return found


_AV1_CONFIG = re.compile(rb"av1C\x81.(.)", re.DOTALL)
_SIZE = re.compile(rb"ispe....(....)(....)", re.DOTALL)
_CODE_POINTS = re.compile(rb"colrnclx(..)(..)", re.DOTALL)
_ALPHA = b"urn:mpeg:mpegB:cicp:systems:auxiliary:alpha"
_SUBSAMPLING = {0: "4:4:4", 2: "4:2:2", 3: "4:2:0"}
# The properties precede the pixels and must lie within this many bytes.
_PROPERTIES = 65536


def read_avif(data: bytes, options: DecodeOptions) -> Picture:
    """Decodes the primary picture, or the first of a sequence (AVIF 1.1; ISO/IEC 23008-12 and 23091-2)."""
    head = data[:_PROPERTIES]
    sizes = [
        (int.from_bytes(claim[1], "big"), int.from_bytes(claim[2], "big")) for claim in _SIZE.finditer(head)
    ]
    check_pixels(*max(sizes, key=lambda size: size[0] * size[1], default=(0, 0)), options.max_pixels)
    configs = [found[1][0] for found in _AV1_CONFIG.finditer(head)]
    if not configs or not sizes:
        if len(head) < _PROPERTIES and not is_whole(data):
            raise refusal(Reason.TRUNCATED, "the file ends within the AVIF's properties")
        raise refusal(Reason.UNSUPPORTED_FORMAT, "the AVIF lacks the properties of its picture")
    # With several configurations (alpha, a grid, a thumbnail), only the item tells the primary picture's. So all color
    # ones must be alike.
    kinds = {_av1_kind(config) for config in configs}
    colour = kinds if len(kinds) == 1 else {kind for kind in kinds if "gray" not in kind}
    if len(colour) != 1:
        raise refusal(Reason.UNSUPPORTED_FORMAT, "the AVIF has pictures of several kinds")
    animated = "animated " if b"avis" in data[8:12] else ""
    grid = " grid" if re.search(rb"infe.{8}grid", head, re.DOTALL) else ""
    alpha = " + alpha" if _ALPHA in head else ""
    check_variant(f"avif {animated}{colour.pop()}{grid}{alpha}")
    points = _CODE_POINTS.search(head)
    profile = None
    # An ICC profile takes precedence over code points.
    if points and b"colrprof" not in head and options.color_profile == "convert":
        primaries, transfer = (int.from_bytes(points[group], "big") for group in (1, 2))
        profile = profile_of_code_points(primaries, transfer)
    whole = functools.partial(is_whole, data)
    for size in frame_sizes(data):
        check_pixels(*size, options.max_pixels)
    # Pillow reports the AVIF's rotation as EXIF orientation.
    return read_with_pillow("AVIF", data, options, None, profile=profile, orientation=None, is_whole=whole)


def _av1_kind(config: int) -> str:
    # AV1 in ISOBMFF, 2.3.3: tier, high depth, 12 bits, monochrome, subsampling in x and in y, position (2).
    depth = 8 if not config & 0x40 else 12 if config & 0x20 else 10
    return f"gray {depth} bit" if config & 0x10 else f"{_SUBSAMPLING.get(config >> 2 & 3, '?')} {depth} bit"
