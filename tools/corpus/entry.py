"""The corpus entry, the source pictures, and the independent readers."""

from __future__ import annotations

import io
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import skimage.data
from PIL import Image

WIDTH, HEIGHT = 19, 17


class Entry(NamedTuple):
    """An encoded image and the pixels that an independent reader finds in it.

    Attributes:
      variant: its name in the list of variants.
      data: the file.
      pixels: uint8[H, W, 3], RGB, sRGB, on white.
      reader: the independent reader.
      tolerance: the most levels of 255 by which a value may differ: 0 if a format defines every pixel, 1 if
        readers round 16 bits or alpha differently, more for lossy formats.
    """

    variant: str
    data: bytes
    pixels: np.ndarray
    reader: str
    tolerance: int = 0


def photo(width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """A piece of a photograph with all its colors: uint8[H, W, 3]."""
    coffee = Image.fromarray(skimage.data.coffee()).crop((120, 40, 420, 340))
    # In steps, so that the stored files are small.
    return np.asarray(coffee.resize((width, height), Image.Resampling.BOX)) & 0xF0 | 0x07


def gray(width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """Returns the photograph in gray: uint8[H, W]."""
    return np.asarray(Image.fromarray(photo(width, height)).convert("L"))


def alpha(width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """Alpha from 0 at the left to 255 at the right: uint8[H, W]."""
    row = np.clip(np.linspace(-40, 295, width), 0, 255).astype(np.uint8)
    return np.repeat(row[np.newaxis], height, axis=0)


def palette(seed: int, size: int = 256) -> np.ndarray:
    """Random colors: uint8[size, 3]."""
    return np.random.default_rng(seed).integers(0, 256, (size, 3)).astype(np.uint8)


def deep(values: np.ndarray) -> np.ndarray:
    """Widens 8 bits to 16, with lower bytes that differ from the upper ones."""
    wide = values.astype(np.uint16)
    return wide << 8 | (wide * 151 + 37) & 255


def rgb(values: np.ndarray) -> np.ndarray:
    """Gray or RGB of 8 bits → uint8[H, W, 3]."""
    values = np.asarray(values)
    return np.repeat(values[..., np.newaxis], 3, axis=2) if values.ndim == 2 else values


def on_white(colours: np.ndarray, opacity: np.ndarray) -> np.ndarray:
    """Puts colors of 8 bits with alpha of 8 bits on white."""
    share = opacity.astype(float)[..., np.newaxis] / 255
    return np.round(rgb(colours) * share + 255 * (1 - share)).astype(np.uint8)


def from_cmyk(ink: np.ndarray) -> np.ndarray:
    """CMYK of 8 bits (0 is no ink), without a profile."""
    values = ink.astype(float)
    return np.round((255 - values[..., :3]) * (255 - values[..., 3:]) / 255).astype(np.uint8)


def saved(image: Image.Image, format_: str, **options: object) -> bytes:
    """Encodes the image with Pillow."""
    buffer = io.BytesIO()
    image.save(buffer, format_, **options)
    return buffer.getvalue()


def run(*command: str | Path, data: bytes | None = None) -> bytes:
    """Runs a program and returns its output."""
    return subprocess.run(list(map(str, command)), input=data, capture_output=True, check=True).stdout


def magick(data: bytes, kind: str, *options: str) -> np.ndarray:
    """ImageMagick's RGBA of the first picture, on white."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / f"image.{kind}"
        path.write_bytes(data)
        source = f"{kind}:{path}[0]"
        size = run("convert", source, *options, "-format", "%wx%h", "info:").decode().split("x")
        raw = run("convert", source, *options, "-colorspace", "sRGB", "-depth", "8", "RGBA:-")
    pixels = np.frombuffer(raw, np.uint8).reshape(int(size[1]), int(size[0]), 4)
    return on_white(pixels[..., :3], pixels[..., 3])


def magick_cmyk(data: bytes, kind: str) -> np.ndarray:
    """ImageMagick's CMYK of the first picture, through the formula without a profile."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / f"image.{kind}"
        path.write_bytes(data)
        size = run("identify", "-format", "%wx%h", f"{path}[0]").decode().split("x")
        raw = run("convert", f"{path}[0]", "-depth", "8", "CMYK:-")
    return from_cmyk(np.frombuffer(raw, np.uint8).reshape(int(size[1]), int(size[0]), 4))


def ffmpeg(
    data: bytes, kind: str, pixel_format: str = "rgba", size: tuple[int, int] = (WIDTH, HEIGHT)
) -> np.ndarray:
    """FFmpeg's first frame, from FFmpeg's own decoders, on white."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / f"image.{kind}"
        path.write_bytes(data)
        flags = "accurate_rnd+full_chroma_int+full_chroma_inp+bitexact"
        raw = run(
            *("ffmpeg", "-v", "error", "-i", path, "-frames:v", "1", "-sws_flags", flags, "-f", "rawvideo"),
            *("-pix_fmt", pixel_format, "-"),
        )
    pixels = np.frombuffer(raw, np.uint8).reshape(size[1], size[0], -1)
    return on_white(pixels[..., :3], pixels[..., 3]) if pixels.shape[2] == 4 else pixels


def netpbm(program: str, data: bytes) -> np.ndarray:
    """The output of one of netpbm's converters."""
    return rgb(np.asarray(Image.open(io.BytesIO(run(program, data=data))).convert("RGB")))


def check_programs() -> None:
    """Ends the program if a reader is missing."""
    names = ("convert", "ffmpeg", "djpeg", "cjpeg", "tiffcp", "icns2png", "tgatoppm", "pcxtoppm")
    missing = [name for name in names if not shutil.which(name)]
    if missing:
        raise SystemExit(f"missing programs: {', '.join(missing)}; see tools/corpus/README.md")
