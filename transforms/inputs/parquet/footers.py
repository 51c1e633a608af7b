"""A cache of footers and page indexes of files on buckets: each unit of a file needs them again.

It also holds the whole content of small files whose rows are read, see ``chunk_file``.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, BinaryIO

import pyarrow.parquet as pq

_MOST_BYTES = 8 << 20
_MOST_FILES = 64

_lock = threading.Lock()
_known: OrderedDict[tuple[str, str], Facts] = OrderedDict()


@dataclass
class Facts:
    """The known facts of one version of a file.

    Attributes:
      metadata: its footer.
      indexes: of its pages, if requested before.
      content: the whole file, if it is small and its checksum matched.
    """

    metadata: pq.FileMetaData
    indexes: Any = None
    content: bytes | None = None

    @property
    def size(self) -> int:
        """Its approximate size in bytes."""
        return int(self.metadata.serialized_size) + len(self.content or b"")


def facts_of(file: BinaryIO) -> Facts | None:
    """The facts of an open file, if its store reports a version."""
    place = _place(file)
    with _lock:
        facts = None if place is None else _known.get(place)
        if facts is not None and place is not None:
            _known.move_to_end(place)
        return facts


def keep(file: BinaryIO, facts: Facts) -> None:
    """Keeps the facts of an open file."""
    place = _place(file)
    if place is None or facts.size > _MOST_BYTES:
        return
    with _lock:
        _known[place] = facts
        while len(_known) > _MOST_FILES or sum(one.size for one in _known.values()) > _MOST_BYTES:
            _known.popitem(last=False)


def forget() -> None:
    """Forgets all files."""
    with _lock:
        _known.clear()


def _place(file: Any) -> tuple[str, str] | None:
    raw = getattr(file, "raw", file)
    version = getattr(raw, "version", None)
    return None if version is None else (str(raw.name), str(version))
