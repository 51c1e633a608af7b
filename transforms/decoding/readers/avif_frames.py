"""The sizes of the AV1 frames in an AVIF, which may differ from those that the file's properties claim.

libavif decodes a frame in full before it scales it to the claimed size.
"""

from __future__ import annotations

from collections.abc import Iterator

from beamlabel.transforms.decoding.picture.options import refusal
from beamlabel.transforms.decoding.readers.binary import part, unpack
from beamlabel.transforms.decoding.readers.boxes import boxes
from beamlabel.transforms.records import Reason

_SEQUENCE_HEADER = 1
# Of a sequence header: 32 operating points of at most 85 bits, and the fields around them.
_HEADER_BYTES = 512
_WHAT = "the AVIF's pictures"
# A sample table lies in four nested boxes: trak, mdia, minf, stbl.
_MOST_DEEP = 4


def frame_sizes(data: bytes) -> Iterator[tuple[int, int]]:
    """Yields the largest width and height of each sequence of frames, in all items and all tracks of the file.

    Raises:
      ImageError: ``truncated`` if the boxes or the data they refer to end beyond the file.
    """
    for kind, start, end in boxes(data, 0, len(data)):
        if kind == b"meta":
            for coded in _items(data, start + 4, min(end, len(data))):
                yield from _sequence_sizes(coded)
        elif kind == b"moov":
            for coded in _first_samples(data, start, min(end, len(data))):
                yield from _sequence_sizes(coded)


def _items(data: bytes, start: int, stop: int) -> Iterator[bytes]:
    """The data of the AV1 items, found by their item locations (ISO/IEC 14496-12, 8.11.3)."""
    inside = list(boxes(data, start, stop))
    coded = {
        number
        for kind, at, end in inside
        if kind == b"iinf"
        for number in _av1_items(data, at, min(end, stop))
    }
    embedded = next((at for kind, at, _ in inside if kind == b"idat"), 0)
    for kind, at, _ in inside:
        if kind != b"iloc":
            continue
        (version, sizes) = unpack(">B3xH", data, at, _WHAT)
        widths = [sizes >> shift & 15 for shift in (12, 8, 4, 0)]
        wide = 4 if version == 2 else 2
        position = at + 6

        def number(size: int) -> int:
            nonlocal position
            position += size
            return int.from_bytes(part(data, position - size, size, _WHAT), "big")

        for _ in range(number(wide)):
            item = number(wide)
            from_idat = number(2) & 15 == 1 if version else False
            number(2)
            base = number(widths[2]) + (embedded if from_idat else 0)
            pieces = []
            for _ in range(number(2)):
                number(widths[3] if version else 0)
                offset, length = base + number(widths[0]), number(widths[1])
                if item in coded:
                    pieces.append(part(data, offset, length or max(0, len(data) - offset), _WHAT))
            yield b"".join(pieces)


def _av1_items(data: bytes, start: int, stop: int) -> Iterator[int]:
    """The numbers of the items whose information entries (8.11.6) declare AV1."""
    (version,) = unpack("B", data, start, _WHAT)
    for kind, at, _ in boxes(data, start + (8 if version else 6), stop):
        if kind == b"infe":
            (version,) = unpack("B", data, at, _WHAT)
            number, _, coding = unpack(">IH4s" if version == 3 else ">HH4s", data, at + 4, _WHAT)
            if coding == b"av01":
                yield number


def _first_samples(data: bytes, start: int, stop: int, deep: int = 0) -> Iterator[bytes]:
    """The first frame of each track: it starts at the first chunk (8.7.5) and has the first sample's size (8.7.3)."""
    place = size = None
    for kind, at, end in boxes(data, start, stop):
        if kind in (b"trak", b"mdia", b"minf", b"stbl"):
            if deep == _MOST_DEEP:
                raise refusal(Reason.CORRUPT, "the AVIF's boxes are nested too deeply")
            yield from _first_samples(data, at, min(end, stop), deep + 1)
        elif kind in (b"stco", b"co64") and unpack(">I", data, at + 4, _WHAT)[0]:
            (place,) = unpack(">I" if kind == b"stco" else ">Q", data, at + 8, _WHAT)
        elif kind == b"stsz":
            all_alike, count = unpack(">II", data, at + 4, _WHAT)
            size = all_alike or (unpack(">I", data, at + 12, _WHAT)[0] if count else 0)
    if place is not None and size is not None:
        yield part(data, place, size, _WHAT)


def _sequence_sizes(coded: bytes) -> Iterator[tuple[int, int]]:
    """The sizes in all readable sequence headers among the open bitstream units (AV1, 5.3 and 5.5)."""
    position = 0
    while position < len(coded):
        head = coded[position]
        position += 2 if head & 4 else 1
        if not head & 2:  # no size: the unit extends to the end
            length = len(coded) - position
        else:
            length = 0
            for shift in range(0, 56, 7):
                if position >= len(coded):
                    return
                length |= (coded[position] & 127) << shift
                position += 1
                if not coded[position - 1] & 128:
                    break
        if head >> 3 & 15 == _SEQUENCE_HEADER:
            yield _size(coded[position : position + min(length, _HEADER_BYTES)])
        position += length


class _Bits:
    """Reads numbers of any bit length, most significant bit first; zeros after the end."""

    def __init__(self, data: bytes) -> None:
        self._left = 8 * _HEADER_BYTES
        self._value = int.from_bytes(data.ljust(_HEADER_BYTES, b"\0"), "big")

    def __call__(self, count: int) -> int:
        self._left -= count
        return self._value >> max(self._left, 0) & ((1 << count) - 1)


def _size(header: bytes) -> tuple[int, int]:
    """Largest width and height of a sequence header (AV1, 5.5.1)."""
    bits = _Bits(header)
    bits(4)
    if bits(1):  # reduced header for still pictures
        bits(5)
    else:
        delay_bits = _skip_timing(bits)
        has_display_delay = bits(1)
        for _ in range(bits(5) + 1):
            bits(12)
            if bits(5) > 7:
                bits(1)
            if delay_bits and bits(1):
                bits(2 * delay_bits + 1)
            if has_display_delay and bits(1):
                bits(4)
    wide, high = bits(4) + 1, bits(4) + 1
    return bits(wide) + 1, bits(high) + 1


def _skip_timing(bits: _Bits) -> int:
    """Skips timing and decoder model (AV1, 5.5.3 and 5.5.4); returns the bits of a buffer's delay, 0 if absent."""
    if not bits(1):
        return 0
    bits(64)
    if bits(1):  # a number with as many bits as there are zeros before it
        zeros = 0
        while zeros < 32 and not bits(1):
            zeros += 1
        bits(zeros if zeros < 32 else 0)
    if not bits(1):
        return 0
    delay_bits = bits(5) + 1
    bits(42)
    return delay_bits
