"""Thirty nights over a directory in which photographs are added, changed, deleted, touched, broken and mended.

The module changes twice. Three nights are killed, two reach their time limit, three have a slow clock, and on one the
directory seems empty. In the end, the compacted table must equal a run over all remaining photographs, and the view of
docs/nightly.md.

::

    PYTHONPATH=. python benchmarks/nightly.py --seed 1

Old nights are compacted and deleted on the way, as docs/nightly.md allows. It uses the tests' helpers of the checkout
and ends with 1 if something differs.
"""

from __future__ import annotations

import argparse
import importlib
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import duckdb
import numpy as np
import pyarrow.parquet as pq
from PIL import Image

sys.path.append(str(Path(__file__).parents[1] / "tests"))

from beamlabel.pipeline.options.command_table import COMMANDS
from beamlabel.pipeline.options.parser import parse
from beamlabel.pipeline.run import run as run_job
from beamlabel.transforms.units import open_unit
from support.current_view import current_view
from support.jobs import TINY, read_examples
from support.staged import staged_files

NIGHTS, COMPACTED, NEW_MODULES, KILLED, OUT_OF_TIME = 30, (10, 20), (9, 18), (5, 14, 23), (7, 21)
# Nights without changes, with a clock that is a day slow, and with a bucket that seems empty.
QUIET, SLOW_CLOCK, EMPTY = (4, 11, 12, 26), (8, 16, 24), (13,)
DAY = 86_400


class Bucket:
    """The photographs and their daily changes."""

    def __init__(self, directory: Path, seed: int) -> None:
        self.directory = directory
        self.directory.mkdir()
        self._chance = random.Random(seed)
        self._made = 0
        self._deleted: dict[Path, bytes] = {}
        self._before: dict[Path, bytes] = {}

    def day(self) -> None:
        """Adds, replaces, breaks, mends, touches, copies and deletes photographs, and restores deleted ones."""
        there = sorted(self.directory.glob("*.png"))
        for _ in range(self._chance.randrange(4, 25)):
            self._made += 1
            self._write(self.directory / f"photo {self._made:04d}.png")
        chosen = self._chance.sample(there, min(len(there), 16))
        for path in chosen[:4]:
            self._write(path)
        for path in chosen[4:6]:
            self._before.setdefault(path, path.read_bytes())
            path.write_bytes(path.read_bytes()[:200])
        for path in chosen[6:7]:
            path.write_bytes(b"<html>")
        for path in chosen[7:11]:
            self._touch(path)
        for path in chosen[11:12]:
            shutil.copyfile(path, self.directory / f"copy of {path.name}")
        for path in chosen[12 : 12 + self._chance.randrange(5)]:
            self._deleted[path] = path.read_bytes()
            path.unlink()
        self._bring_back()

    def _bring_back(self) -> None:
        """Restores some deleted photographs, unchanged or changed, and some broken ones as they were before."""
        for path in self._chance.sample(sorted(self._deleted), min(len(self._deleted), 2)):
            if self._chance.random() < 0.5:
                path.write_bytes(self._deleted.pop(path))
                if self._chance.random() < 0.5:
                    self._write(path)
        for path in self._chance.sample(sorted(self._before), min(len(self._before), 1)):
            if self._chance.random() < 0.5 and path.exists():
                path.write_bytes(self._before.pop(path))

    def _touch(self, path: Path) -> None:
        stat = path.stat()
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + self._chance.randrange(10**9, 10**12)))

    def _write(self, path: Path) -> None:
        random_ = np.random.default_rng(self._chance.randrange(2**32))
        corners = random_.integers(0, 256, (2, 2, 3)).astype(np.uint8)
        Image.fromarray(corners).resize((48, 40), Image.Resampling.BICUBIC).save(path)


