"""Removes locks of killed processes from the cache of tensorflow-hub, which would wait 20 minutes for each.

``NAME.lock`` holds the host, the PID of the process that fetches the module ``NAME``, and a unique word, separated by
dots; ``NAME.WORD.tmp`` holds the part fetched so far. A killed process leaves both
(``tensorflow_hub.resolver.atomic_download``).
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import time
from contextlib import suppress
from pathlib import Path

_MOST_BYTES = 4096
# Seconds since 1970. A lock with this process's PID that is older than this belongs to an earlier process.
_STARTED = time.time()
# Files that tensorflow-hub has not yet renamed, and directories that it downloads into. If they have not changed for a
# day, their process is gone, and so are their locks.
_HALF = re.compile(r"[0-9a-f]{40}\.((lock|descriptor\.txt)\.tmp[0-9a-f]{32}|[0-9a-f]{32}\.tmp)")
_DAY_SECONDS = 86400.0


def remove_dead_locks(root: Path) -> None:
    """Removes the locks of ended processes of this host, and their partial downloads."""
    for lock in root.glob("*.lock"):
        with suppress(OSError, ValueError):
            with lock.open("rb") as file:
                host, number, word = file.read(_MOST_BYTES).decode().strip().rsplit(".", 2)
            made = lock.stat().st_mtime
            if host != socket.gethostname() or _is_alive(int(number), made) or not word.isalnum():
                continue
            shutil.rmtree(root / f"{lock.stem}.{word}.tmp", ignore_errors=True)
            lock.unlink()
    with suppress(OSError):
        for entry in os.scandir(root):
            if _HALF.fullmatch(entry.name) and _is_old(Path(entry.path)):
                _remove(Path(entry.path))


def _is_alive(process: int, made: float) -> bool:
    if process == os.getpid():
        return made >= _STARTED
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _is_old(path: Path) -> bool:
    """Whether a file or directory has not changed for a day."""
    before = time.time() - _DAY_SECONDS
    return all(one.lstat().st_mtime < before for one in (path, *path.rglob("*")))


def _remove(path: Path) -> None:
    with suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink()
