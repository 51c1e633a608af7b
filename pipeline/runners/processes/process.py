"""The launcher's side of one worker process of a local run: its start, output and end."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from beamlabel.transforms.deadline.watchdog import EXIT_CODE
from beamlabel.transforms.secrets.say import say
from beamlabel.transforms.worker.native_stderr import is_native
from beamlabel.transforms.worker.once import is_repeated


class WorkerDiedError(RuntimeError):
    """A worker process ended before its work did."""


class WorkerProcess:
    """A process that imports the libraries of a worker, and then waits for its settings.

    The launcher writes lines of JSON to its standard input; its output goes to ``say``. It ignores signals that a
    terminal sends to all processes of a group, such as Ctrl-C, because the launcher ends it.

    Args:
      script: file of the program.
      number: counts the processes of a run, from 1.
      cores: number that this process may use.
      environment: variables to add to the launcher's.
      say: called with each line that the process prints.
      ended: called in a separate thread when the process has ended.

    Raises:
      OSError: the system cannot start another process.
    """

    def __init__(
        self,
        script: str,
        number: int,
        cores: int,
        environment: Mapping[str, str],
        say: Callable[[str], None],
        ended: Callable[[WorkerProcess], None],
    ) -> None:
        self.number, self.cores = number, cores
        self._say, self._ended = say, ended
        self._process = subprocess.Popen(
            [sys.executable, script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, **environment},
            encoding="utf-8",
            errors="replace",
        )
        self._tell(path=sys.path, cores=cores, launcher=os.getpid())
        threading.Thread(target=self._watch, name=f"worker-process-{number}", daemon=True).start()

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def begin(self, worker: Mapping[str, Any]) -> None:
        """Sends the process its settings as a worker, see ``local_worker``."""
        self._tell(**worker)

    def kill(self) -> None:
        """Ends the process at once; unstaged work is lost."""
        with contextlib.suppress(OSError):
            self._process.kill()

    def wait(self, seconds: float) -> bool:
        """Waits for the end of the process, which may hang in the kernel; returns whether it has ended."""
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    @property
    def hung(self) -> bool:
        """Whether it ended because a batch exceeded its deadline."""
        return self._process.returncode in (EXIT_CODE, -signal.SIGALRM)

    def how_it_ended(self) -> str:
        """A description of the end of a process that has ended."""
        code = self._process.returncode
        if self.hung:
            return "did not finish a batch in time"
        if code is None:
            return "closed its connection"
        if code >= 0:
            return f"ended with exit code {code}"
        name = signal.Signals(-code).name if -code in signal.valid_signals() else str(-code)
        hint = ", as Linux does if memory runs out" if -code == signal.SIGKILL else ""
        return f"was killed by {name}{hint}"

    def _tell(self, **words: Any) -> None:
        stdin = self._process.stdin
        assert stdin is not None
        with contextlib.suppress(OSError):  # it has died, which ``_watch`` reports
            stdin.write(json.dumps(words) + "\n")
            stdin.flush()

    def _watch(self) -> None:
        assert self._process.stdout is not None
        with contextlib.suppress(ValueError):  # closed meanwhile
            for line in self._process.stdout:
                self._say(line)
        self._process.wait()
        self._ended(self)


class Spokesman:
    """Forwards the output of the worker processes to the launcher's log; a line that several print appears once.

    Args:
      most: maximum number of remembered lines.
    """

    def __init__(self, most: int = 1000) -> None:
        self._most = most
        self._said: dict[str, int] = {}
        self._lock = threading.Lock()

    def say(self, number: int, line: str) -> None:
        """Shows a line of a worker process, unless another has printed it before or a native library wrote it."""
        if is_repeated(line) or is_native(line, errors=False):
            return
        with self._lock:
            first = self._said.setdefault(line, number)
            if first != number:
                return
            if len(self._said) > self._most:
                del self._said[next(iter(self._said))]
        # The log handler's stream, because a progress bar on the terminal puts lines above itself.
        streams = [h.stream for h in logging.getLogger().handlers if isinstance(h, logging.StreamHandler)]
        say(line.rstrip("\n"), streams[0] if streams else None, kept="\t")


def shares(cores: int, processes: int) -> Sequence[int]:
    """The cores of each process, at least 1: as even as possible, and all in use."""
    least, more = divmod(cores, processes)
    return [max(1, least + (number < more)) for number in range(processes)]
