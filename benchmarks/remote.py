"""Objects 50 ms away compared with local files: ``python benchmarks/remote.py --module HANDLE``.

The same photographs are labeled from local files and from ``gs://``, served by a server that speaks Google Cloud
Storage's protocol and waits before each answer. Runs are interleaved; each is a separate process with a warm module
cache. Figures exclude start-up: they are slopes between a run over all images and a run over a tenth of them. The
server shares the machine's cores; its CPU time is measured and shown.

Options that are not listed go to the pipeline.
"""

from __future__ import annotations

import argparse
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

from jobs import label
from measure import Cost
from photos import photographs

BUCKET = "photographs"
SERVER = Path(__file__).with_name("object_server.py")


class Slope(NamedTuple):
    """Figures of one round and one place in the long run, without start-up."""

    images_per_second: float
    cpu_ms: float
    server_cpu_ms: float
    peak_mb: float


def cpu_seconds(pid: int) -> float:
    """Returns the user and system time of a running process, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def serving(directory: Path, delay: float) -> Iterator[tuple[int, str]]:
    """Serves the directory's files; yields the server's process id and URL."""
    command = [sys.executable, str(SERVER), str(directory), BUCKET, str(delay)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    try:
        yield server.pid, server.stdout.readline().strip()
    finally:
        server.terminate()
        server.wait()


def slope(
    uris: Path, few: int, many: int, server: tuple[int, str], scratch: Path, arguments: list[str]
) -> Slope:
    """Measures a short and a long run; returns the cost of the images between them."""
    pid, url = server
    costs: list[Cost] = []
    served: list[float] = []
    for images in (few, many):
        before = cpu_seconds(pid)
        costs.append(label(uris, images, scratch, arguments, {"STORAGE_EMULATOR_HOST": url}))
        served.append(cpu_seconds(pid) - before)
    short, whole = costs
    return Slope(
        (many - few) / (whole.seconds - short.seconds),
        (whole.cpu_seconds - short.cpu_seconds) / (many - few) * 1e3,
        (served[1] - served[0]) / (many - few) * 1e3,
        whole.pss_mb,
    )


def show(rounds: list[dict[str, Slope]]) -> None:
    """Prints the table, with medians over the rounds."""
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
    parser.add_argument(
        "--photographs", type=Path, metavar="DIR", help="directory that keeps them for the next run"
    )
    options, arguments = parser.parse_known_args()
    few = max(options.images // 10, 1)
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}; {' '.join(arguments)}"
    )
    print(f"{options.images} images, {options.delay * 1e3:g} ms before each answer", flush=True)
    with tempfile.TemporaryDirectory() as directory:
        scratch = Path(directory)
        paths = photographs(options.photographs or scratch, options.images)
        places = {"local": scratch / "files.txt", "gs://": scratch / "objects.txt"}
        places["local"].write_text("".join(f"{path}\n" for path in paths))
        places["gs://"].write_text("".join(f"gs://{BUCKET}/{path.name}\n" for path in paths))
        with serving(paths[0].parent, options.delay) as server:
            label(places["local"], few, scratch, arguments)  # fills the caches
            rounds = []
            for number in range(options.rounds):
                order = list(places)[:: 1 if number % 2 == 0 else -1]
                found = {p: slope(places[p], few, options.images, server, scratch, arguments) for p in order}
                rounds.append({place: found[place] for place in places})
        show(rounds)


if __name__ == "__main__":
    main()
