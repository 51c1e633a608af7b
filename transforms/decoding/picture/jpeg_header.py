"""Reads a JPEG's segments up to its first scan, and checks whether its scans are complete."""

from __future__ import annotations

import re
from typing import NamedTuple

from beamlabel.transforms.decoding.picture.exif import exif_orientation
from beamlabel.transforms.decoding.picture.options import refusal
from beamlabel.transforms.records import Reason

# Frame markers: SOF0..SOF15 without DHT (C4), JPG (C8) and DAC (CC), ITU-T T.81, table B.1; and SOF55 (F7) of JPEG-LS,
# ITU-T T.87, C.1.1.
_FRAMES = frozenset({*range(0xC0, 0xD0), 0xF7}) - {0xC4, 0xC8, 0xCC}
_CODINGS = {
    0xC0: "baseline",
    0xC1: "extended",
    0xC2: "progressive",
    0xC3: "lossless",
    0xC9: "arithmetic",
    0xCA: "progressive arithmetic",
    0xCB: "lossless arithmetic",
    0xF7: "LS",
}
_START_OF_SCAN, _END_OF_IMAGE, _APP1, _APP2, _APP14 = 0xDA, 0xD9, 0xE1, 0xE2, 0xEE
# Markers without a length: TEM, RST0..RST7, SOI; also a stuffed zero, which is no marker.
_STANDALONE = frozenset({0x00, 0x01, *range(0xD0, 0xD9)})
# In entropy-coded data FF is followed by a stuffed zero, a restart marker or a fill byte.
_NEXT_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_PROFILE = b"ICC_PROFILE\0"
_FILL = re.compile(rb"\xff+")

MAX_SCANS = 500
"""libjpeg-turbo's advice: cameras and programs write 1 to 14 scans, and each may take as long as a picture.

(https://libjpeg-turbo.org/pmwiki/uploads/About/TwoIssueswiththeJPEGStandard.pdf)
"""

# Limit on segments before the first scan, or in all after it: 64 MiB in segments of the usual 64 KiB are a thousand.
_MAX_SEGMENTS = 50_000


class JpegHeader(NamedTuple):
    """The data before the first scan.

    Attributes:
      width, height: pixels as stored.
      components: 1 gray, 3 color, 4 CMYK or YCCK.
      component_ids: one byte per component.
      coding: ``baseline``, ``progressive`` and so on; ``hierarchical`` for frames that depend on others.
      precision: bits per sample.
      adobe: the transform in Adobe's segment (0 none, 1 YCbCr, 2 YCCK); None without that segment.
      orientation: EXIF orientation, 1..8; 1 if there is none or the block is broken.
      profile: the ICC profile; None if there is none or a part is missing.
      first_scan: offset of the first start-of-scan marker.
    """

    width: int
    height: int
    components: int
    component_ids: bytes
    coding: str
    precision: int
    adobe: int | None
    orientation: int
    profile: bytes | None
    first_scan: int

    @property
    def progressive(self) -> bool:
        """Whether several scans refine each other."""
        return self.coding.startswith("progressive")


def read_header(data: bytes) -> JpegHeader:
    """Walks the segments up to the first scan; takes some microseconds.

    Raises:
      ImageError: ``truncated`` if a segment or the first scan is missing, ``corrupt`` if there is no usable frame or no
        end of segments, ``unsupported_format`` if the height only follows after the data (DNL).
    """
    frame: tuple[int, bytes] | None = None
    orientation: int | None = None
    adobe: int | None = None
    profile: list[bytes] = []
    position = 2
    for _ in range(_MAX_SEGMENTS):
        position = data.find(b"\xff", position)
        if position < 0 or position + 4 > len(data):
            raise refusal(Reason.TRUNCATED, "the file ends within the JPEG header")
        marker = data[position + 1]
        if marker == 0xFF:
            position = _last_fill_byte(data, position)
            continue
        if marker in _STANDALONE:
            position += 2
            continue
        if marker == _END_OF_IMAGE:
            raise refusal(Reason.TRUNCATED, "the JPEG ends before its first scan")
        start, end = position + 4, position + 2 + int.from_bytes(data[position + 2 : position + 4], "big")
        if end > len(data):
            raise refusal(Reason.TRUNCATED, "the file ends within the JPEG header")
        if marker == _START_OF_SCAN:
            return _header(frame, orientation or 1, adobe, _joined(profile), position)
        if marker in _FRAMES and frame is None:
            frame = marker, data[start:end]
        elif marker == _APP1 and orientation is None and data.startswith(b"Exif\0\0", start):
            orientation = exif_orientation(data[start:end])
        elif marker == _APP2 and data.startswith(_PROFILE, start):
            profile.append(data[start + len(_PROFILE) : end])
        elif marker == _APP14 and end - start >= 12 and data.startswith(b"Adobe", start):
            adobe = data[start + 11]
        position = max(end, start)
    raise refusal(Reason.CORRUPT, f"the JPEG has more than {_MAX_SEGMENTS} segments")