def modules(directory: Path) -> list[Path]:
    """Returns the tiny module, and two copies with an added file and therefore other fingerprints."""
    made = [Path(TINY)]
    for number in range(len(NEW_MODULES)):
        note = directory / f"note {number}"
        note.write_text(f"version {number}")
        made.append(directory / f"module {number}.tar.gz")
        with tarfile.open(TINY) as there, tarfile.open(made[-1], "w:gz") as new:
            for member in there:
                new.addfile(member, there.extractfile(member) if member.isfile() else None)
            new.add(note, "assets/note.txt")
    return made


def run(*words: object, code: int = 0) -> None:
    """Runs ``beamlabel`` in this process, which has already imported everything."""
    texts = [str(word) for word in words]
    if texts[0] in COMMANDS:
        ended = importlib.import_module(COMMANDS[texts[0]].module).main(texts[1:])
    else:
        ended = run_job(*parse(texts))
    if ended != code:
        raise SystemExit(f"{' '.join(texts)} ended with {ended}, not with {code}")


def kill(directory: Path, *words: object) -> None:
    """Runs ``beamlabel`` in a process and kills it when it has staged a unit for an output in ``directory``."""
    command = [sys.executable, "-m", "beamlabel", *map(str, words)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and not staged_files(directory, "units/*.json"):
        time.sleep(0.005)
    process.kill()
    process.wait()
    sys.stderr.write(f"killed: {process.returncode == -signal.SIGKILL}\n")


class Nights:
    """Runs the nightly command, night by night.

    Args:
      directory: directory of all files.
      seed: seed of the changes.
      written: options of the output's format.
    """

    def __init__(self, directory: Path, seed: int, written: Sequence[str]) -> None:
        self.directory = directory
        self.bucket, self.modules = Bucket(directory / "photos", seed), modules(directory)
        self.source: list[object] = ["--input", f"{directory}/photos/", "--input_format", "images"]
        self.source += ["--max_error_rate", "1", "--shard_rows", "16", *written]

    def output(self, night: int) -> Path:
        return self.directory / "labels" / f"dt={night:02d}"

    def words(self, night: int) -> list[object]:
        """Returns the arguments of the command."""
        module = self.modules[sum(night >= changed for changed in NEW_MODULES)]
        skip = [
            "--skip_labeled",
            f"{self.directory}/current/*/",
            f"{self.directory}/labels/dt=*/",
            "--changed",
        ]
        skip += ["--tombstones", "--if_exists", "resume"]
        return [*self.source, *skip, "--module", module, "--output", self.output(night)]

    def live(self, night: int) -> None:
        """Runs a day and the night after it."""
        if night not in QUIET:
            self.bucket.day()
        os.environ["SOURCE_DATE_EPOCH"] = str(1_800_000_000 + DAY * (night - 2 * (night in SLOW_CLOCK)))
        if night in EMPTY:
            self._empty(night)
        if night in KILLED:
            kill(self.directory / "labels", *self.words(night))
        if night in OUT_OF_TIME:
            with mock.patch.object(open_unit, "time", Clock()):
                run(*self.words(night), "--time_limit", "1h", code=4)
        run(*self.words(night))
        run("verify", self.output(night))
        manifest = self.manifest(night)
        rows, skipped = manifest["rows"], manifest["skipped_by_reason"]
        sys.stderr.write(f"night {night}: {rows}, {skipped}, {manifest['deleted']} gone\n")
        # A night with repeated work, or with a new module, is not quiet.
        if night in QUIET and (rows["predicted"] or rows["failed"] or manifest["deleted"]):
            raise SystemExit(f"night {night}: the run changed something although no photograph had changed")
        if not (self.output(night) / "_SUCCESS").exists():
            raise SystemExit(f"night {night}: no _SUCCESS")

    def _empty(self, night: int) -> None:
        """Hides all photographs but one, which must not empty the table."""
        away = self.directory / "away"
        away.mkdir()
        there = sorted((self.directory / "photos").iterdir())
        for path in there[1:]:
            path.rename(away / path.name)
        run(*self.words(night), code=1)
        if self.manifest(night)["deleted"]:
            raise SystemExit(f"night {night}: all images were treated as deleted")
        for path in there[1:]:
            (away / path.name).rename(path)

    def manifest(self, night: int) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.output(night) / "_MANIFEST.json").read_text())
        return found


