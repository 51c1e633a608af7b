"""Runs over faulty references that are killed again and again, and resumed until they are done."""

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
"""What is killed: the whole process group, the launcher alone, the launcher by SIGTERM, one worker process."""

KILLS = (GROUP, LAUNCHER, TERMINATE, WORKER)
_DONE, _BROKEN = 0, 3
# A launcher that was told to end, and what a killed one leaves running, is gone after so many seconds even where others
# have most of the cores; how soon exactly is another test.
_END_SECONDS = 60.0
_LOOK_SECONDS = 0.05


class Launches:
    """The launches of one job.

    Args:
      output: of the job.
      references: its list, which is written beside the output.
      options: further ones of the job.
      scratch: a folder for temporary files, which no other processes than these have, and for what the launches say.
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
        """The next launch, in a session of its own."""
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
        """The end of what the last launch said."""
        return self._log().read_text(errors="replace")[-2000:]

    def running(self) -> set[int]:
        """All processes that come from a launch, whoever their parent is now."""
        mark = f"TMPDIR={self._temporary}".encode()
        found = set()
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with suppress(
                    OSError
                ):  # it has ended, or is not ours; one that was not waited for yet has none
                    if (
                        mark in (entry / "environ").read_bytes()
                    ):  # workers have a folder of their own below it
                        found.add(int(entry.name))
        return found

    def end(self) -> None:
        """Kills all of them."""
        for pid in self.running():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def temporary_files(self) -> list[str]:
        """What lies in the folder of temporary files."""
        return sorted(str(path.relative_to(self._temporary)) for path in self._temporary.rglob("*"))

    def _log(self) -> Path:
        return self._scratch / f"{self.output.name}-{self._number:03d}.log"


class Soak:
    """Runs jobs to their end and kills them meanwhile.

    Attributes:
      kills: how often what was killed.
      ends: how often a launch ended in which way.
      problems: a line for each launch that did not end as it should.
    """

    def __init__(self) -> None:
        self.kills: Counter[str] = Counter()
        self.ends: Counter[str] = Counter()
        self.problems: list[str] = []

    def run(self, launches: Launches, due: Callable[[], str | None], processes: Callable[[], int]) -> bool:
        """Runs a job until it is done.

        Args:
          launches: of the job.
          due: what is killed now, of ``KILLS``, or None; asked often while the job runs.
          processes: the number of worker processes of the next launch.

        Returns:
          Whether it is done; else ``problems`` says more.
        """
        while True:
            process = launches.start("--worker_processes", processes())
            workers_killed = self._run_once(launches, process, due)
            code = process.wait()
            self.ends[signal.Signals(-code).name if code < 0 else f"exit code {code}"] += 1
            self._wait_for_all(launches)
            if code == _DONE:
                return True
            # Without any worker process the launcher can do no more; the next one can.
            if code not in (-signal.SIGKILL, 128 + signal.SIGTERM) and not (
                code == _BROKEN and workers_killed
            ):
                self.problems.append(f"{launches.output.name} ended with {code}: {launches.said()}")
                return False

    def _run_once(
        self, launches: Launches, process: subprocess.Popen[bytes], due: Callable[[], str | None]
    ) -> int:
        """Until the launcher has ended, by itself or killed; returns how many workers were killed."""
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
        """What a launcher has started ends without it, and soon."""
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
