"""The files and names that would survive a power cut at any moment."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest


class Disk:
    """Records a run's system calls: ``fsync`` of files and directories, and the names given to files.

    A name survives a power cut if its directory was synced after the name was given. A file's content survives if the
    file was synced; no file here is written after its sync, since only finished files get names.
    """

    def __init__(self) -> None:
        self.events: list[tuple[str, str, int]] = []

    def synced(self, descriptor: int) -> None:
        status = os.fstat(descriptor)
        self.events.append(("sync", str(Path(f"/proc/self/fd/{descriptor}").readlink()), status.st_ino))

    def named(self, path: Any) -> None:
        self.events.append(("name", os.path.realpath(path), os.lstat(path).st_ino))

    def moments(self, ending: str) -> list[int]:
        """The moments when files with this path ending got their names."""
        return [
            at for at, (kind, path, _) in enumerate(self.events) if kind == "name" and path.endswith(ending)
        ]

    def is_safe(self, path: str, moment: int) -> bool:
        """Whether the file at ``path`` would survive a power cut at that moment as a whole."""
        before = self.events[:moment]
        given = [at for at, (kind, name, _) in enumerate(before) if kind == "name" and name == path]
        if not given:
            return False
        inode = before[given[-1]][2]
        content = any(kind == "sync" and number == inode for kind, _, number in before)
        directory = os.path.dirname(path)  # noqa: PTH120 (it may be renamed by now)
        return content and any(kind == "sync" and name == directory for kind, name, _ in before[given[-1] :])


@contextmanager
def watched(monkeypatch: pytest.MonkeyPatch, without: str = "") -> Iterator[Disk]:
    """Records the disk calls of this process.

    Args:
      monkeypatch: The test's fixture.
      without: ``files``, ``directories`` or ``files and directories``, for which fsync does nothing, as if the code
        did not call it.
    """
    disk = Disk()
    fsync, link = os.fsync, os.link

    def sync(descriptor: int) -> None:
        kind = "directories" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "files"
        if kind not in without:
            fsync(descriptor)
            disk.synced(descriptor)

    def renaming(real: Any) -> Any:
        def rename(source: Any, target: Any, **options: Any) -> None:
            real(source, target, **options)
            disk.named(target)

        return rename

    def hardlink(source: Any, target: Any, **options: Any) -> None:
        link(source, target, **options)
        disk.named(target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", sync)
        patch.setattr(os, "link", hardlink)
        for name in ("rename", "replace"):
            patch.setattr(os, name, renaming(getattr(os, name)))
        yield disk
