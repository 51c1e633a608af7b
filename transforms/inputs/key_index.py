"""A set of rows that is too large for memory: their 128-bit hashes, sorted, 16 bytes each, searched in the file.

The file has no header and holds nothing else, so that its size is 16 times the number of rows. The hashes are BLAKE2b;
among a billion rows, two have the same hash with a probability of 1e-21.
"""

from __future__ import annotations

import bisect
import hashlib
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import overload

import numpy as np

from beamlabel.transforms.storage.host_cache import Content

KEY_BYTES = 16

# Keys with the same first byte are sorted together, in memory: 64 MB of a billion rows.
_BUCKETS = 256
# Of all buckets together, before it is written.
_BUFFER_BYTES = 16 << 20


def key(*parts: str) -> bytes:
    """The hash of a row that these strings identify."""
    text = "\0".join(parts).encode("utf-8", "surrogatepass")
    return hashlib.blake2b(text, digest_size=KEY_BYTES).digest()


class KeyIndexWriter:
    """Takes any number of keys in any order and writes the sorted file; thread-safe.

    A context manager that deletes its temporary files. Memory does not depend on the number of keys, except for
    sorting, which holds a 256th of them.

    Args:
      directory: directory of the temporary files; they are as large as the result.
    """

    def __init__(self, directory: Path) -> None:
        self._temporary = TemporaryDirectory(prefix="keys-", dir=directory)
        self._pending: list[bytes] = []
        self._pending_bytes = 0
        self._lock = threading.Lock()

    def __enter__(self) -> KeyIndexWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._temporary.cleanup()

    def add(self, keys: Iterable[bytes]) -> None:
        """Adds keys from ``key``."""
        joined = b"".join(keys)
        with self._lock:
            self._pending.append(joined)
            self._pending_bytes += len(joined)
            if self._pending_bytes >= _BUFFER_BYTES:
                self._write_pending()

    def finish(self, path: Path) -> int:
        """Writes the index; returns the number of distinct keys."""
        self._write_pending()
        count = 0
        with path.open("wb") as file:
            for bucket in range(_BUCKETS):
                part = self._bucket(bucket)
                if part.exists():
                    keys = _sorted(part.read_bytes())
                    part.unlink()
                    file.write(keys.tobytes())
                    count += len(keys)
        return count

    def _write_pending(self) -> None:
        keys = np.frombuffer(b"".join(self._pending), np.uint8).reshape(-1, KEY_BYTES)
        self._pending, self._pending_bytes = [], 0
        keys = keys[np.argsort(keys[:, 0], kind="stable")]
        ends = np.searchsorted(keys[:, 0], np.arange(_BUCKETS + 1))
        for bucket in range(_BUCKETS):
            if ends[bucket] < ends[bucket + 1]:
                with self._bucket(bucket).open("ab") as file:
                    file.write(keys[ends[bucket] : ends[bucket + 1]].tobytes())

    def _bucket(self, number: int) -> Path:
        return Path(self._temporary.name) / f"{number:02x}"


def _sorted(data: bytes) -> np.ndarray:
    """The keys in order, without duplicates: big-endian uint64[N, 2]."""
    keys = np.frombuffer(data, ">u8").reshape(-1, 2)
    keys = keys[np.lexsort((keys[:, 1], keys[:, 0]))]
    is_first = np.ones(len(keys), bool)
    is_first[1:] = (keys[1:] != keys[:-1]).any(axis=1)
    return np.asarray(keys[is_first])


class KeyIndex(Sequence[bytes]):
    """The keys of a file, in order; a search touches about twenty of its pages.

    Args:
      content: the file, in memory or mapped.
      value_bytes: length of the value after each key.

    Raises:
      ValueError: the file is no such index.
    """

    def __init__(self, content: Content, value_bytes: int = 0) -> None:
        self._width = KEY_BYTES + value_bytes
        if len(content) % self._width:
            raise ValueError(
                f"not an index of keys: {len(content)} bytes are not a multiple of {self._width}"
            )
        self._content = content

    def __len__(self) -> int:
        return len(self._content) // self._width

    @overload
    def __getitem__(self, place: int) -> bytes: ...
    @overload
    def __getitem__(self, place: slice) -> list[bytes]: ...
    def __getitem__(self, place: int | slice) -> bytes | list[bytes]:
        if isinstance(place, slice):
            return [self[each] for each in range(*place.indices(len(self)))]
        if not 0 <= place < len(self):
            raise IndexError(place)
        return self._content[place * self._width : place * self._width + KEY_BYTES]

    def __contains__(self, wanted: object) -> bool:
        assert isinstance(wanted, bytes)
        return self.find(wanted) is not None

    def find(self, wanted: bytes) -> int | None:
        """The place of a key; None if it is absent."""
        place = bisect.bisect_left(self, wanted)
        return place if place < len(self) and self[place] == wanted else None

    def value(self, place: int) -> bytes:
        """The value after the key at a place."""
        return self._content[place * self._width + KEY_BYTES : (place + 1) * self._width]
