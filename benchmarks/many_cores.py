"""A machine of many cores, simulated on a small one: ``python benchmarks/many_cores.py``.

Decoding (1.8 ms an image) and inference (3.7 ms) sleep instead of computing. Sleeping takes neither a core nor Python's
lock, so Python, Beam, the sink and the seams between processes cause any loss against the ideal rate, cores / 5.5 ms.
The real cores carry the overhead of all processes, whose CPU time per image is printed too. If overhead times rate is
near the number of real cores, the simulation is meaningless.

Each line shows rates of four kinds: the slope between a short and a long run, which excludes start and end; the middle
of the long run, when all processes run; the time in which units are open; and the whole long run.
"""

from __future__ import annotations

import argparse
import bisect
import itertools
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

DECODE_SECONDS, INFERENCE_SECONDS = 0.0018, 0.0037
IDEAL_SECONDS = DECODE_SECONDS + INFERENCE_SECONDS
_CORES = "MANY_CORES"
# The number of the slow worker process, counted from 1, and its factor: "2x10".
_SLOW = "MANY_CORES_SLOW"
# Factor of all times, for a busy machine or to measure only the seams.
_TIMES = "MANY_CORES_TIMES"
_JPEGS = 200


def simulate() -> None:
    """Makes this process one of a machine with many cores, in the launcher and, as a Beam plugin, in workers."""
    import stub_job

    from beamlabel.transforms.inference.engines import EngineSession
    from beamlabel.transforms.inference.interpreter_pool import Chunks
    from beamlabel.transforms.loading import load_images
    from beamlabel.transforms.worker import compute_pool, cpu

    factor = _slowness() * float(os.environ.get(_TIMES, 1))

    def cores(*_: object) -> int:
        return int(min(int(os.environ[_CORES]), cpu._share))

    class Sleeper:
        def run(self, images: Any) -> list[np.ndarray | None]:
            time.sleep(INFERENCE_SECONDS * factor * len(images))
            features = np.random.default_rng(0).random((len(images), stub_job.FEATURES), np.float32)
            return [np.zeros((len(images), stub_job.CLASSES), np.float32), features]

    def open_payload(spec: Any, payload: Any, threads: int | None = None, path: Any = None) -> EngineSession:
        return EngineSession(Chunks(spec, 4, Sleeper, threads).run, "stub", "float32")

    decode = load_images.decode

    def slow_decode(*arguments: Any) -> Any:
        image = decode(*arguments)
        time.sleep(DECODE_SECONDS * factor)
        return image

    load_images.decode = slow_decode
    compute_pool.available_cores = cores
    stub_job.open_payload = open_payload
    stub_job.engines._ENGINES["stub"] = "stub_job"
    choose = sys.modules.get("beamlabel.pipeline.runners.choose")
    if choose is not None:
        choose.available_cores = cores  # type: ignore[attr-defined]


def _slowness() -> float:
    number, _, factor = os.environ.get(_SLOW, "").partition("x")
    return float(factor) if number and os.environ.get("WORKER_ID", "").endswith(f"_{number}") else 1.0


def run_job(argv: Sequence[str]) -> None:
    """Runs the job like ``stub_job``, on the simulated machine."""
    import stub_job

    import beamlabel.pipeline.runners.choose  # noqa: F401 (so that its cores are simulated)

    simulate()
    stub_job.run_job(["--beam_plugins=many_cores", *argv])


@dataclass(frozen=True)
class Run:
    """One run.

    Attributes:
      images: number of labeled images.
      seconds, cpu: wall-clock and CPU seconds of the whole run.
      working: seconds from the start of the first unit to the end of the last one.
      steady: images a second in the middle of the run, when all processes run: from the unit that completes 45 % of
        the images to the unit that completes 95 %.
    """

    images: int
    seconds: float
    cpu: float
    working: float
    steady: float


