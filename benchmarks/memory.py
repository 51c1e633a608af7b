"""Peak memory and cost per image at growing numbers: ``python benchmarks/memory.py --module HANDLE``.

First the real job runs. Then, at up to a million references, an engine that computes nothing (``stub_job.py``) runs
over tiny images. Lists repeat the lines of some thousand photographs: the job does not detect repetitions. Each run is
a separate process; memory is the peak of PSS over its process tree, sampled four times a second. A rate or CPU time per
image is the difference between a run and the run above it in the table.

Options that are not listed go to the job.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jobs import label
from measure import Cost
from photos import TABLE_COLUMNS, photographs, write_csv, write_list
from PIL import Image

STUB = (str(Path(__file__).with_name("stub_job.py")),)
# Larger runs are compared with a run over this many images, to show that memory stays flat.
BASE = 5000


def tiny(directory: Path, count: int) -> list[Path]:
    """Writes different JPEG files of 16 × 16 pixels."""
    directory.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    paths = [directory / f"{number:05d}.jpg" for number in range(count)]
    for path in paths:
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8)).save(path, quality=90)
    return paths


def show(counts: Sequence[int], costs: dict[int, list[Cost]]) -> None:
    """Prints a line for each count, with medians over the rounds."""
    middle = {
        count: [
            statistics.median(getattr(cost, name) for cost in costs[count])
            for name in ("seconds", "cpu_seconds")
        ]
        for count in counts
    }
    peaks = {count: statistics.median(cost.pss_mb for cost in costs[count]) for count in counts}
    base = peaks.get(BASE, peaks[counts[0]])
    print(
        f"{'images':>9}{'seconds':>10}{'images/s':>10}{'CPU ms/image':>14}{'peak MiB':>10}{'to ' + str(BASE):>9}"
    )
    for before, count in zip([0, *counts], counts, strict=False):
        seconds, cpu = (
            now - then for now, then in zip(middle[count], middle.get(before, [0, 0]), strict=True)
        )
        rate, cost = (count - before) / seconds, cpu / (count - before) * 1e3
        peak = peaks[count]
        print(
            f"{count:9}{middle[count][0]:10.1f}{rate:10.1f}{cost:14.2f}{peak:10.0f}{peak / base:9.3f}",
            flush=True,
        )


def compare(
    counts: Sequence[int],
    images: Sequence[Path],
    scratch: Path,
    rounds: int,
    program: Sequence[str],
    arguments: Sequence[str],
    *,
    csv: bool,
) -> None:
    """Runs all counts in each round and shows them."""
    if csv:
        arguments = [*arguments, "--keep_columns", *TABLE_COLUMNS]
        lists = {count: write_csv(scratch / f"table-{count}.csv", images, count) for count in counts}
    else:
        lists = {count: write_list(scratch / f"list-{count}.txt", images, count) for count in counts}
    label(lists[counts[0]], min(64, counts[0]), scratch, arguments, program=program)  # fills the caches
    costs: dict[int, list[Cost]] = {count: [] for count in counts}
    for _ in range(rounds):
        for count in counts:
            costs[count].append(label(lists[count], count, scratch, arguments, program=program, repeat=False))
    show(counts, costs)


def _counts(text: str) -> list[int]:
    return sorted(int(count) for count in text.split(",") if count)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--module", required=True, metavar="HANDLE")
    parser.add_argument("--counts", type=_counts, default=[1000, 5000, 20_000, 100_000], metavar="N,...")
    parser.add_argument("--stub_counts", type=_counts, default=[5000, 100_000, 1_000_000], metavar="N,...")
    parser.add_argument(
        "--rounds", type=int, default=1, help="default 1: a round takes a quarter of an hour or more"
    )
    parser.add_argument(
        "--distinct", type=int, default=5000, help="number of different photographs (default 5000)"
    )
    parser.add_argument(
        "--photographs", type=Path, metavar="DIR", help="directory that keeps them for the next run"
    )
    parser.add_argument(
        "--csv", action="store_true", help="write CSV instead of lists, and keep its other columns"
    )
    options, arguments = parser.parse_known_args()
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}; {' '.join(arguments)}"
    )
    with tempfile.TemporaryDirectory() as directory:
        scratch = Path(directory)
        if options.counts:
            images = photographs(options.photographs or scratch, min(options.distinct, options.counts[-1]))
            print(f"\n{options.module}", flush=True)
            module = ["--module", options.module, *arguments]
            program = ("-m", "beamlabel")
            compare(options.counts, images, scratch, options.rounds, program, module, csv=options.csv)
        if options.stub_counts:
            images = tiny(scratch / "tiny", min(options.distinct, options.stub_counts[-1]))
            print("\nan engine that computes nothing", flush=True)
            compare(options.stub_counts, images, scratch, options.rounds, STUB, arguments, csv=options.csv)


if __name__ == "__main__":
    main()
