"""Kills the descendants of this process, as a last resort."""

from __future__ import annotations

import os
import signal
from collections import defaultdict
from contextlib import suppress
from pathlib import Path

_PROC = Path("/proc")


def kill_descendants() -> None:
    """Kills all descendants of this process; none if the system has no ``/proc``."""
    # Twice: one of them may have started another process after the first listing.
    for _ in range(2):
        for process in descendants(os.getpid()):
            with suppress(OSError):
                os.kill(process, signal.SIGKILL)


def descendants(process: int) -> list[int]:
    """The PIDs of the descendants of a process: its children, their children, and so on."""
    children = defaultdict(list)
    for directory in _PROC.glob("[0-9]*"):
        # proc_pid_stat(5): the name may hold brackets and ends at the last one; ppid is the second field after it.
        with suppress(OSError, IndexError, ValueError):
            parent = int((directory / "stat").read_text(errors="replace").rpartition(")")[2].split()[1])
            children[parent].append(int(directory.name))
    found, look_at = list[int](), [process]
    while look_at:
        below = children[look_at.pop()]
        found += below
        look_at += below
    return found
