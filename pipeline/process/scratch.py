"""The temporary files of a run, in one directory that the next run deletes if this one is killed."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from beamlabel.pipeline.process.process_id import ProcessId

_NAME = re.compile(r"beamlabel-run-([0-9a-f]{12})-(\d{1,10})-(\d{1,20})-[a-z0-9_]{8}")


@contextmanager
def own_scratch() -> Iterator[Path]:
    """Makes the directory for this process's temporary files, also those of libraries, and yields it.

    Directories of this user whose process has certainly ended are deleted; those of live processes, of other users, of
    other machines and from before the last boot stay.

    Raises:
      OSError: the directory cannot be made.
    """
    parent, before = Path(tempfile.gettempdir()), tempfile.tempdir
    _delete_left_over(parent)
    own = ProcessId.own()
    prefix = f"beamlabel-run-{_digest(own)}-{own.pid}-{own.ticks}-"
    directory = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
    tempfile.tempdir = str(directory)
    try:
        yield directory
    finally:
        tempfile.tempdir = before
        shutil.rmtree(directory, ignore_errors=True)


def _delete_left_over(parent: Path) -> None:
    with suppress(OSError), os.scandir(parent) as entries:
        for entry in entries:
            if (found := _NAME.fullmatch(entry.name)) and _is_left_over(entry, *found.groups()):
                shutil.rmtree(entry.path, ignore_errors=True)


def _is_left_over(entry: os.DirEntry[str], system: str, pid: str, ticks: str) -> bool:
    own = ProcessId.own()
    made = ProcessId(own.host, int(pid), 0, own.system, int(ticks))
    if system != _digest(own) or not made.ticks or not made.has_exited():
        return False
    try:
        status = entry.stat(follow_symlinks=False)
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()


def _digest(process: ProcessId) -> str:
    """Names a machine since its boot, and the space of its process ids."""
    return hashlib.sha256(process.system.encode()).hexdigest()[:12]