class Clock:
    """The clock of a run that has time to start only two units."""

    def __init__(self) -> None:
        self._asked = 0

    def time(self) -> float:
        self._asked += 1
        return 1e10 * (self._asked > 2)


def live(directory: Path, seed: int, written: Sequence[str]) -> Iterator[str]:
    """Runs the nights; yields the differences in the end."""
    nights = Nights(directory, seed, written)
    for night in range(1, NIGHTS + 1):
        nights.live(night)
        if night in COMPACTED:
            current = directory / "current" / f"{night:02d}"
            compact(directory, current, killed=True)
            for old in [*(directory / "labels").glob("dt=*"), *(directory / "current").glob("*")]:
                if old != current:
                    shutil.rmtree(old)
    compact(directory, directory / "final", killed=False)
    run(*nights.source, "--module", nights.modules[-1], "--output", directory / "whole")
    yield from differences(directory / "final", directory / "whole")
    if not written:
        yield from views_differ(directory)


def views_differ(directory: Path) -> Iterator[str]:
    """Yields differences between the view of docs/nightly.md over the remaining outputs and the compacted table."""
    outputs = [*(directory / "current").glob("*"), *(directory / "labels").glob("dt=*")]
    query = "SELECT image_id, content_hash, module_fingerprint FROM"
    shown = set(current_view(outputs).execute(f"{query} current_labels").fetchall())
    kept = set(duckdb.execute(f"{query} '{directory}/final/part-*.parquet'").fetchall())
    for image, *rest in sorted(shown - kept):
        yield f"{image}: only the view has {rest}"
    for image, *rest in sorted(kept - shown):
        yield f"{image}: only the table has {rest}"


def compact(directory: Path, output: Path, *, killed: bool) -> None:
    """Compacts the nights since the last compaction; first starts and kills it once if ``killed``."""
    inputs = [*(directory / "current").glob("[0-9]*"), directory / "labels"]
    words = ["compact", *inputs, "--output", output, "--shard_rows", "20", "--if_exists", "resume"]
    if killed:
        output.parent.mkdir(exist_ok=True)
        kill(output.parent, *words)
    run(*words)
    run("verify", output)


def differences(final: Path, whole: Path) -> Iterator[str]:
    """Yields the differences between the two outputs for each image."""
    tables = [rows(directory) for directory in (final, whole)]
    for uri in sorted(tables[0].keys() | tables[1].keys()):
        a, b = (of.get(uri) for of in tables)
        if a != b:
            yield f"{uri}: {a} in the compacted table, {b} in the run over all"
    sys.stderr.write(f"{len(tables[0])} images\n")


def rows(directory: Path) -> dict[str, Any]:
    """Returns an output's row or failure of each image, without its time and the version of its source."""
    found: dict[str, Any] = {}
    tables = [pq.read_table(path).to_pylist() for path in directory.glob("part-*.parquet")]
    if not tables:
        tables = [read_examples(directory)]
    for row in itertools.chain.from_iterable(tables):
        name = row["uri"] if isinstance(row["uri"], str) else row["uri"][0].decode()
        assert name not in found, f"{name} has two rows"
        found[name] = {**row, "labeled_at": None, "source_version": None}
    for path in directory.glob("_failures/part-*.jsonl"):
        for line in path.read_text().splitlines():
            failure = json.loads(line)
            assert failure["uri"] not in found, f"{failure['uri']} has two rows or failures"
            found[failure["uri"]] = (failure["reason"], failure["content_hash"])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--tfrecord", action="store_true", help="write TFRecords")
    arguments = parser.parse_args()
    seed, written = arguments.seed, ["--output_format", "tfrecord"] * arguments.tfrecord
    with tempfile.TemporaryDirectory(prefix="nightly-") as name:
        problems = list(live(Path(name), seed, written))
    sys.stdout.writelines(f"{problem}\n" for problem in problems)
    sys.stdout.write(f"seed {seed}: {len(problems)} images differ\n")
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
