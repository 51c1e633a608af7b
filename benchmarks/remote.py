"""Objects 50 ms away against local files: ``python benchmarks/remote.py --module HANDLE``.

The same photographs are labeled from local files and from ``gs://``, behind a server that speaks Google Cloud
Storage's protocol and waits before each answer. Runs are interleaved, each a process of its own over a warm
module cache. What is left out as start-up: figures are slopes, between a run over all images and one over a
tenth of them. The server shares the machine's cores; its CPU time is measured and shown.

Options that are not listed go to the pipeline.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import process_tree
from throughput import make_images

BUCKET = "photographs"
SERVER = Path(__file__).with_name("object_server.py")


class Slope(NamedTuple):
    """Of one round and one place: in the long run, without the start."""

    images_per_second: float
    cpu_ms: float
    server_cpu_ms: float
    peak_mb: float


@contextmanager
def serving(folder: Path, delay: float) -> Iterator[tuple[int, str]]:
    """A server of the folder's files; its process id and URL."""
    command = [sys.executable, str(SERVER), str(folder), BUCKET, str(delay)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    try:
        yield server.pid, server.stdout.readline().strip()
    finally:
        server.terminate()
        server.wait()


def label(uris: Path, output: Path, limit: int, url: str, arguments: list[str]) -> process_tree.Cost:
    """One run of the pipeline."""
    command = [sys.executable, "-m", "pipeline", "--input", str(uris), "--limit", str(limit)]
    command += ["--output", str(output), "--if_exists", "overwrite", *arguments]
    cost = process_tree.run(command, {"STORAGE_EMULATOR_HOST": url})
    rows = json.loads((output / "_MANIFEST.json").read_text())["rows"]
    assert rows["predicted"] == limit, rows
    return cost


def slope(
    uris: Path, output: Path, few: int, many: int, server: tuple[int, str], arguments: list[str]
) -> Slope:
    """A short and a long run, and what the images between them cost."""
    pid, url = server
    spent = [process_tree.cpu_seconds(pid)]
    costs = []
    for limit in (few, many):
        costs.append(label(uris, output, limit, url, arguments))
        spent.append(process_tree.cpu_seconds(pid))
    short, whole = costs
    images = many - few
    return Slope(
        images / (whole.seconds - short.seconds),
        (whole.cpu_seconds - short.cpu_seconds) / images * 1e3,
        (spent[2] - 2 * spent[1] + spent[0]) / images * 1e3,
        whole.peak_mb,
    )


def show(rounds: list[dict[str, Slope]]) -> None:
    """The table, medians over the rounds."""
    print(f"{'':8}{'images/s':>10}{'CPU ms/image':>14}{'server CPU ms/image':>21}{'peak MB':>9}")
    for place in rounds[0]:
        middle = Slope(
            *(statistics.median(column) for column in zip(*(r[place] for r in rounds), strict=True))
        )
        print(
            f"{place:8}{middle.images_per_second:10.1f}{middle.cpu_ms:14.2f}"
            f"{middle.server_cpu_ms:21.3f}{middle.peak_mb:9.0f}"
        )
    rates = [r["gs://"].images_per_second / r["local"].images_per_second for r in rounds]
    costs = [r["local"].cpu_ms / r["gs://"].cpu_ms for r in rounds]
    for name, ratios in (("throughput", rates), ("1 / CPU time", costs)):
        low, middle, high = min(ratios), statistics.median(ratios), max(ratios)
        print(
            f"{name} of gs:// as a share of local: {middle:.3f} (median of {len(ratios)}; {low:.3f} to {high:.3f})"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=4000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--delay", type=float, default=0.05, help="seconds before each answer (default 0.05)")
    options, arguments = parser.parse_known_args()
    few = max(options.images // 10, 1)
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}; {' '.join(arguments)}"
    )
    print(f"{options.images} images, {options.delay * 1e3:g} ms before each answer", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        files = make_images(Path(scratch) / "images", options.images)
        objects = Path(scratch) / "objects.txt"
        names = [Path(line).name for line in files.read_text().splitlines()]
        objects.write_text("".join(f"gs://{BUCKET}/{name}\n" for name in names))
        places = {"local": files, "gs://": objects}
        with serving(Path(scratch) / "images", options.delay) as server:
            output = Path(scratch) / "out"
            label(files, output, few, server[1], arguments)  # fills the caches
            rounds = []
            for number in range(options.rounds):
                order = list(places)[:: 1 if number % 2 == 0 else -1]
                found = {p: slope(places[p], output, few, options.images, server, arguments) for p in order}
                rounds.append({place: found[place] for place in places})
        show(rounds)


if __name__ == "__main__":
    main()
