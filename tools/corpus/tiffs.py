"""TIFFs, written by tifffile; read by tifffile and imagecodecs."""

from __future__ import annotations

import io
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyvips
import skimage.color
import tifffile
from PIL import Image

from tools.corpus.entry import (
    HEIGHT,
    WIDTH,
    Entry,
    alpha,
    deep,
    from_cmyk,
    gray,
    on_white,
    photo,
    rgb,
    run,
    saved,
)

_NAME = re.compile(
    r"tiff (?P<colours>gray|white is zero|palette|rgb|cmyk|lab|ycbcr) (?P<bits>\d+) bit(?P<order> little| big)?"
    r"(?P<alpha> \+ (?:premultiplied )?alpha)?, (?P<coding>\S+)(?P<predictor> predictor 2)?, "
    r"(?P<layout>strips|tiles)(?P<planes> of planes)?"
)
_PHOTOMETRIC = {
    "gray": "minisblack",
    "white is zero": "miniswhite",
    "palette": "palette",
    "rgb": "rgb",
    "cmyk": "separated",
    "lab": "cielab",
    "ycbcr": "ycbcr",
}
_COMPRESSION = {
    "plain": None,
    "lzw": "lzw",
    "deflate": "zlib",
    "packbits": "packbits",
    "zstd": "zstd",
    "lzma": "lzma",
    "jpeg": "jpeg",
}


def tiffs(names: list[str]) -> Iterator[Entry]:
    """Yields an entry for each name."""
    for number, name in enumerate(names):
        found = _NAME.fullmatch(name)
        if found:
            yield _entry(name, found, number)
        else:
            yield _fax(name)
            if "group" in name:
                yield _bits_reversed(_fax(name))


