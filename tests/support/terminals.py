"""Programs on a real terminal."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import termios
import time
from collections.abc import Mapping, Sequence

CTRL_C = b"\x03"


def on_terminal(
    argv: Sequence[str],
    *,
    keys: Sequence[tuple[str, bytes]] = (),
    columns: int = 100,
    environment: Mapping[str, str] | None = None,
    seconds: float = 600.0,
) -> tuple[int, str]:
    """Runs a program with a terminal as its three streams.

    Args:
      argv: the program.
      keys: what is typed, each as soon as a text is shown, one after the other.
      columns: of the terminal.
      environment: the program's; None: this process's.
      seconds: after which it is killed.

    Returns:
      The exit code, and all that the program wrote.
    """
    terminal, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, columns))
    process = subprocess.Popen(
        ["setsid", "--ctty", "--wait", *argv], stdin=theirs, stdout=theirs, stderr=theirs, env=environment
    )
    os.close(theirs)
    shown, left, end = b"", list(keys), time.monotonic() + seconds
    try:
        while time.monotonic() < end:
            if select.select([terminal], [], [], 0.1)[0]:
                try:
                    chunk = os.read(terminal, 1 << 16)
                except OSError:  # how Linux tells that the other end is closed
                    break
                if not chunk:
                    break
                shown += chunk
            if left and left[0][0].encode() in shown:
                os.write(terminal, left.pop(0)[1])
        return process.wait(max(1.0, end - time.monotonic())), shown.decode(errors="replace")
    finally:
        process.kill()
        os.close(terminal)
