"""The list of decoded variants: format × colors × depth × compression × layout.

A reader derives each name from a file's header. A variant is listed once its pixels were compared with an independent
reader: for each there is a file in ``tests/data/corpus``, which a test decodes and compares at each run. Other variants
are refused, not guessed.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product

from beamlabel.transforms.decoding.picture.options import refusal
from beamlabel.transforms.records import Reason


def check_variant(name: str) -> None:
    """Raises ``ImageError`` (``unsupported_format``) if ``name`` is not in the list."""
    if name not in VARIANTS:
        raise refusal(Reason.UNSUPPORTED_FORMAT, f"{name}: this variant is not supported")


def _jpeg() -> Iterable[str]:
    for coding in ("baseline", "extended", "progressive", "arithmetic", "progressive arithmetic"):
        for colours in ("gray", "colour", "cmyk"):
            yield f"jpeg {coding} 8 bit {colours}"
    yield "jpeg lossless 8 bit gray"
    yield "jpeg lossless 8 bit colour"


def _png() -> Iterable[str]:
    depths = {
        "gray": (1, 2, 4, 8, 16),
        "rgb": (8, 16),
        "palette": (1, 2, 4, 8),
        "gray+alpha": (8, 16),
        "rgba": (8, 16),
    }
    for kind, bits in depths.items():
        for depth, interlaced in product(bits, ("", " interlaced")):
            yield f"png {kind} {depth} bit{interlaced}"
            if "a" not in kind.partition("+")[2] and kind != "rgba":
                yield f"png {kind} {depth} bit transparent{interlaced}"


def _gif() -> Iterable[str]:
    yield from (
        f"gif {palette} palette{transparent}{interlaced}{part}"
        for palette, transparent, interlaced, part in product(
            ("global", "local"), ("", " transparent"), ("", " interlaced"), ("", " part of the screen")
        )
    )


def _webp() -> Iterable[str]:
    yield from (
        f"webp {coding}{a}" for coding, a in product(("lossy", "lossless", "animated"), ("", " + alpha"))
    )


def _avif() -> Iterable[str]:
    for kind, depth, alpha in product(("4:2:0", "4:2:2", "4:4:4", "gray"), (8, 10, 12), ("", " + alpha")):
        yield f"avif {kind} {depth} bit{alpha}"
    yield "avif animated 4:2:0 8 bit"


def _tiff() -> Iterable[str]:
    orders, layouts = (" little", " big"), ("strips", "tiles")
    codings = ("plain", "lzw", "deflate", "packbits", "zstd", "lzma")
    predicted = tuple(f"{coding} predictor 2" for coding in ("lzw", "deflate", "zstd", "lzma"))
    for kind, bits in (("gray", (1, 2, 4)), ("white is zero", (1, 2, 4)), ("palette", (1, 2, 4))):
        for depth, coding, layout in product(bits, codings, layouts):
            yield f"tiff {kind} {depth} bit, {coding}, {layout}"
    for order, coding, layout in product(orders, ("plain", "deflate"), layouts):
        yield f"tiff gray 12 bit{order}, {coding}, {layout}"
    for kind in ("gray", "white is zero", "palette"):
        wide = () if kind == "palette" else tuple(f"16 bit{order}" for order in orders)
        for name, coding, layout in product(("8 bit", *wide), (*codings, *predicted), layouts):
            yield f"tiff {kind} {name}, {coding}, {layout}"
    both = (*layouts, *(f"{layout} of planes" for layout in layouts))
    depths = ("8 bit", *(f"16 bit{order}" for order in orders))
    kinds = ("rgb {}", "cmyk {}", "rgb {} + alpha", "rgb {} + premultiplied alpha", "gray {} + alpha")
    for kind, name, coding, layout in product(kinds, depths, (*codings, *predicted), both):
        yield f"tiff {kind.format(name)}, {coding}, {layout}"
    for coding, layout in product((*codings, *predicted), layouts):
        yield f"tiff lab 8 bit, {coding}, {layout}"
    for kind, layout in product(("gray", "rgb", "ycbcr"), layouts):
        yield f"tiff {kind} 8 bit, jpeg, {layout}"
    for kind, fax in product(("gray", "white is zero"), ("run lengths", "group 3", "group 4")):
        yield f"tiff {kind} 1 bit, fax {fax}, strips"


def _psd() -> Iterable[str]:
    kinds = {"gray": (8, 16), "rgb": (8, 16), "cmyk": (8, 16), "bitmap": (1,), "palette": (8,)}
    for file, (kind, depths), coding in product(("psd", "psb"), kinds.items(), ("plain", "packbits")):
        yield from (f"{file} {kind} {depth} bit, {coding}" for depth in depths)


def _bmp() -> Iterable[str]:
    for header, rows in product(("info", "v4", "v5"), ("bottom up", "top down")):
        for bits in (1, 4, 8, 16, 24, 32):
            yield f"bmp {header} {bits} bit, plain, {rows}"
        for bits in (16, 32):
            yield f"bmp {header} {bits} bit, masks, {rows}"
        if header != "info":
            yield f"bmp {header} 32 bit + alpha, masks, {rows}"
    for bits in (1, 4, 8, 24):
        yield f"bmp os/2 1 {bits} bit, plain, bottom up"
    for bits, header in product((4, 8), ("info", "v4", "v5")):
        yield f"bmp {header} {bits} bit, rle{bits}, bottom up"
    for bits in (1, 4, 8, 16, 24, 32):
        yield f"dib info {bits} bit, plain, bottom up"


def _others() -> Iterable[str]:
    for kind, coding in product(
        ("pbm", "pgm 8 bit", "pgm 16 bit", "ppm 8 bit", "ppm 16 bit"), ("text", "binary")
    ):
        yield f"{kind}, {coding}"
    for kind in ("ico", "cur"):
        yield f"{kind} of png"
        yield from (f"{kind} info {bits} bit, plain" for bits in (1, 4, 8, 24, 32))
    yield "icns of png"
    yield from ("xbm of char",)
    for kind, alpha in (
        ("gray 8 bit", ""),
        ("gray 16 bit", ""),
        ("rgb 8 bit", ""),
        ("rgb 8 bit", " + alpha"),
    ):
        yield f"jpeg2000 {kind}{alpha}"
    kinds = (
        "palette 8 bit of 24 bit",
        "colour 16 bit",
        "colour 24 bit",
        "colour 32 bit + 8 bit alpha",
        "gray 8 bit",
    )
    corners = ("bottom left", "top left")
    for kind, coding, corner in product(kinds, ("plain", "run lengths"), corners):
        yield f"tga {kind}, {coding}, {corner}"
    for channels, size, coding in product((1, 3, 4), (8, 16), ("plain", "run lengths")):
        yield f"sgi {channels} channels of {size} bit, {coding}"
    # Run lengths are missing, because Pillow reads them wrong.
    for kind, coding in product(("1 bit", "8 bit", "8 bit palette", "24 bit"), ("old", "plain")):
        yield f"sun {kind}, {coding}"
    # One plane of 1 bit is missing, because readers disagree which bit is black.
    for kind in ("4 planes of 1 bit", "1 planes of 8 bit palette", "3 planes of 8 bit"):
        yield f"pcx version 5, {kind}"
    for kind in ("DXT1", "DXT3", "DXT5", "DX10 BC1", "DX10 BC2", "DX10 BC3", "DX10 BC7"):
        yield f"dds {kind}"
    yield "dds 24 bit, masks ff0000/ff00/ff"
    yield "dds 32 bit, masks ff0000/ff00/ff/ff000000"
    for channels, colours in product((3, 4), (0, 1)):
        yield f"qoi {channels} channels, colour space {colours}"


VARIANTS = frozenset(
    name for names in (_jpeg, _png, _gif, _webp, _avif, _tiff, _psd, _bmp, _others) for name in names()
)
"""Every variant that is decoded to a row."""