def _samples(colours: str, bits: int, with_alpha: str) -> np.ndarray:
    if colours in ("rgb", "ycbcr"):
        values = photo()
    elif colours == "cmyk":
        values = np.asarray(Image.fromarray(255 - photo()).convert("CMYK"))[..., [2, 0, 1, 3]].copy()
        values[..., 3] = gray()[::-1] // 3
    elif colours == "lab":
        lab = pyvips.Image.new_from_array(photo()).colourspace("lab").numpy()
        scaled = np.stack((lab[..., 0] * 2.55, lab[..., 1], lab[..., 2]), axis=-1)
        return np.round(scaled).astype(np.int16).astype(np.uint8)
    elif colours == "palette":
        return gray() >> (8 - bits)
    else:
        values = gray()
    if with_alpha:
        opacity = alpha()[..., np.newaxis]
        colour = values if values.ndim == 3 else values[..., np.newaxis]
        if "premultiplied" in with_alpha:
            colour = (colour.astype(np.uint16) * opacity // 255).astype(np.uint8)
        values = np.concatenate((colour, opacity), axis=2)
    if bits == 16:
        return deep(values)
    if bits == 12:
        return deep(values) >> 4
    return values >> (8 - bits)


def _palette(bits: int) -> np.ndarray:
    return np.random.default_rng(bits).integers(0, 65536, (3, 1 << bits)).astype(np.uint16)


def _entry(name: str, found: re.Match[str], number: int) -> Entry:
    colours, bits, with_alpha = found["colours"], int(found["bits"]), found["alpha"] or ""
    samples = _samples(colours, bits, with_alpha)
    planes = bool(found["planes"])
    options: dict[str, object] = {
        "photometric": _PHOTOMETRIC[colours],
        "compression": _COMPRESSION[found["coding"]],
        "predictor": 2 if found["predictor"] else None,
        "byteorder": {" big": ">", " little": "<", None: "<>"[number % 2]}[found["order"]],
        "bigtiff": number % 3 == 0,
        "metadata": None,
        "software": False,
    }
    if colours == "rgb" and found["coding"] == "jpeg":  # otherwise tifffile writes YCbCr
        options["compressionargs"] = {"outcolorspace": "rgb"}
    if samples.ndim == 3:
        options["planarconfig"] = "separate" if planes else "contig"
    if with_alpha:
        options["extrasamples"] = ["assocalpha" if "premultiplied" in with_alpha else "unassalpha"]
    if colours == "palette" and bits == 8:
        options["colormap"] = _palette(bits)
    elif colours == "palette":  # tifffile writes palettes of 8 bits only
        options["photometric"] = "minisblack"
        options["extratags"] = [(320, 3, 3 << bits, _palette(bits).ravel().tolist(), True)]
    if found["layout"] == "tiles":
        options["tile"] = (16, 16)
    else:
        options["rowsperstrip"] = 8 if found["coding"] == "jpeg" else 5
    buffer = io.BytesIO()
    packed = bits not in (8, 16)
    if packed:  # tifffile packs bits, and does not compress or tile them
        options |= {"bitspersample": bits, "compression": None, "tile": None, "byteorder": "<"}
    tifffile.imwrite(buffer, np.moveaxis(samples, -1, 0) if planes else samples, **options)
    if options["photometric"] == "minisblack" and colours == "palette":
        buffer.seek(0)
        with tifffile.TiffFile(buffer) as file:
            at = file.pages[0].tags[262].valueoffset
        buffer.getbuffer()[at] = 3
    data = _rewritten(buffer.getvalue(), found) if packed else buffer.getvalue()
    read = tifffile.imread(io.BytesIO(data))
    read = np.moveaxis(read, 0, -1) if planes else read
    read = read.astype(np.uint8) if read.dtype == bool else read
    if found["coding"] == "jpeg":
        return Entry(name, data, rgb(read), "tifffile", 1)
    np.testing.assert_array_equal(read, samples)
    tolerance = 4 if colours == "lab" else 1 if with_alpha or colours == "cmyk" else 0
    return Entry(name, data, _meant(read, colours, bits, with_alpha), "tifffile", tolerance)


def _rewritten(data: bytes, found: re.Match[str]) -> bytes:
    """Rewrites the file with libtiff's tiffcp: compressed, in tiles or strips."""
    coding = {"plain": "none", "deflate": "zip"}.get(found["coding"], found["coding"])
    layout = ("-t", "-w", "16", "-l", "16") if found["layout"] == "tiles" else ("-s", "-r", "5")
    with tempfile.TemporaryDirectory() as directory:
        before, after = Path(directory) / "before.tif", Path(directory) / "after.tif"
        before.write_bytes(data)
        run("tiffcp", "-B" if found["order"] == " big" else "-L", "-c", coding, *layout, before, after)
        return after.read_bytes()


def _from_lab(values: np.ndarray) -> np.ndarray:
    """Converts CIELab of 8 bits for D50 (TIFF 6.0, section 23) to RGB with scikit-image's formulas."""
    signed = values.astype(np.int8)[..., 1:].astype(float)
    lab = np.concatenate((values[..., :1] / 2.55, signed), axis=2)
    xyz = skimage.color.lab2xyz(lab, illuminant="D50")
    # Adapts to the white of sRGB (Bradford).
    cone = np.array(((0.8951, 0.2664, -0.1614), (-0.7502, 1.7135, 0.0367), (0.0389, -0.0685, 1.0296)))
    whites = [skimage.color.xyz_tristimulus_values(illuminant=name, observer="2") for name in ("D50", "D65")]
    adapt = np.linalg.inv(cone) @ np.diag(cone @ whites[1] / (cone @ whites[0])) @ cone
    return np.round(np.clip(skimage.color.xyz2rgb(xyz @ adapt.T), 0, 1) * 255).astype(np.uint8)


def _meant(read: np.ndarray, colours: str, bits: int, with_alpha: str) -> np.ndarray:
    if colours == "lab":
        return _from_lab(read)
    if colours == "palette":
        return (_palette(bits) >> 8).astype(np.uint8).T[read]
    values = (read >> (bits - 8) if bits > 8 else read * (255 // ((1 << bits) - 1))).astype(np.uint8)
    if colours == "white is zero":
        return rgb(255 - values)
    if colours == "cmyk":
        return from_cmyk(values)
    if not with_alpha:
        return rgb(values)
    colour, opacity = values[..., :-1], values[..., -1]
    colour = colour.squeeze(-1) if colour.shape[2] == 1 else colour
    if "premultiplied" in with_alpha:
        return np.minimum(rgb(colour).astype(int) + 255 - opacity[..., np.newaxis], 255).astype(np.uint8)
    return on_white(colour, opacity)


def _fax(name: str) -> Entry:
    bits = Image.fromarray(gray() > 110)
    compression = {"run lengths": "tiff_ccitt", "group 3": "group3", "group 4": "group4"}[
        name.split("fax ")[1][:-8]
    ]
    data = saved(bits, "TIFF", compression=compression, tiffinfo={262: 0} if "white is zero" in name else {})
    pixels = tifffile.imread(io.BytesIO(data))
    photometric = tifffile.TiffFile(io.BytesIO(data)).pages[0].photometric
    assert (photometric == 0) == ("white is zero" in name), (name, photometric)
    black_is_zero = pixels.astype(bool) != (photometric == 0)
    return Entry(name, data, rgb(np.where(black_is_zero, 255, 0).astype(np.uint8)), "tifffile")


def _bits_reversed(fax: Entry) -> Entry:
    """Returns the fax with the bits of each byte reversed (FillOrder 2), by libtiff's tiffcp."""
    with tempfile.TemporaryDirectory() as directory:
        before, after = Path(directory) / "before.tif", Path(directory) / "after.tif"
        before.write_bytes(fax.data)
        run("tiffcp", "-f", "lsb2msb", "-c", "g4" if "group 4" in fax.variant else "g3", before, after)
        return fax._replace(data=after.read_bytes())


assert WIDTH % 8 and HEIGHT % 8  # so that rows and tiles are not full
