"""A command in a process group of its own."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence


def in_own_group(command: Sequence[str]) -> list[str]:
    """The command that starts another one in a process group of its own.

    A terminal sends Ctrl-C to all processes of a group: a job server would be gone before it could be told to
    cancel the job.
    """
    if not hasattr(os, "setpgid"):
        return [*command]
    start = "import os, sys; os.setpgid(0, 0); os.execvp(sys.argv[1], sys.argv[1:])"
    return [sys.executable, "-c", start, *command]
