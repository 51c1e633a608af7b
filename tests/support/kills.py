"""Runs that are killed with their process group and resumed while a reader reads the result."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from beamlabel.pipeline import layout
from beamlabel.pipeline.output import staging
from beamlabel.pipeline.output.verify import verify
from beamlabel.transforms import storage
from support.gcs_server import Bucket
from support.jobs import TINY

UNIT_ROWS = 16
OPTIONS = ("--module", TINY, "--shard_rows", UNIT_ROWS, "--batch_size", 16, "--if_exists", "resume")
PHASES = ("plan", "compute", "commit", "publish")


@dataclass(frozen=True)
class Kill:
    """A run that was killed and resumed.

    Attributes:
      phase: The phase of the run at the kill.
      staged: The number of images in finished units.
      twice: The number of images that were fetched a second time.
      reads: How often the whole result was read meanwhile.
      problems: The errors found; empty if all is correct.
    """

    phase: str
    staged: int
    twice: int
    reads: int
    problems: tuple[str, ...] = field(default=())


def start(output: str, uris: Path) -> subprocess.Popen:
    """Starts the job in its own process group."""
    command = [sys.executable, "-m", "beamlabel", "--input", uris, "--output", output, *OPTIONS]
    return subprocess.Popen(
        list(map(str, command)), start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )


class Reader(threading.Thread):
    """Reads a result repeatedly by its manifest."""

    def __init__(self, output: str) -> None:
        super().__init__(daemon=True)
        self._output = output
        self._over = threading.Event()
        self.reads = 0
        self.problems: list[str] = []

    def run(self) -> None:
        while not self._over.wait(0.02):
            try:
                manifest = self._manifest()
                if manifest is not None:
                    self._read(manifest)
                    self.reads += 1
            except Exception as error:
                self.problems.append(f"reader: {type(error).__name__}: {error}")
                return

    def stop(self) -> None:
        self._over.set()
        self.join()

    def _manifest(self) -> bytes | None:
        try:
            return storage.read_bytes(storage.join(self._output, layout.MANIFEST))
        except FileNotFoundError:
            # A new local output appears as a whole or not at all.
            if not (storage.is_local(self._output) and Path(self._output).exists()):
                return None
        # It may have appeared since the first look, but only as a whole.
        return storage.read_bytes(storage.join(self._output, layout.MANIFEST))

    def _read(self, manifest: bytes) -> None:
        for file in json.loads(manifest)["files"]:
            try:
                data = storage.read_bytes(storage.join(self._output, file["name"]))
            except FileNotFoundError:
                if self._manifest() == manifest:
                    raise
                return  # replaced meanwhile, which a reader can detect
            if hashlib.sha256(data).hexdigest() != file["sha256"]:
                raise ValueError(f"{file['name']} differs from the manifest")


def staged_images(output: str) -> int:
    """The number of images in the staged units of a run."""
    found = 0
    for directory in staging.roots(output):
        for record in list(storage.match(storage.join(storage.escape(directory), "*", "units", "*.json"))):
            with suppress(FileNotFoundError):  # published meanwhile
                found += json.loads(storage.read_bytes(record.path))["input"]
    return found


def has(output: str, name: str) -> bool:
    """Whether a staged run has a matching file."""
    return next(staging.holding(output, name), None) is not None


def moment(phase: str, output: str, images: int, rng: random.Random) -> Callable[[], bool]:
    """A condition that is true some way into a phase."""
    if phase == "plan":
        end = time.monotonic() + rng.uniform(0.0, 3.0)
        return lambda: time.monotonic() > end or staged_images(output) > 0
    if phase == "compute":
        wanted = rng.randrange(1, images // UNIT_ROWS) * UNIT_ROWS
        return lambda: staged_images(output) >= wanted
    name = layout.COMMIT if phase == "commit" else layout.MOVES
    return lambda: has(output, name)


def kill_and_resume(
    phase: str, output: str, uris: Path, images: int, photos: Bucket, rng: random.Random
) -> Kill:
    """Kills a run in a phase, resumes it, and checks the result."""
    fetched = photos.server.count(contains=f"/{photos.bucket}/o/photos/")
    reader = Reader(output)
    reader.start()
    is_there = moment(phase, output, images, rng)
    process = start(output, uris)
    while process.poll() is None and not is_there():
        time.sleep(0.0005)
    if phase in ("commit", "publish"):
        # On a local disk the whole phase takes some milliseconds.
        time.sleep(rng.uniform(0.0, 0.004 if storage.is_local(output) else 0.1))
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    was_killed = process.returncode == -signal.SIGKILL
    staged = staged_images(output)
    resumed = start(output, uris)
    told = resumed.communicate()[1].decode()
    reader.stop()
    fetched = photos.server.count(contains=f"/{photos.bucket}/o/photos/") - fetched
    problems = [*reader.problems, *_problems(output, images)]
    if resumed.returncode:
        problems.append(f"resume ended with {resumed.returncode}: {told}")
    return Kill(
        phase if was_killed else f"{phase}: over", staged, fetched - images, reader.reads, tuple(problems)
    )


def _problems(output: str, images: int) -> list[str]:
    if not storage.exists(storage.join(output, layout.SUCCESS)):
        return ["no _SUCCESS"]
    problems = list(verify(output).problems)
    manifest = json.loads(storage.read_bytes(storage.join(output, layout.MANIFEST)))
    uris: Counter[str] = Counter()
    for file in manifest["files"]:
        shard = pa.BufferReader(storage.read_bytes(storage.join(output, file["name"])))
        uris.update(pq.read_table(shard, columns=["uri"]).column("uri").to_pylist())
    if len(uris) != images or set(uris.values()) != {1}:
        problems.append(f"{len(uris)} of {images} images, {sum(uris.values())} rows")
    left = [
        file.path
        for directory in staging.own_directories(output)
        for file in storage.match(storage.escape(directory) + "/")
    ]
    return [*problems, *(f"left over: {path}" for path in left)]
