"""Reads events of earlier runs other than rows: failures, images with a new version only, and tombstones."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from beamlabel.pipeline.earlier import events
from beamlabel.pipeline.earlier.outputs import EarlierOutputs
from beamlabel.pipeline.earlier.wanted import LASTING, Wanted
from beamlabel.pipeline.output.manifest import dated
from beamlabel.pipeline.output.own_json import rows_of
from beamlabel.transforms import storage
from beamlabel.transforms.inputs.parquet_source import open_parquet
from beamlabel.transforms.inputs.selection import stat_hash
from beamlabel.transforms.records import Reason
from beamlabel.transforms.rows.times import microseconds

_LINES = 4096


def told_events(earlier: EarlierOutputs, wanted: Wanted) -> Iterator[np.ndarray]:
    """Yields all these events in chunks.

    Raises:
      DamagedError: a file is damaged.
      OSError: it cannot be read.
    """
    for number, (path, manifest) in enumerate(earlier.files("failures"), len(earlier.shards)):
        again = wanted.fails_again(manifest)
        of_input = wanted.tombstones and wanted.is_of_input(manifest)
        for made in rows_of(path, _failures(path, manifest, again)):
            made["of_input"], made["shard"] = of_input, number
            yield made
    for path, manifest in earlier.files("unchanged"):
        yield from rows_of(path, _unchanged(path, manifest))
    for path, _ in earlier.files("deleted"):
        yield from rows_of(path, _deleted(path))


def _failures(path: str, manifest: Mapping[str, Any], again: frozenset[str]) -> Iterator[np.ndarray]:
    for first, lines in _lines(path):
        kinds = [_kind(line["reason"], again) for line in lines.values()]
        found = list(lines.values())
        made = _events(found, np.array(kinds, np.uint8), _times(found, "failed_at", manifest))
        made["row"] = np.array(list(lines), np.uint32) + first
        yield made


def _unchanged(path: str, manifest: Mapping[str, Any]) -> Iterator[np.ndarray]:
    for _, told in _lines(path):
        found = list(told.values())
        kinds = [events.UNCHANGED] * len(found)
        yield _events(found, np.array(kinds, np.uint8), _times(found, "seen_at", manifest))


def _deleted(path: str) -> Iterator[np.ndarray]:
    with open_parquet(path) as file:
        for batch in file.iter_batches(columns=["image_id", "deleted_at"]):
            made = _identified(batch.column("image_id").to_pylist())
            made["kind"] = events.DELETED
            made["at"] = batch.column("deleted_at").cast(pa.int64()).to_numpy()
            yield made


def _kind(reason: str, again: frozenset[str]) -> int:
    if reason == Reason.NOT_FOUND:
        return events.NOT_FOUND
    if reason not in LASTING:
        return events.PASSING_FAILURE
    return events.KNOWN_FAILURE if reason in again else events.LASTING_FAILURE


def _lines(path: str) -> Iterator[tuple[int, dict[int, dict[str, Any]]]]:
    """Yields JSON lines in chunks, by line number relative to the chunk's first line, with the number of that line.

    Lines that do not identify their image, as in schema version 1, are left out."""
    first = 0
    with storage.open_input(path) as file:
        while chunk := list(itertools.islice(file, _LINES)):
            told = {number: json.loads(line) for number, line in enumerate(chunk)}
            yield first, {number: line for number, line in told.items() if line.get("image_id")}
            first += len(chunk)


def _times(lines: list[dict[str, Any]], name: str, manifest: Mapping[str, Any]) -> np.ndarray:
    """int64[N]: times of the lines; for earlier versions, whose lines have none, the start of their run."""
    began = dated(manifest)
    return np.array([microseconds(line[name]) if name in line else began for line in lines], np.int64)


def _events(lines: list[dict[str, Any]], kinds: np.ndarray, at: np.ndarray) -> np.ndarray:
    made = _identified([line["image_id"] for line in lines])
    made["kind"], made["at"] = kinds, at
    # Without a size the image was never seen.
    stats = [(line["source_bytes"], line["source_version"]) for line in lines]
    made["stat"] = [0 if size is None else stat_hash(size, version) for size, version in stats]
    made["content"] = events.contents_of([line["content_hash"] for line in lines])
    return made


def _identified(identities: list[str]) -> np.ndarray:
    made = np.zeros(len(identities), events.EVENT)
    ids = events.ids_of(identities)
    made["high"], made["low"] = ids[:, 0], ids[:, 1]
    return made
