"""Runs over faulty references that are killed repeatedly and resumed until they are done."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from support.faulty_references import MAX_BYTES, Reference
from support.paths import ROOT

GROUP, LAUNCHER, TERMINATE, WORKER = "SIGKILL, group", "SIGKILL, launcher", "SIGTERM", "SIGKILL, worker"
"""The target of a kill: the whole process group, the launcher alone, the launcher by SIGTERM, one worker process."""

KILLS = (GROUP, LAUNCHER, TERMINATE, WORKER)
_DONE, _BROKEN = 0, 3
# The seconds until a stopped launcher, or the processes of a killed one, are gone, even on a busy machine. Another test
# checks the exact time.
_END_SECONDS = 60.0
_LOOK_SECONDS = 0.05


class Launches:
    """The launches of one job.

    Args:
      output: The job's output.
      references: The job's list, which is written beside the output.
      options: Further options of the job.
      scratch: A directory for the temporary files and logs of these launches only.
    """

    def __init__(
        self, output: Path, references: Sequence[Reference], options: Sequence[object], scratch: Path
    ) -> None:
        self.output, self._scratch = output, scratch
        self._temporary = scratch / "tmp"
        self._temporary.mkdir(parents=True, exist_ok=True)
        self._environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(self._temporary)}
        self._number = 0
        uris = output.with_suffix(".txt")
        uris.write_bytes(b"".join(reference.line + b"\n" for reference in references))
        self._arguments = [
            "--input", uris, "--output", output, "--if_exists", "resume", "--max_error_rate", 1, "--max_bytes",
            MAX_BYTES, "--allow_http", "--allow_private_hosts", *options,
        ]  # fmt: skip

    def start(self, *more: object) -> subprocess.Popen[bytes]:
        """Starts the next launch in its own session."""
        self._number += 1
        with self._log().open("wb") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "beamlabel", *map(str, [*self._arguments, *more])],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment,
                start_new_session=True,
            )

    def said(self) -> str:
        """The end of the last launch's log."""
        return self._log().read_text(errors="replace")[-2000:]

    def running(self) -> set[int]:
        """All processes that descend from a launch, under any current parent."""
        mark = f"TMPDIR={self._temporary}".encode()
        found = set()
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with suppress(OSError):  # ended, foreign, or a zombie without environment
                    if mark in (entry / "environ").read_bytes():  # workers have a subdirectory
                        found.add(int(entry.name))
        return found

    def end(self) -> None:
        """Kills all of them."""
        for pid in self.running():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def temporary_files(self) -> list[str]:
        """The files in the directory of temporary files."""
        return sorted(str(path.relative_to(self._temporary)) for path in self._temporary.rglob("*"))

    def _log(self) -> Path:
        return self._scratch / f"{self.output.name}-{self._number:03d}.log"


class Soak:
    """Runs jobs to their end with kills in between.

    Attributes:
      kills: The number of kills by victim.
      ends: The number of launches by the way they ended.
      problems: A line for each launch that ended wrongly.
    """

    def __init__(self) -> None:
        self.kills: Counter[str] = Counter()
        self.ends: Counter[str] = Counter()
        self.problems: list[str] = []

    def run(self, launches: Launches, due: Callable[[], str | None], processes: Callable[[], int]) -> bool:
        """Runs a job until it is done.

        Args:
          launches: The launches of the job.
          due: Returns the next victim of ``KILLS`` or None; called often while the job runs.
          processes: Returns the number of worker processes of the next launch.

        Returns:
          Whether the job is done; if not, ``problems`` has details.
        """
        while True:
            process = launches.start("--worker_processes", processes())
            workers_killed = self._run_once(launches, process, due)
            code = process.wait()
            self.ends[signal.Signals(-code).name if code < 0 else f"exit code {code}"] += 1
            self._wait_for_all(launches)
            if code == _DONE:
                return True
            # Without worker processes this launcher cannot continue, but the next one can.
            if code not in (-signal.SIGKILL, 128 + signal.SIGTERM) and not (
                code == _BROKEN and workers_killed
            ):
                self.problems.append(f"{launches.output.name} ended with {code}: {launches.said()}")
                return False

    def _run_once(
        self, launches: Launches, process: subprocess.Popen[bytes], due: Callable[[], str | None]
    ) -> int:
        """Waits until the launcher has ended or was killed; returns the number of killed workers."""
        workers_killed = 0
        while process.poll() is None:
            what = due()
            if what is None:
                time.sleep(_LOOK_SECONDS)
                continue
            workers = worker_processes(process.pid) if what == WORKER else []
            if workers:
                with suppress(ProcessLookupError):
                    os.kill(workers[0], signal.SIGKILL)
                self.kills[WORKER] += 1
                workers_killed += 1
                continue
            what = GROUP if what == WORKER else what
            self.kills[what] += 1
            self._kill(launches, process, what)
        return workers_killed

    def _kill(self, launches: Launches, process: subprocess.Popen[bytes], what: str) -> None:
        with suppress(ProcessLookupError):
            if what == GROUP:
                os.killpg(process.pid, signal.SIGKILL)
            else:
                process.send_signal(signal.SIGTERM if what == TERMINATE else signal.SIGKILL)
        try:
            process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self.problems.append(
                f"{launches.output.name}: the launcher was there {_END_SECONDS:g} s after {what}: {launches.said()}"
            )
            os.killpg(process.pid, signal.SIGKILL)

    def _wait_for_all(self, launches: Launches) -> None:
        """Waits until all processes of an ended launcher are gone."""
        end = time.monotonic() + _END_SECONDS
        while rest := launches.running():
            if time.monotonic() > end:
                self.problems.append(
                    f"{launches.output.name}: its launcher is gone, but {_named(rest)} runs on"
                )
                launches.end()
                return
            time.sleep(_LOOK_SECONDS)


def worker_processes(launcher: int) -> list[int]:
    """The worker processes of a local run."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with suppress(OSError):
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == launcher and b"local_worker.py" in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
    return sorted(found)


def _named(processes: set[int]) -> str:
    names = []
    for pid in processes:
        with suppress(OSError):
            words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            names.append(f"{pid} ({words[-200:]})")
    return ", ".join(names)
