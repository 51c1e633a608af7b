"""Thirty nights over a folder that grows, changes, loses and breaks photographs, with two changes of the module and
three kills; the compacted table has to equal one run over what is there in the end.

::

    PYTHONPATH=. python benchmarks/nightly.py --seed 1

On the way old nights are compacted and deleted, as docs/nightly.md says that they may be. It needs the checkout, whose
tests' helpers it uses, and ends with 1 if something differs.
"""

from __future__ import annotations

import argparse
import importlib
import json
import random
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

sys.path.append(str(Path(__file__).parents[1] / "tests"))

from beamlabel.pipeline.options.command_table import COMMANDS
from beamlabel.pipeline.options.job_options import job_options
from beamlabel.pipeline.options.parser import parse
from beamlabel.pipeline.run import run as run_job
from support.jobs import TINY
from support.tombstones import add_tombstones

NIGHTS, COMPACTED, NEW_MODULES, KILLED = 30, (10, 20), (9, 18), (5, 14, 23)


class Bucket:
    """The photographs, and what happens to them in a day."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = folder
        self.folder.mkdir()
        self._chance = random.Random(seed)
        self._made = 0

    def day(self) -> list[str]:
        """Adds, replaces, breaks, mends and deletes some; returns the URIs of those that are gone."""
        there = sorted(self.folder.glob("*.png"))
        for _ in range(self._chance.randrange(4, 25)):
            self._made += 1
            self._write(self.folder / f"photo {self._made:04d}.png")
        chosen = self._chance.sample(there, min(len(there), 12))
        for path in chosen[:4]:
            self._write(path)
        for path in chosen[4:6]:
            path.write_bytes(path.read_bytes()[:200])
        if len(chosen) > 6:
            chosen[6].write_bytes(b"<html>")
        gone = chosen[7 : 7 + self._chance.randrange(5)]
        for path in gone:
            path.unlink()
        if self._chance.random() < 0.3 and gone:
            self._write(gone.pop())  # back on the same day, as another
        return [str(path) for path in gone]

    def _write(self, path: Path) -> None:
        random_ = np.random.default_rng(self._chance.randrange(2**32))
        corners = random_.integers(0, 256, (2, 2, 3)).astype(np.uint8)
        Image.fromarray(corners).resize((48, 40), Image.Resampling.BICUBIC).save(path)


def modules(folder: Path) -> list[Path]:
    """The tiny module, and the same twice with another file in it: other fingerprints."""
    made = [Path(TINY)]
    for number in range(len(NEW_MODULES)):
        note = folder / f"note {number}"
        note.write_text(f"version {number}")
        made.append(folder / f"module {number}.tar.gz")
        with tarfile.open(TINY) as there, tarfile.open(made[-1], "w:gz") as new:
            for member in there:
                new.addfile(member, there.extractfile(member) if member.isfile() else None)
            new.add(note, "assets/note.txt")
    return made


def run(*words: object) -> None:
    """Runs ``beamlabel`` in this process, which has imported everything already."""
    texts = [str(word) for word in words]
    if texts[0] in COMMANDS:
        code = importlib.import_module(COMMANDS[texts[0]].module).main(texts[1:])
    else:
        code = run_job(*parse(texts))
    if code:
        raise SystemExit(f"{' '.join(texts)} ended with {code}")


def kill(folder: Path, *words: object) -> None:
    """Runs ``beamlabel`` in a process that is killed when it has staged a unit beside an output in a folder."""
    command = [sys.executable, "-m", "beamlabel", *map(str, words)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and not any(folder.glob("_beamlabel-*/staging/*/units/*.json")):
        time.sleep(0.005)
    process.kill()
    process.wait()
    sys.stderr.write(f"killed: {process.returncode == -signal.SIGKILL}\n")


def live(folder: Path, seed: int) -> Iterator[str]:
    """The nights; yields what differs in the end."""
    bucket, made = Bucket(folder / "photos", seed), modules(folder)
    labels, current = folder / "labels", folder / "current"
    source = [
        "--input",
        f"{folder}/photos/*.png",
        "--input_format",
        "images",
        "--max_error_rate",
        "1",
        "--shard_rows",
        "16",
    ]
    has_tombstones = any(one.name == "tombstones" for one in job_options())
    skip = ["--skip_labeled", f"{current}/*/", f"{labels}/dt=*/", "--changed", "--if_exists", "resume"]
    skip += ["--tombstones"] if has_tombstones else []
    for night in range(1, NIGHTS + 1):
        gone = bucket.day()
        module = made[sum(night >= changed for changed in NEW_MODULES)]
        output = labels / f"dt={night:02d}"
        words = [*source, *skip, "--module", module, "--output", output]
        if night in KILLED:
            kill(labels, *words)
        run(*words)
        if not has_tombstones and gone:
            add_tombstones(output, gone)
        rows = json.loads((output / "_MANIFEST.json").read_text())["rows"]
        sys.stderr.write(f"night {night}: {rows}, {len(gone)} gone\n")
        if night in COMPACTED:
            compact(folder, current / f"{night:02d}", killed=True)
            for old in [*labels.glob("dt=*"), *current.glob("*")]:
                if old != current / f"{night:02d}":
                    shutil.rmtree(old)
    compact(folder, folder / "final", killed=False)
    run(*source, "--module", made[-1], "--output", folder / "whole")
    yield from differences(folder / "final", folder / "whole")


def compact(folder: Path, output: Path, *, killed: bool) -> None:
    """Compacts the nights since the last time; killed once, if that is wanted."""
    inputs = [*(folder / "current").glob("[0-9]*"), folder / "labels"]
    words = ["compact", *inputs, "--output", output, "--shard_rows", "20", "--if_exists", "resume"]
    if killed:
        output.parent.mkdir(exist_ok=True)
        kill(output.parent, *words)
    run(*words)
    run("verify", output)


def differences(final: Path, whole: Path) -> Iterator[str]:
    """What the two outputs tell differently of any image."""
    tables = [rows(folder) for folder in (final, whole)]
    for uri in sorted(tables[0].keys() | tables[1].keys()):
        a, b = (of.get(uri) for of in tables)
        if a != b:
            yield f"{uri}: {a} in the compacted table, {b} in the run over all"
    sys.stderr.write(f"{len(tables[0])} images\n")


def rows(folder: Path) -> dict[str, Any]:
    """What an output tells of each image, but when."""
    found: dict[str, Any] = {}
    for path in folder.glob("part-*.parquet"):
        for row in pq.read_table(path).to_pylist():
            assert row["uri"] not in found, f"{row['uri']} is there twice"
            found[row["uri"]] = {**row, "labeled_at": None}
    for path in folder.glob("_failures/part-*.jsonl"):
        for line in path.read_text().splitlines():
            failure = json.loads(line)
            assert failure["uri"] not in found, f"{failure['uri']} is there twice"
            found[failure["uri"]] = (failure["reason"], failure["content_hash"])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=1)
    seed = parser.parse_args().seed
    with tempfile.TemporaryDirectory(prefix="nightly-") as name:
        problems = list(live(Path(name), seed))
    sys.stdout.writelines(f"{problem}\n" for problem in problems)
    sys.stdout.write(f"seed {seed}: {len(problems)} images differ\n")
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
