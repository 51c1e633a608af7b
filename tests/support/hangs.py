"""Launchers that hang in a chosen phase, like a library that waits forever and blocks signal handling."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from support.paths import ROOT

GRACE = 1.0
"""Seconds that hung launchers are given here, in place of those of ``watchdog``."""

# In Linux C libraries a mutex of zeros is unlocked. A second lock waits forever, despite signals.
_PROGRAM = """
import ctypes, importlib, subprocess, sys
from pathlib import Path
module, name, marker, grace, *argv = sys.argv[1:]
from beamlabel.pipeline.process import watchdog
watchdog.GRACE_SECONDS = float(grace)
def hang(*_, **__):
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    Path(marker + ".tmp").write_text(str(child.pid))
    Path(marker + ".tmp").rename(marker)
    library, mutex = ctypes.CDLL(None), ctypes.create_string_buffer(256)
    while True:
        library.pthread_mutex_lock(mutex)
if module:
    owner = importlib.import_module(module)
    *above, name = name.split(".")
    for one in above:
        owner = getattr(owner, one)
    getattr(owner, name)
    setattr(owner, name, hang)
sys.argv = ["beamlabel", *argv]
from beamlabel.pipeline.__main__ import console
console()
"""


class Launcher:
    """A launcher in a separate process and session.

    Args:
      argv: The arguments.
      marker: A file that does not exist yet.
      hangs_in: ``module:name`` of the function in which it hangs with a child process; empty for none.
    """

    def __init__(self, argv: Sequence[object], marker: Path, hangs_in: str = "") -> None:
        self._marker = marker
        module, _, name = hangs_in.partition(":")
        words = [sys.executable, "-c", _PROGRAM, module, name, str(marker), str(GRACE), *map(str, argv)]
        self.process = subprocess.Popen(
            words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
            env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"},
        )  # fmt: skip

    def wait_until(self, is_there: Callable[[], object]) -> None:
        """Waits until the launcher has reached this point."""
        while not is_there():
            assert self.process.poll() is None, self.process.communicate()[0]
            time.sleep(0.05)

    def wait_for_hang(self) -> int:
        """Waits until the launcher hangs in the function; returns the id of its child process."""
        self.wait_until(self._marker.exists)
        return int(self._marker.read_text())

    def ended_by(self, number: signal.Signals) -> str:
        """The log of a launcher that a signal ended correctly; no process of its session is left."""
        self.process.send_signal(number)
        try:
            said, _ = self.process.communicate(timeout=60)
        finally:
            self.kill()
        assert self.process.returncode == 128 + number, said
        return said

    def kill(self) -> None:
        """Kills the launcher if it still runs."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.communicate()


def is_running(process: int) -> bool:
    """Whether the process exists and has not ended."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False
