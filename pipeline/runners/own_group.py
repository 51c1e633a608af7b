"""Starts a command in a separate process group."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence


def in_own_group(command: Sequence[str]) -> list[str]:
    """Wraps a command so that it runs in a separate process group.

    A terminal sends Ctrl-C to all processes of a group, so a job server would end before it could cancel the job.
    """
    if not hasattr(os, "setpgid"):
        return [*command]
    start = "import os, sys; os.setpgid(0, 0); os.execvp(sys.argv[1], sys.argv[1:])"
    return [sys.executable, "-c", start, *command]
