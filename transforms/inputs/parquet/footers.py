"""Footers and page indexes that this process has read of files on buckets: each unit of a file needs them anew.

Of small files of which rows are read it is all of them, see ``chunk_file``.
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
    """What is known of one version of a file.

    Attributes:
      metadata: its footer.
      indexes: those of its pages, if somebody has asked.
      content: all of it, if it is small and its checksum was right.
    """

    metadata: pq.FileMetaData
    indexes: Any = None
    content: bytes | None = None

    @property
    def size(self) -> int:
        """Bytes that it takes, about."""
        return int(self.metadata.serialized_size) + len(self.content or b"")


def facts_of(file: BinaryIO) -> Facts | None:
    """What is known of an open file, if its store says which version it is."""
    place = _place(file)
    with _lock:
        facts = None if place is None else _known.get(place)
        if facts is not None and place is not None:
            _known.move_to_end(place)
        return facts


def keep(file: BinaryIO, facts: Facts) -> None:
    """Keeps what was read of an open file."""
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