def measured(scratch: Path, uris: Path, cores: int, images: int, options: Sequence[str], slow: str) -> Run:
    """Runs the job in a separate process."""
    output = scratch / "out"
    subprocess.run(["rm", "-rf", str(output)], check=True)
    root = Path(__file__).parent.parent
    environment = {
        **os.environ,
        _CORES: str(cores),
        _SLOW: slow,
        "PYTHONPATH": os.pathsep.join([str(root), str(root / "benchmarks")]),
    }
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    command = [
        sys.executable,
        __file__,
        "--job",
        "--input",
        str(uris),
        "--limit",
        str(images),
        "--output",
        str(output),
    ]
    finished = subprocess.run([*command, *options], env=environment, capture_output=True, text=True)
    if finished.returncode:
        raise SystemExit(finished.stderr)
    seconds, after = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
    manifest = json.loads((output / "_MANIFEST.json").read_text())
    assert manifest["rows"]["predicted"] == images, manifest["rows"]
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    files = [file for file in manifest["files"] if file.get("started_at")]
    begun, ended = ([_seconds(file[name]) for file in files] for name in ("started_at", "finished_at"))
    working = max(ended) - min(begun)
    done = sorted((_seconds(file["finished_at"]), file["rows"]) for file in files)
    counts = list(itertools.accumulate(rows for _, rows in done))
    first, last = (bisect.bisect_left(counts, part * images) for part in (0.45, 0.95))
    steady = (counts[last] - counts[first]) / max(done[last][0] - done[first][0], 1e-3)
    return Run(images, seconds, spent, working, steady)


def _seconds(moment: str) -> float:
    return datetime.fromisoformat(moment.replace("Z", "+00:00")).timestamp()


def references(scratch: Path, count: int) -> Path:
    """Writes a list of references to some hundred small JPEGs."""
    from PIL import Image

    directory = scratch / "images"
    directory.mkdir()
    random = np.random.default_rng(0)
    for number in range(_JPEGS):
        pixels = random.integers(0, 256, (16, 16, 3), np.uint8)
        Image.fromarray(pixels).save(directory / f"{number}.jpg")
    uris = scratch / "list.txt"
    uris.write_text("".join(f"{directory}/{number % _JPEGS}.jpg\n" for number in range(count)))
    return uris


def line(cores: int, label: str, short: Run, long: Run) -> str:
    """Returns a row of the table."""
    ideal = cores / IDEAL_SECONDS / float(os.environ.get(_TIMES, 1))
    images = long.images - short.images
    slope = images / (long.seconds - short.seconds)
    cpu = (long.cpu - short.cpu) / images
    whole = long.images / long.seconds
    working = long.images / long.working
    return (
        f"| {cores} | {label} | {slope / ideal:.0%} | {long.steady / ideal:.0%} | {working / ideal:.0%} | "
        f"{whole / ideal:.0%} | "
        f"{cpu * 1e3:.2f} |"
    )


def main() -> None:
    if sys.argv[1:2] == ["--job"]:
        run_job(sys.argv[2:])
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--cores", default="8,16,32", help="numbers of simulated cores (default: %(default)s)"
    )
    parser.add_argument(
        "--processes", default="1,auto", help="values of --worker_processes (default: %(default)s)"
    )
    parser.add_argument("--short", type=int, default=10_000, help="images (default: %(default)s)")
    parser.add_argument("--long", type=int, default=50_000, help="images (default: %(default)s)")
    parser.add_argument("--times", default="1", help="factor of all times (default: 1)")
    parser.add_argument("--slow", default="", help="NxF: worker process N takes F times as long")
    options, rest = parser.parse_known_args()
    os.environ[_TIMES] = options.times
    print("Of the ideal rate; CPU milliseconds an image.\n")
    print("| cores | processes | slope | in the middle | while units run | whole run | CPU |")
    print("| ---: | --- | ---: | ---: | ---: | ---: | ---: |", flush=True)
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        uris = references(scratch, options.long)
        for cores in map(int, options.cores.split(",")):
            for processes in options.processes.split(","):
                words = ["--worker_processes", processes, *rest]
                short, long = (
                    measured(scratch, uris, cores, images, words, options.slow)
                    for images in (options.short, options.long)
                )
                print(line(cores, processes, short, long), flush=True)


if __name__ == "__main__":
    main()
elif _CORES in os.environ:
    simulate()  # as a Beam plugin, in a worker process