def _last_fill_byte(data: bytes, position: int) -> int:
    """The offset of a marker's own FF, which is the last of any number of FF."""
    found = _FILL.match(data, position)
    assert found is not None
    return found.end() - 1


def without_garbage(data: bytes) -> bytes:
    """The JPEG without stray bytes between the segments before its first scan; ``read_header`` must have passed."""
    parts, position = [data[:2]], 2
    while True:
        position = data.index(b"\xff", position)
        marker = data[position + 1]
        if marker == 0xFF or marker in _STANDALONE:
            position = _last_fill_byte(data, position) if marker == 0xFF else position + 2
            continue
        if marker == _START_OF_SCAN:
            return b"".join((*parts, data[position:]))
        end = position + 2 + max(2, int.from_bytes(data[position + 2 : position + 4], "big"))
        parts.append(data[position:end])
        position = end


def _header(
    frame: tuple[int, bytes] | None,
    orientation: int,
    adobe: int | None,
    profile: bytes | None,
    first_scan: int,
) -> JpegHeader:
    # Frame header: precision (8 bit), lines (16), samples per line (16), components (8), then 3 bytes each.
    if frame is None or len(frame[1]) < 6:
        raise refusal(Reason.CORRUPT, "the JPEG has no frame header")
    marker, body = frame
    height, width, components = int.from_bytes(body[1:3], "big"), int.from_bytes(body[3:5], "big"), body[5]
    if height == 0:
        raise refusal(Reason.UNSUPPORTED_FORMAT, "the JPEG states its height after the data (DNL)")
    if width == 0 or len(body) < 6 + 3 * components:
        raise refusal(Reason.CORRUPT, "the JPEG's frame header is invalid")
    ids = body[6 : 6 + 3 * components : 3]
    coding = _CODINGS.get(marker, "hierarchical")
    return JpegHeader(
        width, height, components, ids, coding, body[0], adobe, orientation, profile, first_scan
    )


def _joined(parts: list[bytes]) -> bytes | None:
    """Joins a profile's segments: number (from 1) and count, 8 bits each, then the part (ICC.1:2022, B.4)."""
    if not parts:
        return None
    numbered = {part[0]: part[2:] for part in parts if len(part) > 2}
    if sorted(numbered) != list(range(1, len(parts) + 1)) or any(part[1] != len(parts) for part in parts):
        return None
    return b"".join(numbered[number] for number in sorted(numbered))


def check_scans(data: bytes, header: JpegHeader) -> int:
    """Walks all scans; raises ``truncated`` if a file closes before every coefficient has its last bit.

    libjpeg accepts such a file, cut between two scans, as whole.

    Returns:
      The components of all scans, counted once per scan: libjpeg may need the time of this many pictures.

    Raises:
      ImageError: ``truncated``; ``corrupt`` if there are more than ``MAX_SCANS``.
    """
    missing = {component: set(range(64)) for component in header.component_ids}
    position, scans, segments, decoded = header.first_scan, 0, 0, 0
    while position + 4 <= len(data) and (marker := data[position + 1]) != _END_OF_IMAGE:
        segments += 1
        if marker in _STANDALONE:
            end = position + 2
        else:
            end = position + 2 + int.from_bytes(data[position + 2 : position + 4], "big")
        if marker == _START_OF_SCAN:
            scans += 1
            # Components (8 bit), 2 bytes each, spectral start and end, successive bit positions (4 + 4).
            body = data[position + 4 : end]
            if len(body) >= 4 and len(body) == 4 + 2 * body[0]:
                decoded += body[0]
                if body[-1] & 0x0F == 0:
                    first, last = (body[-3], body[-2]) if header.progressive else (0, 63)
                    for component in body[1:-3:2]:
                        missing.get(component, set()).difference_update(range(first, last + 1))
        if scans > MAX_SCANS or segments > _MAX_SEGMENTS:
            raise refusal(
                Reason.CORRUPT, f"the JPEG has more than {MAX_SCANS} scans or {_MAX_SEGMENTS} segments"
            )
        found = _NEXT_MARKER.search(data, end)
        if found is None:
            break
        position = found.start()
    if any(missing.values()):
        raise refusal(Reason.TRUNCATED, "the JPEG lacks its last scans")
    return decoded


def has_several_scans(data: bytes, header: JpegHeader) -> bool:
    """Whether the first scan holds only a part of the picture."""
    return header.progressive or data[header.first_scan + 4 : header.first_scan + 5] != bytes(
        (header.components,)
    )
