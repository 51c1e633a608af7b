"""Reads JPEG 2000 (ITU-T T.800) codestreams and JP2 files: headers here, pixels through OpenJPEG."""

from __future__ import annotations

from typing import NamedTuple

from beamlabel.transforms.decoding.picture.by_pillow import read_with_pillow
from beamlabel.transforms.decoding.picture.options import DecodeOptions, Picture, check_pixels, refusal
from beamlabel.transforms.decoding.picture.variants import check_variant
from beamlabel.transforms.decoding.readers.binary import unpack
from beamlabel.transforms.decoding.readers.boxes import boxes, is_whole
from beamlabel.transforms.records import Reason

CODESTREAM = b"\xff\x4f\xff\x51"
BOXES = b"\0\0\0\x0cjP  \r\n\x87\n"
_WHAT = "the JPEG 2000's header"
_COLOURS = {16: "rgb", 17: "gray", 18: "ycc"}


class _Boxes(NamedTuple):
    """Contents of JP2's header boxes: color space, profile, presence of a palette, alpha, and the codestream."""

    colours: str | None = None
    profile: bytes | None = None
    palette: bool = False
    channels: bytes = b""
    start: int = 0


def read_jpeg2000(data: bytes, options: DecodeOptions) -> Picture:
    """Decodes a JPEG 2000.

    Raises:
      ImageError: ``too_many_pixels``, ``truncated``, ``corrupt`` or ``unsupported_format``.
    """
    in_boxes = data.startswith(BOXES)
    jp2 = _read_boxes(data) if in_boxes else _Boxes()
    marker, _, _, right, bottom, left, top = unpack(">4sHHIIII", data, jp2.start, _WHAT)
    if marker != CODESTREAM:
        raise refusal(Reason.CORRUPT, "the JPEG 2000 has no codestream")
    (count,) = unpack(">H", data, jp2.start + 40, _WHAT)
    width, height = right - left, bottom - top
    if width < 1 or height < 1 or not count:
        raise refusal(Reason.CORRUPT, f"the JPEG 2000 has an invalid size of {width}×{height} pixels")
    check_pixels(width, height, options.max_pixels)
    parts = {unpack("3B", data, jp2.start + 42 + 3 * number, _WHAT) for number in range(min(count, 5))}
    colours = jp2.colours or {1: "gray", 3: "rgb"}.get(count, "colours")
    used = {"gray": 1, "rgb": 3, "ycc": 3}.get(colours, count)
    # A channel definition (I.5.3.6) of type 1 is alpha.
    alpha = " + alpha" if count == used + 1 and _is_alpha(jp2.channels, used) else ""
    if count != used + (1 if alpha else 0):
        alpha = f" + {count - used} more components"
    precision, across, down = parts.pop()
    depth = f"{(precision & 0x7F) + 1} bit" + (" signed" if precision & 0x80 else "")
    if parts or (across, down) != (1, 1):
        depth = "subsampled"
    if left or top:
        depth += " with an offset"
    name = f"jpeg2000 {'palette ' if jp2.palette else ''}{colours} {depth}{alpha}"
    check_variant(name)
    profile = jp2.profile if options.color_profile == "convert" else None
    whole = (lambda: is_whole(data)) if in_boxes else (lambda: data.endswith(b"\xff\xd9"))
    return read_with_pillow("JPEG2000", data, options, (width, height), profile=profile, is_whole=whole)


def _is_alpha(channels: bytes, number: int) -> bool:
    """Whether the channel definitions declare component ``number`` as alpha of the whole picture."""
    entries = [channels[at : at + 6] for at in range(2, len(channels) - 5, 6)]
    return number.to_bytes(2, "big") + b"\0\1\0\0" in entries


def _read_boxes(data: bytes) -> _Boxes:
    found = _Boxes()
    for kind, start, end in boxes(data, 0, len(data)):
        if kind == b"jp2h":
            if end > len(data):
                raise refusal(Reason.TRUNCATED, f"the file ends within {_WHAT}")
            found = _read_header(data, start, end)
        elif kind == b"jp2c":
            return found._replace(start=start)
    raise refusal(Reason.TRUNCATED, "the file ends before the JPEG 2000's codestream")


def _read_header(data: bytes, start: int, stop: int) -> _Boxes:
    found = _Boxes()
    for kind, at, end in boxes(data, start, stop):
        if kind == b"colr" and found.colours is None and end - at >= 3:
            method = data[at]
            if method == 1:
                number = int.from_bytes(data[at + 3 : at + 7], "big")
                found = found._replace(colours=_COLOURS.get(number, f"colour space {number}"))
            elif method == 2:  # the profile's own header names its color space
                colours = {b"GRAY": "gray", b"RGB ": "rgb"}.get(data[at + 3 + 16 : at + 3 + 20], "profile")
                found = found._replace(colours=colours, profile=data[at + 3 : end])
        elif kind == b"pclr":
            found = found._replace(palette=True)
        elif kind == b"cdef":
            found = found._replace(channels=data[at:end])
    return found
