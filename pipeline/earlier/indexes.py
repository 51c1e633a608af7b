"""Gathers earlier outputs into the indexes that ``OpenUnit`` queries.

Memory does not depend on the number of rows: batches of rows are sorted on disk.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from beamlabel.pipeline import layout
from beamlabel.pipeline.earlier.events import EventWriter, Newest
from beamlabel.pipeline.earlier.outputs import EarlierOutputs, Shard, earlier_outputs
from beamlabel.pipeline.earlier.rows import RowCounts, row_events
from beamlabel.pipeline.earlier.told import told_events
from beamlabel.pipeline.earlier.wanted import Wanted
from beamlabel.pipeline.errors import UsageError
from beamlabel.pipeline.output.manifest import dated
from beamlabel.pipeline.output.own_json import rows_of
from beamlabel.transforms.inputs.key_index import KEY_BYTES, KeyIndexWriter
from beamlabel.transforms.inputs.selection import STATE
from beamlabel.transforms.rows.feature_places import FEATURE_PLACE, EarlierShard
from beamlabel.transforms.rows.times import iso_time
from beamlabel.transforms.secrets.logs import get_logger
from beamlabel.transforms.storage.errors import is_user_error
from beamlabel.transforms.units.earlier_shards import listed

# Each thread holds one batch, so this bounds the memory.
_THREADS = 8
_HASH_BLOCK_BYTES = 1 << 20
# In microseconds; a smaller difference is not reported.
_CLOCKS_DIFFER = 60_000_000

PLACE_BYTES = 8
"""In the index of live images: number of the shard, number of the row, each uint32."""

_LOGGER = get_logger("beamlabel")


@dataclass(frozen=True)
class LocalIndex:
    """An index of keys that is not staged yet.

    Attributes:
      path: file on this machine.
      sha256: hash of the file, in hex.
      keys: number of keys.
      value_bytes: size of the value after each key.
    """

    path: Path
    sha256: str
    keys: int
    value_bytes: int = 0


@dataclass(frozen=True)
class EarlierIndexes:
    """Indexes of earlier outputs.

    Attributes:
      labeled, failed, live, features: see ``SelectionOptions``; None if not needed.
      live_shards: a JSON list of the files that ``live`` numbers: shards, then failures.
      feature_shards: the files that ``features`` numbers, see ``EarlierShard``.
      newest_at: time of the newest of these outputs, in microseconds since 1970; 0 without any.
    """

    labeled: LocalIndex
    failed: LocalIndex | None = None
    live: LocalIndex | None = None
    live_shards: LocalIndex | None = None
    features: LocalIndex | None = None
    feature_shards: LocalIndex | None = None
    newest_at: int = 0

    def by_name(self) -> dict[str, LocalIndex]:
        """The indexes by their names in the staging directory; features only if there are any."""
        features = self.features if self.features is not None and self.features.keys else None
        named = {
            layout.LABELED: self.labeled,
            layout.FAILED: self.failed,
            layout.LIVE: self.live,
            layout.LIVE_SHARDS: self.live_shards,
            layout.FEATURES: features,
            layout.FEATURE_SHARDS: None if features is None else self.feature_shards,
        }
        return {name: index for name, index in named.items() if index is not None}


def earlier_indexes(patterns: Sequence[str], wanted: Wanted, directory: Path) -> EarlierIndexes:
    """Indexes the images of earlier outputs: those that this run need not label again, and those that existed.

    An image counts as labeled if it has a row of the same module and preprocessing in a shard with all the columns of
    this run, and was not deleted since.

    Args:
      patterns: earlier outputs: directories, or globs of directories or shards. A pattern may match nothing.
      wanted: the rows that this run would write.
      directory: directory for the indexes.

    Raises:
      UsageError: a pattern or a file cannot be read.
    """
    begin = time.monotonic()
    earlier = earlier_outputs(patterns, wanted.output)
    with EventWriter(directory) as writer:
        try:
            counts = _gather(earlier, wanted, writer)
        except (OSError, ValueError, ImportError) as error:
            if not is_user_error(error):
                raise
            raise UsageError(f"--skip_labeled: {error}") from error
        indexes = _write_indexes(writer, wanted, earlier, directory)
    rows, unresolved = sum(one.same for one in counts), sum(one.unresolved for one in counts)
    if earlier.shards:
        _LOGGER.info(
            "Skipping up to %d images that earlier runs labeled (rows: %d, shards: %d; read in %.1f s)",
            indexes.labeled.keys, rows, len(earlier.shards), time.monotonic() - begin,
        )  # fmt: skip
    else:
        _LOGGER.info("--skip_labeled matches no earlier shards, so no image counts as labeled")
    if indexes.failed is not None and indexes.failed.keys:
        _LOGGER.info(
            "Skipping up to %d images that failed for a lasting reason, unless they changed; "
            "use --retry_known_failures to try them again", indexes.failed.keys,
        )  # fmt: skip
    if indexes.features is not None and indexes.features.keys:
        _LOGGER.info(
            "Labeling %d images from earlier features of the same base, without fetching them",
            indexes.features.keys,
        )  # fmt: skip
    if unresolved:
        _LOGGER.warning(
            "%d rows of schema version 1 do not identify their images (inline images, or relative names without a "
            "manifest); these images are not skipped",
            unresolved,
        )
    _tell_others(earlier, wanted)
    return indexes


def later_than(newest_at: int, labeled_at: int) -> int:
    """The time of this run's rows: after all earlier outputs, even if the clock differs.

    The newest row of an image counts, and a tombstone voids older rows. A clock that was set back, the slow clock of
    another machine, or two runs at a time must not reverse that order.

    Args:
      newest_at: time of the newest earlier output, in microseconds since 1970.
      labeled_at: time by the clock, likewise.
    """
    if newest_at > labeled_at + _CLOCKS_DIFFER:
        _LOGGER.warning(
            "An earlier output is dated %s, but the clock of this machine says %s; dating this run after that output",
            iso_time(newest_at), iso_time(labeled_at),
        )  # fmt: skip
    return max(labeled_at, newest_at + 1)


def _gather(earlier: EarlierOutputs, wanted: Wanted, writer: EventWriter) -> list[RowCounts]:
    # A failure voids a row of other content, and the content proves the features of a row.
    contents = wanted.changed or wanted.features is not None or any(earlier.files("failures"))

    def gather(shard: tuple[int, Shard]) -> RowCounts:
        counts = RowCounts()
        read = row_events(shard[1], shard[0], wanted, counts, contents=contents)
        for events in rows_of(shard[1].path, read):
            writer.add(events)
        return counts

    with ThreadPoolExecutor(_THREADS) as threads:
        counts = list(threads.map(gather, enumerate(earlier.shards)))
    for events in told_events(earlier, wanted):
        writer.add(events)
    return counts


def _tell_others(earlier: EarlierOutputs, wanted: Wanted) -> None:
    if not wanted.tombstones:
        return
    others = [
        directory for directory, manifest in earlier.manifests.items() if not wanted.is_of_input(manifest)
    ]
    if others:
        _LOGGER.warning(
            "--tombstones: ignoring the images of %d earlier outputs that have other inputs, such as %s",
            len(others), others[0],
        )  # fmt: skip


def _write_indexes(
    writer: EventWriter, wanted: Wanted, earlier: EarlierOutputs, directory: Path
) -> EarlierIndexes:
    """Writes the indexes, one range of images at a time."""
    widths = {layout.LABELED: STATE.size if wanted.changed else 0}
    if wanted.known_failures:
        widths[layout.FAILED] = STATE.size
    if wanted.tombstones:
        widths[layout.LIVE] = PLACE_BYTES
    if wanted.features is not None:
        widths[layout.FEATURES] = FEATURE_PLACE.size
    with ExitStack() as stack:
        files = {name: stack.enter_context((directory / name).open("wb")) for name in widths}
        for newest in writer.newest():
            for name, file in files.items():
                file.write(_entries(newest, name, widths[name]))
    made = {name: _local_index(directory / name, width) for name, width in widths.items()}
    lists: dict[str, LocalIndex] = {}
    if wanted.tombstones:
        told = [shard.path for shard in earlier.shards] + [path for path, _ in earlier.files("failures")]
        path = directory / layout.LIVE_SHARDS
        path.write_text(json.dumps(told))
        lists[layout.LIVE_SHARDS] = LocalIndex(path, _sha256(path), len(told))
    if wanted.features is not None:
        shards = [EarlierShard(shard.path, shard.size, shard.version) for shard in earlier.shards]
        path = directory / layout.FEATURE_SHARDS
        path.write_text(listed(wanted.features.dimension, shards))
        lists[layout.FEATURE_SHARDS] = LocalIndex(path, _sha256(path), len(shards))
    return EarlierIndexes(
        labeled=made[layout.LABELED],
        failed=made.get(layout.FAILED),
        live=made.get(layout.LIVE),
        live_shards=lists.get(layout.LIVE_SHARDS),
        features=made.get(layout.FEATURES),
        feature_shards=lists.get(layout.FEATURE_SHARDS),
        newest_at=max(map(dated, earlier.manifests.values()), default=0),
    )


def _entries(newest: Newest, name: str, value_bytes: int) -> bytes:
    """The entries of an index as stored on disk: each key is followed by its value."""
    by_name = {
        layout.LABELED: newest.labeled,
        layout.FAILED: newest.failed,
        layout.LIVE: newest.live,
        layout.FEATURES: newest.features,
    }
    events = by_name[name]
    fields: Iterable[tuple[str, str]] = (("high", ">u8"), ("low", ">u8"))
    if name in (layout.LIVE, layout.FEATURES):
        fields = (*fields, ("shard", "<u4"), ("row", "<u4"))
    if name != layout.LIVE and value_bytes:
        fields = (*fields, ("stat", "<u8"), ("content", "<u8"))
    entries = np.empty(len(events), np.dtype(list(fields)))
    for field, _ in fields:
        entries[field] = events[field]
    assert entries.itemsize == KEY_BYTES + value_bytes
    return entries.tobytes()


def _local_index(path: Path, value_bytes: int) -> LocalIndex:
    return LocalIndex(path, _sha256(path), path.stat().st_size // (KEY_BYTES + value_bytes), value_bytes)


def write_index(writer: KeyIndexWriter, path: Path) -> LocalIndex:
    """Writes the index of ``writer`` to ``path``."""
    keys = writer.finish(path)
    return LocalIndex(path, _sha256(path), keys)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_HASH_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()
