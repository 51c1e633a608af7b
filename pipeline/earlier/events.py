"""Events of any number of images, sorted by image on disk, and the newest event of each kind.

Sorting holds one 256th of the events in memory; nothing else depends on their number.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import NamedTuple

import numpy as np

# An image's id in two halves; the time in microseconds since 1970; the row or failure that holds the event (number of
# the file, number of the row); the kind; size and version as a hash and the first bits of the content, 0 for unknown;
# whether the row or failure comes from a run over this run's input; and whether the row has the features that this run
# would compute.
EVENT = np.dtype(
    [
        ("high", "<u8"), ("low", "<u8"), ("at", "<i8"), ("shard", "<u4"), ("row", "<u4"), ("kind", "u1"),
        ("stat", "<u8"), ("content", "<u8"), ("of_input", "?"), ("features", "?"),
    ]
)  # fmt: skip

# Kinds: a row that this run would write again; any other row; a failure for a lasting reason, which this run would or
# might not meet again; a failure that may pass; a missing image; another version of the same content; a tombstone.
SAME_ROW, OTHER_ROW = 0, 1
KNOWN_FAILURE, LASTING_FAILURE, PASSING_FAILURE, NOT_FOUND = 2, 3, 4, 5
UNCHANGED, DELETED = 6, 7
_ROWS, _FAILURES = (SAME_ROW, OTHER_ROW), (KNOWN_FAILURE, LASTING_FAILURE, PASSING_FAILURE, NOT_FOUND)

_NO_HASH = "0" * 32
_BUCKETS = 256
_BUFFER_BYTES = 16 << 20


def ids_of(identities: list[str]) -> np.ndarray:
    """``image_id``s in the form of events: uint64[N, 2]."""
    return np.frombuffer(bytes.fromhex("".join(identities)), ">u8").reshape(-1, 2).astype("<u8")


def contents_of(hashes: list[str | None]) -> np.ndarray:
    """``content_hash``es in the form of events, see ``identity.content_bits``: uint64[N], 0 for none."""
    joined = "".join(digest or _NO_HASH for digest in hashes)
    return np.frombuffer(bytes.fromhex(joined), ">u8")[::2].astype("<u8")


class Newest(NamedTuple):
    """The newest events of a range of images, one per image, in ascending order of images.

    Attributes:
      labeled: rows that this run would write again, if the image was neither deleted nor replaced since; with its
        size and version as last seen.
      failed: failures that this run would meet again and that nothing newer supersedes.
      live: the newest rows or failures of images of this run's input that were not deleted since.
      features: the newest rows with the features that this run would compute, if no later row is in ``labeled`` and
        the image was neither deleted nor replaced since; with its size and version as last seen.
    """

    labeled: np.ndarray
    failed: np.ndarray
    live: np.ndarray
    features: np.ndarray


class EventWriter:
    """Collects events in any order and from several threads; a context manager that deletes its temporary files.

    Args:
      directory: directory for the temporary files.
    """

    def __init__(self, directory: Path) -> None:
        self._temporary = TemporaryDirectory(prefix="events-", dir=directory)
        self._pending: list[np.ndarray] = []
        self._pending_bytes = 0
        self._lock = threading.Lock()

    def __enter__(self) -> EventWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._temporary.cleanup()

    def add(self, events: np.ndarray) -> None:
        """Adds ``EVENT``[N]."""
        with self._lock:
            self._pending.append(events)
            self._pending_bytes += events.nbytes
            if self._pending_bytes >= _BUFFER_BYTES:
                self._write_pending()

    def newest(self) -> Iterator[Newest]:
        """The newest events, one range of image ids at a time."""
        with self._lock:
            self._write_pending()
        for bucket in range(_BUCKETS):
            path = self._bucket(bucket)
            if path.exists():
                yield newest(np.fromfile(path, EVENT))
                path.unlink()

    def _write_pending(self) -> None:
        if not self._pending:
            return
        events = np.concatenate(self._pending)
        self._pending, self._pending_bytes = [], 0
        buckets = (events["high"] >> np.uint64(56)).astype(np.uint8)
        order = np.argsort(buckets, kind="stable")
        events, buckets = events[order], buckets[order]
        ends = np.searchsorted(buckets, np.arange(_BUCKETS + 1))
        for bucket in range(_BUCKETS):
            if ends[bucket] < ends[bucket + 1]:
                with self._bucket(bucket).open("ab") as file:
                    file.write(events[ends[bucket] : ends[bucket + 1]].tobytes())

    def _bucket(self, number: int) -> Path:
        return Path(self._temporary.name) / f"{number:02x}"


def newest(events: np.ndarray) -> Newest:
    """The newest events of each image.

    At the same moment a row outranks a failure, and neither counts as deleted. A tombstone voids older events, a row
    voids older failures, and only the newest failure counts. A newer failure that shows that the image was replaced
    voids a row, as in the current table (``pipeline/current/resolve.py``). Otherwise the image would count as labeled
    after its repair, no run would label it again, and the table would lack it.
    """
    names = ("features", "of_input", "content", "stat", "row", "shard", "kind", "at", "low", "high")
    events = events[np.lexsort([events[name] for name in names])]
    is_first = np.ones(len(events), bool)
    is_first[1:] = (events["high"][1:] != events["high"][:-1]) | (events["low"][1:] != events["low"][:-1])
    image = np.cumsum(is_first) - 1
    images = int(is_first.sum())

    def last(*kinds: int, of: np.ndarray | None = None) -> _Last:
        wanted = np.isin(events["kind"], kinds)
        return _Last(events, image, images, wanted if of is None else wanted & of)

    same, row, failure = last(SAME_ROW), last(*_ROWS), last(*_FAILURES)
    deleted, touched, features = last(DELETED), last(UNCHANGED), last(*_ROWS, of=events["features"])
    is_labeled = same.there & (same.at >= deleted.at) & ~_replaced(events, image, same)
    lasts = failure.there & (failure.event["kind"] == KNOWN_FAILURE)
    lasts &= (failure.at > row.at) & (failure.at >= deleted.at)
    outcome = np.where(row.there & (row.at >= failure.at), row.event, failure.event)
    is_live = (row.there | failure.there) & outcome["of_input"] & (outcome["at"] >= deleted.at)
    has_features = features.there & (features.at >= deleted.at) & ~_replaced(events, image, features)
    has_features &= _is_of_newest_content(features, row) & ~(is_labeled & (same.at >= features.at))
    return Newest(
        _as_touched(same, touched)[is_labeled],
        _as_touched(failure, touched)[lasts],
        outcome[is_live],
        _as_touched(features, touched)[has_features],
    )


def _is_of_newest_content(one: _Last, row: _Last) -> np.ndarray:
    """Whether the content of each row is known and the newest row of its image has no other content."""
    content, newest_content = one.event["content"], row.event["content"]
    return (content != 0) & ((newest_content == 0) | (newest_content == content))


def _replaced(events: np.ndarray, image: np.ndarray, row: _Last) -> np.ndarray:
    """For each image, whether a failure after its row shows that the row's image no longer exists."""
    places = np.flatnonzero(np.isin(events["kind"], _FAILURES))
    places = places[row.there[image[places]] & (events["at"][places] > row.at[image[places]])]
    failed, labeled = events[places], row.event[image[places]]
    hashed = (failed["content"] != 0) & (labeled["content"] != 0)
    listed = (failed["stat"] != 0) & (labeled["stat"] != 0)
    other_content, other_stat = failed["content"] != labeled["content"], failed["stat"] != labeled["stat"]
    is_other = np.where(hashed, other_content, listed & other_stat)
    is_same = np.where(hashed, ~other_content, listed & ~other_stat)
    is_lasting = np.isin(failed["kind"], (KNOWN_FAILURE, LASTING_FAILURE))
    ends = (failed["kind"] == NOT_FOUND) | is_other | (is_lasting & ~is_same)
    replaced = np.zeros(len(row.there), bool)
    replaced[image[places[ends]]] = True
    return replaced


class _Last:
    """The last event of some kinds per image. If there is none, ``there`` is false and ``at`` the smallest int64."""

    def __init__(self, events: np.ndarray, image: np.ndarray, images: int, wanted: np.ndarray) -> None:
        places = np.full(images, -1)
        found = np.flatnonzero(wanted)
        # Of equal indices numpy keeps the last value.
        places[image[found]] = found
        self.there = places >= 0
        self.event = events[places]
        self.at = np.where(self.there, self.event["at"], np.iinfo(np.int64).min)


def _as_touched(last: _Last, touched: _Last) -> np.ndarray:
    """The events with the newest size and version under which their content was seen."""
    events = last.event.copy()
    is_same = touched.there & (touched.at >= last.at) & (touched.event["content"] == events["content"])
    is_same &= events["content"] != 0
    events["stat"] = np.where(is_same, touched.event["stat"], events["stat"])
    return events
