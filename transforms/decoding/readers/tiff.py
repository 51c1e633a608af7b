"""Interprets the tags of a TIFF (TIFF 6.0 and supplements), and converts samples to RGB.

``tiff_blocks`` assembles strips and tiles. Pillow decodes bilevel fax pages and JPEG within TIFF.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from PIL import Image

from beamlabel.transforms.decoding.picture.fresh_memory import same_in_any_memory
from beamlabel.transforms.decoding.picture.options import DecodeOptions, Picture, check_pixels, refusal
from beamlabel.transforms.decoding.picture.pillow_image import load
from beamlabel.transforms.decoding.picture.pillow_modes import finish
from beamlabel.transforms.decoding.picture.variants import check_variant
from beamlabel.transforms.decoding.readers.tiff_blocks import Layout, read_samples, with_blocks_as_they_are
from beamlabel.transforms.decoding.readers.tiff_tags import TiffTags, read_tags
from beamlabel.transforms.records import Reason

_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _FILL_ORDER = 256, 257, 258, 259, 262, 266
_ORIENTATION, _SAMPLES, _PLANAR, _PREDICTOR, _COLOUR_MAP, _TILE_WIDTH = 274, 277, 284, 317, 320, 322
_INK_SET, _EXTRA, _SAMPLE_FORMAT, _PROFILE = 332, 338, 339, 34675

_PHOTOMETRICS = {
    0: "white is zero",
    1: "gray",
    2: "rgb",
    3: "palette",
    4: "mask",
    5: "cmyk",
    6: "ycbcr",
    8: "lab",
    9: "icc lab",
    10: "itu lab",
    32803: "filter array",
    34892: "linear raw",
}
_CHANNELS = {"white is zero": 1, "gray": 1, "rgb": 3, "palette": 1, "cmyk": 4, "ycbcr": 3, "lab": 3}
_COMPRESSIONS = {
    1: "plain",
    2: "fax run lengths",
    3: "fax group 3",
    4: "fax group 4",
    5: "lzw",
    6: "old jpeg",
    7: "jpeg",
    8: "deflate",
    32946: "deflate",
    32773: "packbits",
    34925: "lzma",
    50000: "zstd",
}
_ALPHA = {1: "premultiplied alpha", 2: "alpha"}
_FORMATS = {1: "", 2: " signed", 3: " float", 4: " undefined", 5: " complex", 6: " complex float"}
_BY_PILLOW = ("fax run lengths", "fax group 3", "fax group 4", "jpeg")


class _Meaning(NamedTuple):
    """The meaning of the samples: names as in the list of variants."""

    colours: str
    bits: int
    channels: int
    alpha: str | None
    compression: str
    name: str


def read_tiff(data: bytes, options: DecodeOptions) -> Picture:
    """Decodes the first picture of a TIFF or BigTIFF.

    Raises:
      ImageError: ``too_many_pixels``, ``truncated``, ``corrupt`` or ``unsupported_format``.
    """
    tags = read_tags(data)
    width, height = tags.one(_WIDTH, 0), tags.one(_HEIGHT, 0)
    if width < 1 or height < 1:
        raise refusal(Reason.CORRUPT, f"the TIFF has an invalid size of {width}×{height} pixels")
    check_pixels(width, height, options.max_pixels)
    meaning = _meaning(tags)
    check_variant(meaning.name)
    profile = tags.blocks.get(_PROFILE) if options.color_profile == "convert" else None

    def by_libtiff() -> Image.Image:
        image = with_blocks_as_they_are(data, tags, options.max_pixels)
        image.load()
        return image

    def decode() -> tuple[np.ndarray, bool]:
        if meaning.compression.startswith("fax"):
            return finish(
                Image.fromarray(same_in_any_memory(lambda: np.asarray(by_libtiff()), "TIFF")), profile
            )
        if meaning.compression in _BY_PILLOW:
            return finish(by_libtiff(), profile)
        samples = read_samples(data, tags, _layout(tags, meaning, width, height))
        return finish(_image(samples, tags, meaning), profile)

    pixels, converted = load(decode, "TIFF", width, height)
    orientation = tags.one(_ORIENTATION, 1)
    orientation = orientation if 1 <= orientation <= 8 else 1
    return Picture(pixels, width, height, "tiff", orientation, converted=converted)


def _meaning(tags: TiffTags) -> _Meaning:
    colours = _PHOTOMETRICS.get(tags.one(_PHOTOMETRIC, -1), f"photometric {tags.one(_PHOTOMETRIC, -1)}")
    number = tags.one(_COMPRESSION, 1)
    compression = _COMPRESSIONS.get(number, f"compression {number}")
    samples = tags.one(_SAMPLES, 1)
    depths = tags.numbers.get(_BITS, (1,))
    if len(set(depths)) != 1 or len(depths) not in (1, samples):
        raise refusal(
            Reason.UNSUPPORTED_FORMAT, f"a TIFF with {samples} samples of {depths[:8]} bits is not supported"
        )
    formats = set(tags.numbers.get(_SAMPLE_FORMAT, (1,)))
    format_ = "".join(sorted(_FORMATS.get(one, f" sample format {one}") for one in formats))
    channels = _CHANNELS.get(colours, samples)
    extra = tags.numbers.get(_EXTRA, (0,) * (samples - channels))
    alpha = None
    if samples == channels + 1 and len(extra) == 1:
        alpha = _ALPHA.get(extra[0], "a sample of unknown meaning")
    elif samples != channels:
        alpha = f"{samples - channels} more samples"
    if colours == "cmyk" and tags.one(_INK_SET, 1) != 1:
        colours = "inks"
    predictor = tags.one(_PREDICTOR, 1)
    # Only compressions of libtiff's family apply the predictor; for others readers disagree on its meaning.
    coded = compression + (f" predictor {predictor}" if predictor != 1 else "")
    if tags.one(_FILL_ORDER, 1) != 1 and not compression.startswith("fax"):
        coded += " bits reversed"
    layout = "tiles" if _TILE_WIDTH in tags.numbers else "strips"
    layout += " of planes" if tags.one(_PLANAR, 1) == 2 and samples > 1 else ""
    order = {"<": " little", ">": " big"}[tags.order] if depths[0] > 8 else ""
    kind = f"{colours} {depths[0]} bit{order}{format_}" + (f" + {alpha}" if alpha else "")
    return _Meaning(colours, depths[0], channels, alpha, compression, f"tiff {kind}, {coded}, {layout}")


def _layout(tags: TiffTags, meaning: _Meaning, width: int, height: int) -> Layout:
    samples = meaning.channels + (1 if meaning.alpha else 0)
    planes = tags.one(_PLANAR, 1) == 2 and samples > 1
    predictor = tags.one(_PREDICTOR, 1) == 2
    return Layout(width, height, samples, meaning.bits, planes, meaning.compression, predictor)


def _image(samples: np.ndarray, tags: TiffTags, meaning: _Meaning) -> Image.Image | np.ndarray:
    """Converts uint8 or uint16 [H, W, samples] to an image of 8 bits."""
    if meaning.colours == "palette":
        return _palette(tags, meaning.bits)[samples[:, :, 0]]
    if meaning.bits > 8:
        samples = (samples >> (meaning.bits - 8)).astype(np.uint8)
    elif meaning.bits < 8:
        samples = samples * np.uint8(255 // ((1 << meaning.bits) - 1))
    colours = samples[:, :, : meaning.channels]
    if meaning.alpha == "premultiplied alpha":
        # Blend with white: add white in proportion to the transparency.
        through = 255 - samples[:, :, meaning.channels :].astype(np.uint16)
        colours = np.minimum(colours + through, 255).astype(np.uint8)
    if meaning.colours == "white is zero":
        colours = 255 - colours
    if meaning.colours == "lab":
        # a and b are signed, as Pillow expects.
        lab = np.ascontiguousarray(colours)
        return Image.frombytes("LAB", lab.shape[1::-1], lab.tobytes())
    channels = colours.shape[2]
    plain = np.ascontiguousarray(colours[:, :, 0] if channels == 1 else colours)
    if meaning.alpha != "alpha" and channels != 4:
        return plain
    image = Image.fromarray(plain, {1: "L", 3: "RGB", 4: "CMYK"}[channels])
    if meaning.alpha == "alpha":
        image.putalpha(Image.fromarray(np.ascontiguousarray(samples[:, :, meaning.channels])))
    return image


def _palette(tags: TiffTags, bits: int) -> np.ndarray:
    """uint8[2 ** bits, 3] from 16 bits per value, all reds first."""
    values = tags.numbers.get(_COLOUR_MAP, ())
    if len(values) != 3 << bits or max(values) > 65535:
        raise refusal(Reason.CORRUPT, f"the TIFF's palette has {len(values)} values for {bits} bits")
    if 0 < max(values) < 256:  # some writers store 8 bits here; a dark palette looks the same
        raise refusal(Reason.UNSUPPORTED_FORMAT, "all values of the TIFF's palette lie below 256")
    return (np.array(values, np.uint16).reshape(3, -1).T >> 8).astype(np.uint8)
