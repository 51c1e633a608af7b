"""One run of the job for a benchmark, measured; again where the machine itself stood still meanwhile."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from measure import Cost, measure

ROOT = Path(__file__).resolve().parents[1]
# A thread that sleeps is never this late on a machine that is only busy; a virtual one may be paused by its host.
_PAUSE = 2.0
_TRIES = 10


class Pauses(threading.Thread):
    """Notices that the whole machine stood still."""

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


def run_undisturbed(
    command: Sequence[str], scratch: Path, environment: Mapping[str, str] | None = None
) -> Cost:
    """What a command costs, in a run during which the machine did not stand still.

    Raises:
      RuntimeError: the command failed, or there was no such run.
    """
    variables = {**os.environ, "PYTHONPATH": str(ROOT), **(environment or {})}
    for _ in range(_TRIES):
        pauses = Pauses()
        pauses.start()
        cost = measure(command, environment=variables, folder=scratch, log=scratch / "log.txt")
        pauses.stop()
        if pauses.seconds:
            print(
                f"  (the machine stood still for {pauses.seconds:.0f} s: this run is repeated)",
                file=sys.stderr,
            )
        elif cost.code:
            raise RuntimeError(f"exit code {cost.code}: {' '.join(command)}\n{cost.stderr[-2000:]}")
        else:
            return cost
    raise RuntimeError(f"the machine stood still in each of {_TRIES} runs")


def label(
    uris: Path,
    images: int,
    scratch: Path,
    arguments: Sequence[str],
    environment: Mapping[str, str] | None = None,
    program: Sequence[str] = ("-m", "pipeline"),
) -> Cost:
    """What ``python -m pipeline`` costs for the first ``images`` of a list, all of which it must label.

    Args:
      uris: a text file, one URI a line.
      images: how many of them.
      scratch: a folder for the output and the log.
      arguments: further ones of the job, ``--module`` among them.
      environment: variables to set besides those of this process.
      program: what Python runs, where it is not the job as it is.
    """
    output = scratch / "out"
    command = [sys.executable, *program, "--input", str(uris), "--limit", str(images)]
    command += ["--output", str(output), "--if_exists", "overwrite", *arguments]
    cost = run_undisturbed(command, scratch, environment)
    rows = json.loads((output / "_MANIFEST.json").read_text())["rows"]
    if rows["predicted"] != images:
        raise RuntimeError(f"{images} images, but the manifest says {rows}")
    return cost
