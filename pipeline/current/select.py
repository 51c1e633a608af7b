"""Selects the current rows and failures of many outputs.

A 256th of the entries is in memory at a time; the disk holds a byte per row.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from beamlabel.pipeline.current.entries import (
    ENTRY,
    FAILURE,
    ROW,
    TOUCHED,
    failure_entries,
    row_entries,
    tombstone_entries,
    touched_entries,
)
from beamlabel.pipeline.current.outputs import Output
from beamlabel.pipeline.current.resolve import Fate, resolve

_THREADS = 4
_BUCKETS = 256
# For all buckets together, before they are written.
_BUFFER_BYTES = 32 << 20


@dataclass(frozen=True)
class Source:
    """A file of an output, and its position among all of its kind.

    Attributes:
      output: output of the file.
      file: its entry in the manifest.
      start: position of its first row or failure.
      fits: whether the current module made its rows.
    """

    output: Output
    file: Mapping[str, Any]
    start: int
    fits: bool

    @property
    def path(self) -> str:
        """Path of the file."""
        return self.output.path(str(self.file["name"]))

    @property
    def stop(self) -> int:
        """Position after its last row or failure."""
        return self.start + int(self.file["rows"])


@dataclass(frozen=True)
class Selection:
    """The current rows, failures and versions.

    Attributes:
      data, failed, touched: files of each kind, in the order of their positions.
      is_kept: bool[rows], by position of the row; mapped, not in memory.
      is_failed: bool[failures], likewise.
      is_touched: bool[versions], likewise: whether it is the version of a current outcome.
      rows: numbers of rows by ``Fate``, with its name in lower case, and ``unidentified``.
      failures: the same for failures.
    """

    data: tuple[Source, ...]
    failed: tuple[Source, ...]
    touched: tuple[Source, ...]
    is_kept: np.ndarray
    is_failed: np.ndarray
    is_touched: np.ndarray
    rows: dict[str, int]
    failures: dict[str, int]


def select(
    outputs: Sequence[Output], fits: Callable[[Output, Mapping[str, Any] | None], bool], directory: Path
) -> Selection:
    """Reads the identities of rows, failures and tombstones, and finds the current ones; see ``resolve``.

    Args:
      outputs: outputs in the order of ``find_outputs``.
      fits: whether the current module made a data file of an output, or with None its failures.
      directory: empty directory for temporary files, about 60 bytes per row; it must live as long as the result.

    Raises:
      OSError, ValueError, ImportError: a file cannot be read.
    """
    data = _sources(outputs, "data", fits)
    failed = _sources(outputs, "failures", lambda output, _: fits(output, None))
    touched = _sources(outputs, "unchanged", lambda output, _: True)
    reader = _Reader(outputs, _Buckets(directory))
    with ThreadPoolExecutor(_THREADS) as threads:
        for work, over in ((reader.rows, data), (reader.failures, failed), (reader.touched, touched)):
            list(threads.map(work, over))
        list(threads.map(reader.tombstones, outputs))
    is_kept = _mapped(directory / "kept", data[-1].stop if data else 0)
    is_failed = _mapped(directory / "failed", failed[-1].stop if failed else 0)
    is_touched = _mapped(directory / "touched", touched[-1].stop if touched else 0)
    counts: Counter[tuple[int, int]] = Counter()
    for entries in reader.buckets.read():
        ordered, fates = resolve(entries)
        for kind, places in ((ROW, is_kept), (FAILURE, is_failed), (TOUCHED, is_touched)):
            of_kind = ordered["kind"] == kind
            places[ordered["place"][of_kind & (fates == Fate.KEPT)]] = True
            counts.update(
                {(kind, fate): int(n) for fate, n in enumerate(np.bincount(fates[of_kind], minlength=5))}
            )
    rows, failures = (
        {fate.name.lower(): counts[kind, fate] for fate in Fate} | {"unidentified": reader.unidentified[kind]}
        for kind in (ROW, FAILURE)
    )
    return Selection(data, failed, touched, is_kept, is_failed, is_touched, rows, failures)


def _sources(
    outputs: Sequence[Output], kind: str, fits: Callable[[Output, Mapping[str, Any] | None], bool]
) -> tuple[Source, ...]:
    sources, start = [], 0
    for output in outputs:
        for file in output.files(kind):
            sources.append(Source(output, file, start, fits(output, file)))
            start = sources[-1].stop
    return tuple(sources)


def _check_count(source: Source, count: int) -> None:
    if count != source.file["rows"]:
        raise ValueError(f"{source.path}: {count} rows, but its manifest lists {source.file['rows']}")


def _mapped(path: Path, size: int) -> np.ndarray:
    return np.memmap(path, np.bool_, "w+", shape=(size,)) if size else np.zeros(0, bool)


class _Reader:
    """Reads files into buckets of entries; for use by several threads."""

    def __init__(self, outputs: Sequence[Output], buckets: _Buckets) -> None:
        self.buckets = buckets
        self.unidentified: Counter[int] = Counter()
        self._rank = {id(output): number for number, output in enumerate(outputs)}
        self._lock = Lock()

    def rows(self, source: Source) -> None:
        """Reads a data file."""
        of = id(source.output)
        entries = row_entries(
            source.output, source.file, rank=self._rank[of], place=source.start, fits=source.fits
        )
        _check_count(source, self._add(entries))

    def failures(self, source: Source) -> None:
        """Reads a file of failures."""
        of = id(source.output)
        entries = failure_entries(
            source.output,
            source.file,
            rank=self._rank[of],
            place=source.start,
            fits=source.fits,
        )
        _check_count(source, self._add(entries))

    def touched(self, source: Source) -> None:
        """Reads a file of images with a new version but the same content."""
        rank = self._rank[id(source.output)]
        _check_count(
            source, self._add(touched_entries(source.output, source.file, rank=rank, place=source.start))
        )

    def tombstones(self, output: Output) -> None:
        """Reads the tombstones of an output."""
        for file in output.files("deleted"):
            self._add(tombstone_entries(output, file, rank=self._rank[id(output)]))

    def _add(self, batches: Iterator[np.ndarray]) -> int:
        count = 0
        for entries in batches:
            if not len(entries):
                continue
            count += len(entries)
            kind = int(entries["kind"][0])
            known = entries[(entries["high"] != 0) | (entries["low"] != 0)]
            self.buckets.add(known)
            with self._lock:
                self.unidentified[kind] += len(entries) - len(known)
        return count


class _Buckets:
    """Entries on disk, partitioned by the first byte of their image_id; for use by several threads."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._pending: list[np.ndarray] = []
        self._pending_bytes = 0
        self._lock = Lock()

    def add(self, entries: np.ndarray) -> None:
        """Adds entries of any images."""
        with self._lock:
            self._pending.append(entries)
            self._pending_bytes += entries.nbytes
            if self._pending_bytes >= _BUFFER_BYTES:
                self._write()

    def read(self) -> Iterator[np.ndarray]:
        """Yields the entries, all of one image together; deletes them afterwards."""
        self._write()
        for number in range(_BUCKETS):
            path = self._path(number)
            if path.exists():
                yield np.fromfile(path, ENTRY)
                path.unlink()

    def _write(self) -> None:
        if not self._pending:
            return
        entries = np.concatenate(self._pending)
        self._pending, self._pending_bytes = [], 0
        first = (entries["high"] >> np.uint64(56)).astype(np.uint8)
        order = np.argsort(first, kind="stable")
        ends = np.searchsorted(first[order], np.arange(_BUCKETS + 1))
        for number in range(_BUCKETS):
            if ends[number] < ends[number + 1]:
                with self._path(number).open("ab") as file:
                    entries[order[ends[number] : ends[number + 1]]].tofile(file)

    def _path(self, number: int) -> Path:
        return self._directory / f"entries-{number:02x}"
