"""Measures the job on each runner of this machine: ``python benchmarks/runners.py --module HANDLE``.

Start-up is the whole time for a few images. Long runs take turns: on a Flink cluster whose two TaskManagers have one
core each, with one and with both TaskManagers, and in memory with both cores. The rate excludes start-up: it is
measured between the first image at the sink and the last shard, by the times in the manifest. Needs
``tools/setup_flink.sh`` and ``tools/setup_prism.sh``; missing runners are left out.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from photos import photographs, write_list

from support.flink_cluster import JOB_SERVER_JAR, FlinkCluster
from support.runner_jobs import PRISM

ROOT = Path(__file__).resolve().parents[1]

LOCAL = {
    "in memory": [],
    "threads x 2": ["--direct_running_mode", "multi_threading", "--direct_num_workers", "2"],
    "processes x 2": ["--direct_running_mode", "multi_processing", "--direct_num_workers", "2"],
}


class Job:
    """One run: its manifest, and the seconds of the command."""

    def __init__(self, scratch: Path, uris: Path, arguments: Sequence[str], options: Sequence[str]) -> None:
        output = scratch / "out"
        shutil.rmtree(output, ignore_errors=True)
        command = [
            sys.executable,
            "-m",
            "beamlabel",
            "--input",
            uris,
            "--output",
            output,
            *arguments,
            *options,
        ]
        begin = time.monotonic()
        done = subprocess.run(
            list(map(str, command)),
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        self.seconds = time.monotonic() - begin
        if done.returncode:
            raise RuntimeError(f"exit code {done.returncode}: {done.stderr[-3000:]}")
        self.manifest: dict[str, Any] = json.loads((output / "_MANIFEST.json").read_text())

    @property
    def rate(self) -> float:
        """Images a second, from the first image at the sink to the last shard."""
        files = [file for file in self.manifest["files"] if file["kind"] == "data"]
        begin, end = (
            choose(datetime.fromisoformat(file[name]) for file in files)
            for choose, name in ((min, "started_at"), (max, "finished_at"))
        )
        return float(self.manifest["rows"]["predicted"] / (end - begin).total_seconds())


def middle(values: Sequence[float]) -> str:
    """Formats median, lowest and highest."""
    return f"{statistics.median(values):.2f} ({min(values):.2f}–{max(values):.2f})"


def start_ups(
    scratch: Path, uris: Path, arguments: Sequence[str], engines: dict[str, list[str]], rounds: int
) -> None:
    """Prints the whole time for a few images on each runner."""
    seconds: dict[str, list[float]] = {name: [] for name in engines}
    for _ in range(rounds):
        for name, options in engines.items():
            seconds[name].append(Job(scratch, uris, arguments, options).seconds)
    print("\n| engine | seconds for 20 images |\n| --- | --- |")
    for name, values in seconds.items():
        print(f"| {name} | {middle(values)} |", flush=True)


def long_runs(
    scratch: Path, uris: Path, arguments: Sequence[str], cluster: FlinkCluster, rounds: int
) -> None:
    """Prints rates on one TaskManager, on two, and in memory, and the bytes that Flink shuffles."""
    over = cluster.runner_options("PortableRunner")
    place = over.index("--parallelism") + 1
    engines = {
        "in memory, both cores": [],
        "Flink, parallelism 1, one core": [*over[:place], "1", *over[place + 1 :]],
        "Flink, parallelism 2, both cores": over,
    }
    rates: dict[str, list[float]] = {name: [] for name in engines}
    for _ in range(rounds):
        for name, options in engines.items():
            job = Job(scratch, uris, arguments, options)
            rates[name].append(job.rate)
            print(f"{name}: {job.rate:.1f} images/s, {job.seconds:.1f} s", file=sys.stderr, flush=True)
    print("\n| | images/s in the long run |\n| --- | --- |")
    for name, values in rates.items():
        print(f"| {name} | {middle(values)} |")
    local, one, two = rates.values()
    print(f"\nparallelism 2 / 1: {middle([b / a for a, b in zip(one, two, strict=True)])}")
    print(f"parallelism 2 / in memory: {middle([b / a for a, b in zip(local, two, strict=True)])}")
    images = job.manifest["rows"]["predicted"]
    print(f"bytes shuffled an image: {cluster.written_bytes(list(cluster.jobs())[-1]) / images:.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--module", required=True, metavar="HANDLE")
    parser.add_argument("--images", type=int, default=6000, help="images of a long run (default 6000)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--photographs", type=Path, metavar="DIR", help="directory that keeps them for the next run"
    )
    options, arguments = parser.parse_known_args()
    arguments = ["--module", options.module, *arguments]
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    with tempfile.TemporaryDirectory() as directory:
        scratch = Path(directory)
        images = photographs(options.photographs or scratch / "photos", min(options.images, 4000))
        few, many = (write_list(scratch / f"{count}.txt", images, count) for count in (20, options.images))
        engines = dict(LOCAL)
        if PRISM.exists():
            engines["Prism"] = ["--runner", "PrismRunner", "--prism_location", str(PRISM)]
        Job(scratch, few, arguments, [])  # fills the cache of modules
        if not JOB_SERVER_JAR.exists():
            start_ups(scratch, few, arguments, engines, options.rounds)
            return
        cluster = FlinkCluster(scratch / "cluster", cores=(0, 1))
        try:
            engines["Flink, FlinkRunner"] = cluster.runner_options()
            engines["Flink, a job server that runs"] = cluster.runner_options("PortableRunner")
            start_ups(scratch, few, arguments, engines, options.rounds)
            long_runs(scratch, many, arguments, cluster, options.rounds)
        finally:
            cluster.close()


if __name__ == "__main__":
    main()
