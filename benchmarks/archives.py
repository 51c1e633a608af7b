"""Memory and cost of archives: ``python benchmarks/archives.py --photographs DIR``.

Archives of growing size, up to 2 GB, repeat photographs of 0.2 megapixels. The cost of an image is the difference
between a run and the run above it in the table. Then the same photographs are read as files, from a tar and from a zip,
in turns. The engine computes nothing (``stub_job.py``), which leaves reading and decoding. Each run is a separate
process; memory is the peak of PSS over its process tree.

Options that are not listed go to the job.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import statistics
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

from jobs import run
from measure import Cost
from photos import photographs

STUB = str(Path(__file__).with_name("stub_job.py"))


def write_tar(path: Path, images: Sequence[Path], size: int) -> int:
    """Writes a tar of at least ``size`` bytes; returns its number of images."""
    count = written = 0
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        for number, image in enumerate(itertools.cycle(images)):
            if written >= size and number >= len(images):
                return count
            archive.add(image, f"photographs/{number:07d}.jpg")
            written, count = written + image.stat().st_size, count + 1
    raise AssertionError("a cycle has no end")


def label(source: Path, images: int, scratch: Path, arguments: Sequence[str]) -> Cost:
    """Runs the job over all images of an input and returns its cost."""
    output = scratch / "out"
    command = [sys.executable, STUB, "--input", str(source), "--output", str(output)]
    cost = run([*command, "--if_exists", "overwrite", *arguments], scratch, repeat=False)
    rows = json.loads((output / "_MANIFEST.json").read_text())["rows"]
    if rows["predicted"] != images:
        raise RuntimeError(f"{images} images, but the manifest says {rows}")
    return cost


def grow(sizes: Sequence[int], images: Sequence[Path], scratch: Path, arguments: Sequence[str]) -> None:
    """Measures and prints a line for each size."""
    print(f"{'MB':>6}{'images':>9}{'seconds':>9}{'CPU ms/image':>14}{'peak MiB':>10}", flush=True)
    before, cpu_before = 0, 0.0
    for size in sizes:
        path = scratch / "grown.tar"
        count = write_tar(path, images, size << 20)
        cost = label(path, count, scratch, arguments)
        each = (cost.cpu_seconds - cpu_before) / (count - before) * 1e3
        print(f"{size:6}{count:9}{cost.seconds:9.1f}{each:14.2f}{cost.pss_mb:10.0f}", flush=True)
        before, cpu_before = count, cost.cpu_seconds
        path.unlink()


def compare(images: Sequence[Path], scratch: Path, rounds: int, arguments: Sequence[str]) -> None:
    """Measures the same images in each form; prints medians over the rounds."""
    sources = {"files": scratch / "list.txt", "tar": scratch / "same.tar", "zip": scratch / "same.zip"}
    sources["files"].write_text("".join(f"{image}\n" for image in images))
    write_tar(sources["tar"], images, 0)
    with zipfile.ZipFile(sources["zip"], "w") as archive:
        for image in images:
            archive.write(image, image.name)
    costs: dict[str, list[Cost]] = {name: [] for name in sources}
    for _ in range(rounds):
        for name, source in sources.items():
            costs[name].append(label(source, len(images), scratch, arguments))
    print(
        f"\n{len(images)} images, {rounds} rounds\n{'':>6}{'seconds':>9}{'CPU seconds':>13}{'peak MiB':>10}"
    )
    for name, found in costs.items():
        middle = [
            statistics.median(getattr(cost, field) for cost in found)
            for field in ("seconds", "cpu_seconds", "pss_mb")
        ]
        print(f"{name:>6}{middle[0]:9.2f}{middle[1]:13.2f}{middle[2]:10.0f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", default="250,1000,2000", metavar="MB,...")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--distinct", type=int, default=2000, help="number of different photographs")
    parser.add_argument(
        "--photographs", type=Path, metavar="DIR", help="directory that keeps them for the next run"
    )
    options, arguments = parser.parse_known_args()
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}; {' '.join(arguments)}"
    )
    with tempfile.TemporaryDirectory() as directory:
        scratch = Path(directory)
        images = photographs(options.photographs or scratch, options.distinct)
        grow(sorted(int(size) for size in options.sizes.split(",") if size), images, scratch, arguments)
        if options.rounds:
            compare(images, scratch, options.rounds, arguments)


if __name__ == "__main__":
    main()
