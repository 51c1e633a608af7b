"""Photographs for measurements, made from the sample's eight: as large as ImageNet's, all different, and reproducible.

Each is a random crop of one of the eight, perhaps mirrored, resized to about 0.2 megapixels, with a little sensor noise
(an enlarged crop is too smooth to cost as much as a photograph), as JPEG of quality 85 to 95.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from beamlabel.pipeline.demo.sample import sample_photos

# Width and height in pixels, and their frequency, similar to ImageNet's.
SIZES = {
    (500, 375): 50,
    (375, 500): 15,
    (500, 333): 15,
    (333, 500): 8,
    (500, 400): 6,
    (480, 360): 3,
    (500, 500): 3,
}
SCALE = (0.7, 1.0)
NOISE = (12.0, 24.0)
QUALITY = (85, 95)
# Part of the directory's name, so that a change of the above makes new files.
_FORMAT = 1


def photographs(cache: Path, count: int, *, seed: int = 0) -> list[Path]:
    """Returns ``count`` JPEG files below ``cache``; uses files of earlier calls again.

    A photograph depends only on ``seed`` and its number, so a smaller set is the start of a larger one.
    """
    directory = cache / f"photographs-{_FORMAT}-{seed}"
    directory.mkdir(parents=True, exist_ok=True)
    paths = [directory / f"{number:06d}.jpg" for number in range(count)]
    missing = [number for number, path in enumerate(paths) if not path.exists()]
    if missing:
        originals = [Image.open(path).convert("RGB") for path in sample_photos()]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(partial(_make, paths, originals, seed), missing))
    return paths


def _make(paths: Sequence[Path], originals: Sequence[Image.Image], seed: int, number: int) -> None:
    rng = np.random.default_rng([seed, number])
    original = originals[number % len(originals)]
    weights = np.array(list(SIZES.values()))
    width, height = list(SIZES)[rng.choice(len(SIZES), p=weights / weights.sum())]
    scale = min(original.width / width, original.height / height) * rng.uniform(*SCALE)
    left = rng.uniform(0, original.width - width * scale)
    top = rng.uniform(0, original.height - height * scale)
    box = (left, top, left + width * scale, top + height * scale)
    crop = original.resize((width, height), Image.Resampling.BICUBIC, box=box)
    if rng.random() < 0.5:
        crop = crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    noise = rng.standard_normal((height, width, 3), np.float32) * rng.uniform(*NOISE)
    noisy = np.clip(np.asarray(crop) + noise, 0, 255).astype(np.uint8)
    unfinished = paths[number].with_suffix(".part")
    Image.fromarray(noisy).save(unfinished, "JPEG", quality=int(rng.integers(QUALITY[0], QUALITY[1] + 1)))
    unfinished.replace(paths[number])  # so that an existing file is complete


def write_list(path: Path, images: Sequence[Path], count: int) -> Path:
    """Writes a list of ``count`` lines that repeats the images."""
    with path.open("w") as file:
        file.writelines(f"{image}\n" for image in itertools.islice(itertools.cycle(images), count))
    return path


def write_csv(path: Path, images: Sequence[Path], count: int) -> Path:
    """Writes the same as CSV, with columns of strings, quoted strings, numbers and times (``TABLE_COLUMNS``)."""
    with path.open("w") as file:
        file.write("id,uri,text,price,taken\n")
        file.writelines(
            f'{number:08d},{image},"no. {number}, as it was",{number / 7!r},2024-01-01T10:00:{number % 60:02d}Z\n'
            for number, image in enumerate(itertools.islice(itertools.cycle(images), count))
        )
    return path


TABLE_COLUMNS = ("id", "text", "price", "taken")
