"""What earlier runs tell beside their rows, as events: failures, images that were only touched, and tombstones."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from beamlabel.pipeline.earlier import events
from beamlabel.pipeline.earlier.outputs import EarlierOutputs
from beamlabel.pipeline.earlier.rows import started_at
from beamlabel.pipeline.earlier.wanted import Wanted
from beamlabel.transforms import storage
from beamlabel.transforms.inputs.parquet_source import open_parquet
from beamlabel.transforms.inputs.selection import stat_hash

_LINES = 4096


def told_events(earlier: EarlierOutputs, wanted: Wanted) -> Iterator[np.ndarray]:
    """All that is told, some at a time.

    Raises:
      ValueError: a file is damaged.
      OSError: it cannot be read.
    """
    for path, manifest in earlier.files("failures"):
        lasting = wanted.fails_again(manifest)
        for lines in _lines(path):
            kinds = [
                events.LASTING_FAILURE if line["reason"] in lasting else events.OTHER_FAILURE
                for line in lines
            ]
            yield _events(lines, np.array(kinds, np.uint8), started_at(manifest))
    for path, manifest in earlier.files("unchanged"):
        for lines in _lines(path):
            yield _events(lines, np.full(len(lines), events.UNCHANGED, np.uint8), started_at(manifest))
    for path, _ in earlier.files("deleted"):
        with open_parquet(path) as file:
            for batch in file.iter_batches(columns=["image_id", "deleted_at"]):
                made = _identified(batch.column("image_id").to_pylist())
                made["kind"] = events.DELETED
                made["at"] = batch.column("deleted_at").cast(pa.int64()).to_numpy()
                yield made


def _lines(path: str) -> Iterator[list[dict[str, Any]]]:
    """Lines of JSON, some at a time; only those that tell their image, which schema version 1 did not."""
    with storage.open_input(path) as file:
        while chunk := list(itertools.islice(file, _LINES)):
            yield [line for line in map(json.loads, chunk) if line.get("image_id")]


def _events(lines: list[dict[str, Any]], kinds: np.ndarray, at: int) -> np.ndarray:
    made = _identified([line["image_id"] for line in lines])
    made["kind"], made["at"] = kinds, at
    # Without a size nothing was known of the image.
    stats = [(line["source_bytes"], line["source_version"]) for line in lines]
    made["stat"] = [0 if size is None else stat_hash(size, version) for size, version in stats]
    made["content"] = events.contents_of([line["content_hash"] for line in lines])
    return made


def _identified(identities: list[str]) -> np.ndarray:
    made = np.zeros(len(identities), events.EVENT)
    ids = events.ids_of(identities)
    made["high"], made["low"] = ids[:, 0], ids[:, 1]
    return made
