"""Savings of decoding at a fraction on 12-megapixel photographs: ``python benchmarks/large.py --module HANDLE``.

The photographs are crops of the sample's, enlarged to 4000 × 3000 (Lanczos) with sensor-like noise, as JPEG of quality
85 to 90 with halved chroma. Enlarged pictures are smooth, so the noise determines their size in bytes, which limits the
savings of decoding at a fraction. Each ``--noise`` (standard deviation in levels) has a separate table. Decoders are
timed on encoded bytes in memory, one after the other in each round. Agreement compares the module's best class with the
best class after a full decode. Last, the whole job runs with and without fractions.

Options that are not listed go to the job.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import simplejpeg
from jobs import label
from PIL import Image

from beamlabel.pipeline.demo.sample import sample_photos
from beamlabel.transforms.decoding.decode import DecodeOptions, decode
from beamlabel.transforms.hub.resolve import resolve_module
from beamlabel.transforms.inference.engines import Engine, open_engine
from beamlabel.transforms.module.compile import CompileOptions, compiled

WIDTH, HEIGHT = 4000, 3000
QUALITIES = range(85, 91)
SCALE = (0.7, 1.0)
# The job without fractions.
IN_FULL = (
    "import beamlabel.transforms.decoding.resize as r; r._FULL_DECODE_PIXELS = 10**12; "
    "import beamlabel.pipeline.__main__ as m; m.console()"
)

Decoder = Callable[[bytes], np.ndarray]


def photographs(directory: Path, count: int, noise: float) -> list[Path]:
    """Creates those of ``count`` JPEG files that do not exist yet."""
    directory = directory / f"large-{noise:g}"
    directory.mkdir(parents=True, exist_ok=True)
    paths = [directory / f"{number:05d}.jpg" for number in range(count)]
    missing = [number for number, path in enumerate(paths) if not path.exists()]
    if missing:
        rng = np.random.default_rng(0)
        # One grain for all photographs, shifted for each: mostly in brightness, partly in each color.
        grain = rng.standard_normal((HEIGHT, WIDTH, 1), np.float32)
        grain = noise * (grain + 0.5 * rng.standard_normal((HEIGHT, WIDTH, 3), np.float32))
        originals = [Image.open(path).convert("RGB") for path in sample_photos()]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(partial(_make, paths, originals, grain), missing))
    return paths


def _make(paths: Sequence[Path], originals: Sequence[Image.Image], grain: np.ndarray, number: int) -> None:
    rng = np.random.default_rng(number)
    original = originals[number % len(originals)]
    scale = min(original.width / WIDTH, original.height / HEIGHT) * rng.uniform(*SCALE)
    left, top = (
        rng.uniform(0, original.width - WIDTH * scale),
        rng.uniform(0, original.height - HEIGHT * scale),
    )
    box = (left, top, left + WIDTH * scale, top + HEIGHT * scale)
    pixels = np.asarray(original.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS, box=box))
    shift = (int(rng.integers(HEIGHT)), int(rng.integers(WIDTH)))
    noisy = np.clip(pixels + np.roll(grain, shift, (0, 1)), 0, 255).astype(np.uint8)
    data = simplejpeg.encode_jpeg(noisy, int(rng.choice(QUALITIES)), colorsubsampling="420")
    unfinished = paths[number].with_suffix(".part")
    unfinished.write_bytes(data)
    unfinished.replace(paths[number])


def decoders(height: int, width: int) -> dict[str, Decoder]:
    """Returns functions from bytes to uint8[height, width, 3]."""
    cv2.setNumThreads(1)
    options = DecodeOptions(height, width)

    def resized(pixels: np.ndarray) -> np.ndarray:
        return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_LINEAR)

    def full_opencv(data: bytes) -> np.ndarray:
        flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
        return resized(cv2.imdecode(np.frombuffer(data, np.uint8), flags))

    return {
        "full, OpenCV": full_opencv,
        "full, simplejpeg": lambda data: resized(simplejpeg.decode_jpeg(data, "RGB")),
        "decode()": lambda data: decode(data, options).pixels,
    }


def rates(
    named: dict[str, Decoder], images: Sequence[bytes], threads: int, rounds: int
) -> dict[str, list[float]]:
    """Measures images a second of each decoder in each round."""
    found: dict[str, list[float]] = {name: [] for name in named}
    with ThreadPoolExecutor(threads) as pool:
        for number in range(rounds + 1):
            for name, decoder in named.items():
                begin = time.perf_counter()
                list(pool.map(decoder, images))
                if number:  # the first round warms up
                    found[name].append(len(images) / (time.perf_counter() - begin))
    return found


def show_rates(found: dict[str, list[float]], threads: int) -> None:
    """Prints a line for each decoder: medians over the rounds of rates, and of ratios within a round."""
    ours = found["decode()"]
    for name, rate in found.items():
        ratio = statistics.median(own / other for own, other in zip(ours, rate, strict=True))
        print(f"  {name:20}{threads:9}{statistics.median(rate):12.1f}{ratio:20.2f}")


def agreement(paths: Sequence[Path], engine: Engine) -> tuple[float, float]:
    """Returns the share of images with the same best class as after a full decode.

    The first share is that of ``decode()``; the second is that of a full decode without its first row and column. A
    resize without antialiasing takes one pixel of many, so noise alone changes some answers.
    """
    height, width = engine.spec.height, engine.spec.width
    ours = decoders(height, width)["decode()"]

    def three(path: Path) -> list[np.ndarray]:
        data = path.read_bytes()
        full = simplejpeg.decode_jpeg(data, "RGB")
        resized = [cv2.resize(pixels, (width, height)) for pixels in (full, full[1:, 1:])]
        return [resized[0], ours(data), resized[1]]

    equal = np.zeros(2)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for images in pool.map(three, paths):
            logits, _ = engine(images)
            assert logits is not None
            best = logits.argmax(axis=1)
            equal += best[1:] == best[0]
    return equal[0] / len(paths), equal[1] / len(paths)


def job_rates(paths: Sequence[Path], rounds: int, arguments: Sequence[str]) -> Iterator[tuple[float, float]]:
    """Yields images a second of the whole job in the long run, with and without fractions."""
    few = len(paths) // 5
    with tempfile.TemporaryDirectory() as directory:
        scratch = Path(directory)
        uris = scratch / "list.txt"
        uris.write_text("".join(f"{path}\n" for path in paths))
        label(uris, few, scratch, arguments)
        for _ in range(rounds):
            slopes = []
            for program in (("-m", "beamlabel"), ("-c", IN_FULL)):
                short, whole = (
                    label(uris, n, scratch, arguments, program=program) for n in (few, len(paths))
                )
                slopes.append((len(paths) - few) / (whole.seconds - short.seconds))
            yield slopes[0], slopes[1]


def report(
    paths: Sequence[Path], noise: float, engine: Engine, options: argparse.Namespace, job: list[str]
) -> None:
    """Prints all tables of one kind of photograph."""
    size = statistics.mean(path.stat().st_size for path in paths) / 1e6
    print(f"\nnoise {noise:g}: {len(paths)} photographs of {WIDTH} x {HEIGHT}, {size:.2f} MB on average")
    print(f"  {'decoder':20}{'threads':>9}{'images/s':>12}{'decode() is times':>20}")
    images = [path.read_bytes() for path in paths[: options.timed]]
    for threads in (1, 2):
        named = decoders(engine.spec.height, engine.spec.width)
        show_rates(rates(named, images, threads, options.rounds), threads)
    ours, moved = agreement(paths, engine)
    print(
        f"  best class as after a full decode: {ours:.4f}; of that decode moved by a pixel: {moved:.4f}",
        flush=True,
    )
    if options.job_rounds:
        pairs = list(job_rates(paths, options.job_rounds, job))
        rate, full = (statistics.median(column) for column in zip(*pairs, strict=True))
        ratio = statistics.median(one / other for one, other in pairs)
        print(
            f"  whole job: {rate:.1f} images/s, {full:.1f} without fractions, {ratio:.2f} times", flush=True
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--module", required=True, metavar="HANDLE")
    parser.add_argument(
        "--images", type=int, default=400, help="images for agreement and the job (default 400)"
    )
    parser.add_argument(
        "--timed", type=int, default=24, help="images among them to time decoders with (default 24)"
    )
    parser.add_argument("--rounds", type=int, default=5, help="rounds of the decoders (default 5)")
    parser.add_argument(
        "--job_rounds", type=int, default=5, help="rounds of the whole job (default 5; 0: none)"
    )
    parser.add_argument("--noise", type=float, nargs="+", default=[0.0, 4.0, 6.0], help="default 0 4 6")
    parser.add_argument(
        "--photographs", type=Path, metavar="DIR", help="directory that keeps them for the next run"
    )
    options, arguments = parser.parse_known_args()
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}; {options.module}"
    )
    with tempfile.TemporaryDirectory() as scratch:
        directory = options.photographs or Path(scratch)
        artifact = compiled(resolve_module(options.module, scratch), CompileOptions(), scratch)
        engine = open_engine(artifact.path, artifact.sha256)
        for noise in options.noise:
            paths = photographs(directory, options.images, noise)
            report(paths, noise, engine, options, ["--module", options.module, *arguments])


if __name__ == "__main__":
    main()
