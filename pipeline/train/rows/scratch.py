"""An array in a scratch file: the process holds a bounded part of it in memory."""

from __future__ import annotations

import mmap
import os
import shutil
import tempfile
from collections.abc import Callable
from typing import IO, Any

import numpy as np

from beamlabel.pipeline.errors import UsageError

_SPARE_BYTES = 1 << 26
# Mapped pages count as the process's memory, which a control group or a person may limit.
_MOST_MAPPED = 1 << 27


class ScratchArray(np.ndarray[Any, np.dtype[np.float32]]):
    """Rows in a mapped file, which gives its pages back to the kernel whenever slices have touched some hundred MB.

    Rows by their places are read and written without the mapping: the kernel may map up to 2 MB around each of them.
    """

    file: IO[bytes] | None = None  # None of views
    mapping: mmap.mmap | None = None
    _touched = 0

    def __getitem__(self, key: Any) -> Any:
        if self.file is not None and _are_places(key):
            rows = np.empty((len(key), *self.shape[1:]), self.dtype)
            self._transfer(os.preadv, rows, key)
            return rows
        found = super().__getitem__(key)
        self._count(found)
        return found

    def __setitem__(self, key: Any, value: Any) -> None:
        if self.file is not None and _are_places(key):
            rows = np.broadcast_to(np.asarray(value, self.dtype), (len(key), *self.shape[1:]))
            self._transfer(os.pwritev, np.ascontiguousarray(rows), key)
        else:
            super().__setitem__(key, value)
            self._count(value)

    def _transfer(
        self, move: Callable[[int, list[memoryview], int], int], rows: np.ndarray, places: np.ndarray
    ) -> None:
        assert self.file is not None
        file, each = self.file.fileno(), self.strides[0]
        if not len(places):
            return
        if places.min() < 0 or places.max() >= len(self):
            raise IndexError(f"a place is not in the {len(self)} rows")
        buffer = rows.data.cast("B")
        for number, place in enumerate(places.tolist()):
            if move(file, [buffer[number * each : (number + 1) * each]], place * each) != each:
                raise OSError(f"the scratch file has lost row {place}")

    def _count(self, rows: Any) -> None:
        if self.mapping is None or not isinstance(rows, np.ndarray):
            return
        self._touched += rows.nbytes
        if self._touched > _MOST_MAPPED:
            self._touched = 0
            self.mapping.madvise(mmap.MADV_DONTNEED)  # of a shared mapping: no byte is lost


def _are_places(key: Any) -> bool:
    return isinstance(key, np.ndarray) and key.ndim == 1 and key.dtype.kind in "iu"


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
    file = tempfile.TemporaryFile(prefix="beamlabel-")  # noqa: SIM115 (it lives as long as the array)
    # Room that is promised now is there later: a full disk would end the process by SIGBUS.
    os.posix_fallocate(file.fileno(), 0, size)
    mapping = mmap.mmap(file.fileno(), size)
    array = ScratchArray((rows, dimension), np.float32, buffer=mapping)
    array.file, array.mapping = file, mapping
    return array
