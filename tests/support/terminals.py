"""Runs programs on a terminal."""

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
      argv: The program and its arguments.
      keys: The texts to wait for and the keys to type after each, in order.
      columns: The width of the terminal.
      environment: The program's environment; None for that of this process.
      seconds: The time after which the program is killed.

    Returns:
      The exit code and the program's output.
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
                except OSError:  # how Linux reports that the other end is closed
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
