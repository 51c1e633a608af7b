"""Half an hour of photographs, faults, kills and resumed runs: ``python benchmarks/soak.py --module HANDLE``.

Runs label lists of photographs in several formats, local and on a loopback server, one after the other. A fifth of the
references have a fault with a known outcome (``tests/support/faulty_references.py``). About every minute a process is
killed: the process group, the launcher or one worker process by SIGKILL, or the launcher by SIGTERM. Then the run is
resumed. At its end, each reference must have either one row, which equals bit for bit the photograph's row in a run
without faults, or one failure with the reason of its fault. No other file may be left. A last run, with as many faults
and no kills, is watched for growth of memory, threads and descriptors.

Prints rows of tables in Markdown; ends with 1 if a check fails. Options that are not listed go to the job.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from growth import Sample, Watch, trend, warmed_up
from photos import photographs
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from support.faulty_references import Reference, References
from support.kills import staged_images
from support.soak import KILLS, Launches, Soak
from support.soaked_rows import Outcome, Truth, check_rows

_DONE, _OUT_OF_TIME = 0, 4
# Weights of KILLS.
_WEIGHTS = (5, 2, 3, 3)
_MOST_PAUSES = 5
_OPTIONS = ("--shard_rows", 200, "--fetch_deadline", 12, "--decode_deadline", 5)
# Formats besides plain JPEG, each for one photograph of 30: suffix, Pillow's name, and options for writing.
_FORMATS = (
    (".jpg", "JPEG", {"progressive": True}),
    (".png", "PNG", {}),
    (".png", "PNG", {"compress_level": 1}),
    (".webp", "WEBP", {}),
    (".webp", "WEBP", {"lossless": True}),
    (".gif", "GIF", {}),
    (".tif", "TIFF", {"compression": "tiff_lzw"}),
    (".avif", "AVIF", {}),
    (".bmp", "BMP", {}),
    (".jp2", "JPEG2000", {"quality_mode": "rates", "quality_layers": [20]}),
)
# Allowed growth over the watched time, by the fitted line, as a share of the median; it must also be significant.
_GROWTH = {"pss_mb": 0.05, "rss_mb": 0.05, "threads": 0.05, "descriptors": 0.05}


def many_formats(images: Sequence[Path], directory: Path) -> list[Path]:
    """Returns the photographs, a third of them converted to other formats."""
    directory.mkdir(parents=True)
    paths = []
    for number, image in enumerate(images):
        place = number % (3 * len(_FORMATS))
        if place >= len(_FORMATS):
            paths.append(image)
            continue
        ending, name, how = _FORMATS[place]
        paths.append(directory / f"{number:06d}{ending}")
        Image.open(image).save(paths[-1], name, **how)
    return paths


class Clock:
    """Chooses victims at random moments, ``every`` seconds apart on average, until the time is over.

    On a busy machine a launch may need longer to stage anything: the kill then waits for that, up to some times as
    long.
    """

    def __init__(self, seconds: float, every: float, rng: random.Random) -> None:
        self._every, self._rng = every, rng
        self.end = time.monotonic() + seconds
        self._kill()

    def due(self, output: str) -> str | None:
        """Returns the victim to kill now in a run into ``output``, or None."""
        now = time.monotonic()
        if now < self._next or now >= self.end:
            return None
        if now < self._latest and staged_images(output) == self._staged:
            return None
        self._kill()
        self._staged = staged_images(output)
        return self._rng.choices(KILLS, _WEIGHTS)[0]

    def _kill(self) -> None:
        self._next = time.monotonic() + self._every * self._rng.uniform(0.3, 1.7)
        self._latest = time.monotonic() + self._every * _MOST_PAUSES
        self._staged = 0


class Runs:
    """The runs, one after the other, and their outcomes."""

    def __init__(self, options: argparse.Namespace, arguments: Sequence[str], scratch: Path) -> None:
        self._options, self._scratch = options, scratch
        self._arguments = ["--module", options.module, *_OPTIONS, *arguments]
        self.rng = random.Random(options.seed)
        self.total, self.runs = Outcome(), 0
        self.soak = Soak()
        images = many_formats(photographs(scratch, options.distinct), scratch / "formats")
        self.references = References(scratch / "images", images, slow=True)
        self.truth = self._truth()

    def _truth(self) -> Truth:
        references = [Reference(os.fsencode(path)) for path in self.references.photos]
        launches = Launches(self._scratch / "truth", references, self._arguments, self._scratch)
        process = launches.start("--worker_processes", 1)
        if process.wait():
            raise RuntimeError(f"the run without faults ended with {process.returncode}: {launches.said()}")
        return Truth(launches.output, len(references))

    def run_with_kills(self) -> None:
        """Starts runs until the time is over; lets the last one end."""
        clock = Clock(self._options.minutes * 60, self._options.kill_every, self.rng)
        while time.monotonic() < clock.end:
            references = self._drawn(self._options.references)
            output = self._scratch / f"run-{self.runs:03d}"
            launches = Launches(output, references, self._arguments, self._scratch)
            if not self.soak.run(launches, partial(clock.due, str(output)), lambda: self.rng.choice((1, 2))):
                break
            self._check(launches, references)
        self.total.problems += self.soak.problems

    def run_steadily(self) -> list[Sample]:
        """Makes a run without kills, which starts no unit after the time is over."""
        references = self._drawn(self._options.steady_references)
        output = self._scratch / f"run-{self.runs:03d}"
        launches = Launches(output, references, self._arguments, self._scratch)
        seconds = round(self._options.steady_minutes * 60)
        process = launches.start("--worker_processes", 2, "--time_limit", f"{seconds}s")
        watch = Watch(launches.running)
        watch.start()
        code = process.wait()
        watch.stop()
        if code not in (_DONE, _OUT_OF_TIME):
            self.total.problems.append(f"the run without kills ended with {code}: {launches.said()}")
            return []
        self._check(launches, references)
        # At the end there is less work.
        return [one for one in watch.samples if one.seconds < seconds]

    def _drawn(self, count: int) -> list[Reference]:
        return self.references.draw(count, self._options.fault_share, self.rng)

    def _check(self, launches: Launches, references: Sequence[Reference]) -> None:
        outcome = check_rows(launches.output, references, self.truth)
        self.total.add(outcome)
        self.runs += 1
        done = f"{outcome.predicted} predicted, {outcome.failed} failed, {outcome.skipped} skipped"
        kills = sum(self.soak.kills.values())
        print(f"run {self.runs}: {done}; {kills} kills so far; load {os.getloadavg()[0]:.1f}", flush=True)
        for problem in outcome.problems:
            print(f"  {problem}", flush=True)
        if left := launches.temporary_files():
            print(f"  temporary files: {left[:5]}", flush=True)
        if not outcome.problems:
            shutil.rmtree(launches.output)


def show_growth(samples: Sequence[Sample]) -> list[str]:
    """Prints a row for each watched figure; returns those that grow."""
    watched = warmed_up(samples)
    if len(watched) < 10:
        return [f"only {len(watched)} samples"]
    minutes = (watched[-1].seconds - watched[0].seconds) / 60
    print(f"\n| {len(watched)} samples in {minutes:.1f} minutes | median | growth | at least |")
    print("| --- | ---: | ---: | ---: |")
    problems = []
    for name, share in _GROWTH.items():
        found = trend(watched, name)
        print(f"| {name} | {found.median:.0f} | {found.growth:+.1f} | {found.least:+.1f} |")
        if found.least > 0 and found.growth > share * found.median:
            problems.append(f"{name} grow by {found.growth:.1f} of {found.median:.0f}")
    return problems


def show(runs: Runs, options: argparse.Namespace) -> None:
    """Prints the row of docs/reliability.md."""
    kills = ", ".join(f"{count} × {what}" for what, count in sorted(runs.soak.kills.items()))
    ends = ", ".join(f"{count} × {how}" for how, count in sorted(runs.soak.ends.items()))
    total = runs.total
    print(f"\nkills: {kills}; launches ended: {ends}; {runs.references.requests} requests to the servers")
    print(f"{total.predicted} predicted, {total.failed} failed, {total.skipped} skipped by the time limit")
    print("| attack | how injected | runs | images | lost | doubled | wrong reason | wrong row | command |")
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | --- |")
    command = f"`python benchmarks/soak.py --minutes {options.minutes:g} --seed {options.seed}`"
    print(
        f"| soak: {options.fault_share:.0%} faults, a kill every {options.kill_every:g} s | {kills} | {runs.runs} | "
        f"{total.predicted + total.failed} | {total.lost} | {total.doubled} | {total.wrong_reasons} | "
        f"{total.wrong_rows} | {command} |",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--module", default="demo", metavar="HANDLE", help="default: the demo module")
    parser.add_argument("--minutes", type=float, default=30, help="minutes with kills (default 30)")
    parser.add_argument(
        "--kill_every", type=float, default=60, help="mean seconds between kills (default 60)"
    )
    parser.add_argument(
        "--fault_share", type=float, default=0.2, help="share of faulty references (default 0.2)"
    )
    parser.add_argument(
        "--steady_minutes",
        type=float,
        default=10,
        help="minutes without kills, watched for growth (default 10)",
    )
    parser.add_argument(
        "--references", type=int, default=6000, help="references of a run with kills (default 6000)"
    )
    parser.add_argument(
        "--steady_references", type=int, default=100_000, help="more than the run without kills can label"
    )
    parser.add_argument("--distinct", type=int, default=600, help="photographs (default 600)")
    parser.add_argument("--seed", type=int, default=0)
    options, arguments = parser.parse_known_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    with tempfile.TemporaryDirectory() as directory:
        cache = Path(os.environ.setdefault("BEAMLABEL_CACHE", f"{directory}/cache"))
        try:
            problems = soak(options, arguments, Path(directory), cache)
        finally:
            Launches(Path(directory, "none"), [], [], Path(directory)).end()
    for problem in problems:
        print(f"- {problem}")
    sys.exit(bool(problems))


def soak(options: argparse.Namespace, arguments: Sequence[str], scratch: Path, cache: Path) -> list[str]:
    """Runs the whole soak; returns its problems."""
    runs = Runs(options, arguments, scratch)
    cached = set(cache.rglob("*"))
    runs.run_with_kills()
    problems = []
    if options.steady_minutes:
        problems += show_growth(runs.run_steadily())
    if now := set(cache.rglob("*")) - cached:
        problems.append(f"files left in the cache: {sorted(map(str, now))}")
    runs.references.close()
    show(runs, options)
    return problems + runs.total.problems


if __name__ == "__main__":
    main()
