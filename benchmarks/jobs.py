"""Measures one run of the job for a benchmark; repeats it if the machine itself stood still meanwhile."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from measure import Cost, measure

ROOT = Path(__file__).resolve().parents[1]
# On a busy machine a sleeping thread never wakes this late; a virtual machine may be paused by its host.
_PAUSE = 2.0
_TRIES = 10


class Pauses(threading.Thread):
    """Detects that the whole machine stood still."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.seconds = 0.0
        self._stopped = threading.Event()

    def run(self) -> None:
        last = time.monotonic()
        while not self._stopped.wait(0.1):
            now = time.monotonic()
            self.seconds += now - last if now - last > _PAUSE else 0.0
            last = now

    def stop(self) -> None:
        self._stopped.set()
        self.join()


def run(
    command: Sequence[str],
    scratch: Path,
    environment: Mapping[str, str] | None = None,
    *,
    repeat: bool = True,
) -> Cost:
    """Runs a command and returns its cost, without the time in which the machine stood still.

    Args:
      command: program and arguments.
      scratch: a directory for the log.
      environment: variables to set besides those of this process.
      repeat: whether to discard and repeat a run during which the machine stood still.

    Raises:
      RuntimeError: the command failed, or no run was undisturbed.
    """
    variables = {**os.environ, "PYTHONPATH": str(ROOT), **(environment or {})}
    for _ in range(_TRIES):
        pauses = Pauses()
        pauses.start()
        cost = measure(
            command, environment=variables, directory=scratch, log=scratch / "log.txt", timeout=6 * 3600
        )
        pauses.stop()
        if pauses.seconds:
            print(f"  (the machine stood still for {pauses.seconds:.0f} s)", file=sys.stderr)
            if repeat:
                continue
        if cost.code:
            raise RuntimeError(f"exit code {cost.code}: {' '.join(command)}\n{cost.stderr[-2000:]}")
        return dataclasses.replace(cost, seconds=cost.seconds - pauses.seconds)
    raise RuntimeError(f"the machine stood still in each of {_TRIES} runs")


def label(
    uris: Path,
    images: int,
    scratch: Path,
    arguments: Sequence[str],
    environment: Mapping[str, str] | None = None,
    program: Sequence[str] = ("-m", "beamlabel"),
    *,
    repeat: bool = True,
) -> Cost:
    """Measures ``python -m beamlabel`` over the first ``images`` of a list, all of which it must label.

    Args:
      uris: a text file, one URI a line.
      images: number of images to label.
      scratch: a directory for the output and the log.
      arguments: further arguments of the job, with ``--module`` among them.
      environment: variables to set besides those of this process.
      program: Python's arguments that run the job.
      repeat: as for ``run``.
    """
    output = scratch / "out"
    command = [sys.executable, *program, "--input", str(uris), "--limit", str(images)]
    command += ["--output", str(output), "--if_exists", "overwrite", *arguments]
    cost = run(command, scratch, environment, repeat=repeat)
    rows = json.loads((output / "_MANIFEST.json").read_text())["rows"]
    if rows["predicted"] != images:
        raise RuntimeError(f"{images} images, but the manifest says {rows}")
    return cost
