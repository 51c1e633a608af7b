"""An array in a scratch file, of which only a bounded part is in memory."""

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
# Mapped pages count as memory of the process, which a control group or a user may limit.
_MOST_MAPPED = 1 << 27


class ScratchArray(np.ndarray[Any, np.dtype[np.float32]]):
    """Rows in a mapped file, which returns its pages to the kernel after slices have touched some hundred MB.

    Rows at given positions are read and written without the mapping: the kernel may map up to 2 MB around each.
    """

    file: IO[bytes] | None = None  # None for views
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
            raise IndexError(f"a position is outside the {len(self)} rows")
        buffer = rows.data.cast("B")
        for number, place in enumerate(places.tolist()):
            if move(file, [buffer[number * each : (number + 1) * each]], place * each) != each:
                raise OSError(f"row {place} of the scratch file cannot be read or written in full")

    def _count(self, rows: Any) -> None:
        if self.mapping is None or not isinstance(rows, np.ndarray):
            return
        self._touched += rows.nbytes
        if self._touched > _MOST_MAPPED:
            self._touched = 0
            self.mapping.madvise(mmap.MADV_DONTNEED)  # loses no data, since the mapping is shared


def _are_places(key: Any) -> bool:
    return isinstance(key, np.ndarray) and key.ndim == 1 and key.dtype.kind in "iu"


def scratch(rows: int, dimension: int) -> np.ndarray:
    """float32[rows, dimension] in a file without a name, in the directory that TMPDIR sets.

    Raises:
      UsageError: the disk has too little space.
    """
    directory, size = tempfile.gettempdir(), rows * dimension * 4
    free = shutil.disk_usage(directory).free
    if free < size + _SPARE_BYTES:
        raise UsageError(
            f"the embeddings of {rows} images need {size / 1e9:.1f} GB in {directory}, but only {free / 1e9:.1f} GB "
            "are free: set TMPDIR to a directory on a larger disk"
        )
    if not size:
        return np.zeros((rows, dimension), np.float32)
    file = tempfile.TemporaryFile(prefix="beamlabel-")  # noqa: SIM115 (it lives as long as the array)
    # Reserve the space now: a disk that fills up later would end the process by SIGBUS.
    os.posix_fallocate(file.fileno(), 0, size)
    mapping = mmap.mmap(file.fileno(), size)
    array = ScratchArray((rows, dimension), np.float32, buffer=mapping)
    array.file, array.mapping = file, mapping
    return array
