"""An array in a scratch file: the process holds a bounded part of it in memory."""

from __future__ import annotations

import mmap
import os
import shutil
import tempfile
from typing import Any

import numpy as np

from beamlabel.pipeline.errors import UsageError

_SPARE_BYTES = 1 << 26
# Mapped pages count as the process's memory, which a control group or a person may limit.
_MOST_MAPPED = 1 << 27
# The kernel maps the neighbors of a page that is read: /sys/kernel/debug/fault_around_bytes, 64 KiB by default.
_AROUND = 1 << 16


class ScratchArray(np.memmap[Any, np.dtype[np.float32]]):
    """A mapped array that gives its pages back to the kernel whenever it has touched some hundred MB.

    The kernel may keep them, in its page cache; the next access maps them again, or reads them from the disk.
    """

    _touched = 0

    def __getitem__(self, key: Any) -> Any:
        found = super().__getitem__(key)
        is_copy = isinstance(found, ScratchArray) and getattr(found, "_mmap", None) is None
        self._count(found, _AROUND if is_copy else 0)
        return found.view(np.ndarray) if is_copy else found

    def __setitem__(self, key: Any, value: Any) -> None:
        super().__setitem__(key, value)
        self._count(value, 0 if isinstance(key, slice) else _AROUND)

    def _count(self, rows: Any, around: int) -> None:
        mapped: mmap.mmap | None = getattr(self, "_mmap", None)
        if mapped is None or not isinstance(rows, np.ndarray):
            return
        self._touched += rows.nbytes + len(rows) * around
        if self._touched > _MOST_MAPPED:
            self._touched = 0
            mapped.madvise(mmap.MADV_DONTNEED)  # of a shared mapping: no byte is lost


def scratch(rows: int, dimension: int) -> np.ndarray:
    """float32[rows, dimension] in a file without a name; it lies where TMPDIR says.

    Raises:
      UsageError: the disk has not the room.
    """
    folder, size = tempfile.gettempdir(), rows * dimension * 4
    free = shutil.disk_usage(folder).free
    if free < size + _SPARE_BYTES:
        raise UsageError(
            f"the embeddings of {rows} images take {size / 1e9:.1f} GB in {folder}, which has {free / 1e9:.1f} GB: "
            "set TMPDIR to a folder on a larger disk"
        )
    if not size:
        return np.zeros((rows, dimension), np.float32)
    with tempfile.TemporaryFile(prefix="beamlabel-") as file:
        # Room that is promised now is there later: a full disk would end the process by SIGBUS.
        os.posix_fallocate(file.fileno(), 0, size)
        return ScratchArray(file, np.float32, "r+", shape=(rows, dimension))  # type: ignore[no-untyped-call]
