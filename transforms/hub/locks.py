"""The locks of tensorflow-hub in its cache: those of killed processes, for which it would wait 20 minutes.

``NAME.lock`` holds the host, the number of the process that fetches the module ``NAME``, and a word of its own, dots
between; ``NAME.WORD.tmp`` is what it has fetched. A process that is killed leaves both
(``tensorflow_hub.resolver.atomic_download``).
"""

from __future__ import annotations

import os
import shutil
import socket
from contextlib import suppress
from pathlib import Path

_MOST_BYTES = 4096


def remove_dead_locks(root: Path) -> None:
    """Removes the locks of processes of this host that are gone, and what they have left."""
    for lock in root.glob("*.lock"):
        with suppress(OSError, ValueError):
            with lock.open("rb") as file:
                host, number, word = file.read(_MOST_BYTES).decode().strip().rsplit(".", 2)
            if host != socket.gethostname() or _is_alive(int(number)) or not word.isalnum():
                continue
            shutil.rmtree(root / f"{lock.stem}.{word}.tmp", ignore_errors=True)
            lock.unlink()


def _is_alive(process: int) -> bool:
    if process == os.getpid():
        return False  # this one fetches nothing yet: another one had its number
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
