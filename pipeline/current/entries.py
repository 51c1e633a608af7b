"""Reads outputs as entries of fixed size per image: rows, failures, tombstones and new versions."""

from __future__ import annotations

import enum
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import xxhash

from beamlabel.pipeline.current.outputs import Output
from beamlabel.pipeline.earlier.rows import read_examples, version_1_identity
from beamlabel.pipeline.earlier.wanted import LASTING
from beamlabel.pipeline.output import own_json
from beamlabel.transforms import storage
from beamlabel.transforms.inputs.parquet_source import open_parquet
from beamlabel.transforms.records import Reason
from beamlabel.transforms.rows import metadata_keys, schema
from beamlabel.transforms.rows.times import iso_time, microseconds
from beamlabel.transforms.shapes import parse

_BATCH_ROWS = 16_384

FAILURE, ROW, TOMBSTONE, TOUCHED = 0, 1, 2, 3
"""Kinds of entries; ``TOUCHED`` is another version of the same content. In the same run and at the same time, a row
counts as newer than a failure."""


_FACTS = ("content_hash", "source_version", "source_bytes")


class Why(enum.IntEnum):
    """The kind of a failure's reason."""

    PASSING = 0
    LASTING = 1
    GONE = 2


ENTRY = np.dtype(
    [
        ("high", "<u8"), ("low", "<u8"),
        ("time", "<i8"), ("rank", "<u4"), ("kind", "u1"), ("place", "<i8"),
        ("content", "<u8"), ("version", "<u8"), ("bytes", "<i8"), ("why", "u1"), ("fits", "?"),
    ]
)  # fmt: skip
"""An entry: ``image_id`` in two halves; the time in microseconds since 1970; the rank of the run among the runs; the
kind; the position of the row or failure among all of its kind. For the encoded image: the first half of
``content_hash``, a hash of ``source_version``, and the size, or 0, 0 and -1 if unknown. ``why`` of a failure; ``fits``:
whether the current module made it, see ``select``."""


def row_entries(
    output: Output, file: Mapping[str, Any], *, rank: int, place: int, fits: bool
) -> Iterator[np.ndarray]:
    """Yields entries of the rows of a data file, a batch at a time, in order.

    A row that does not identify its image, as some of schema version 1, gets the image_id 0.

    Args:
      output: output of the file.
      file: its entry in the manifest.
      rank: rank of the run among the runs.
      place: position of the file's first row among all rows.
      fits: whether the current module made the rows.

    Raises:
      OSError, ValueError: the file cannot be read.
    """
    path = output.path(str(file["name"]))
    for columns in _parquet_columns(path) if path.endswith(".parquet") else _example_columns(path):
        uris = columns["uri"]
        ids = columns.get("image_id") or [version_1_identity(uri, output.manifest) for uri in uris]
        made = np.zeros(len(uris), ENTRY)
        _set_ids(made, ids)
        made["time"] = columns.get("labeled_at") or output.time
        made["rank"], made["kind"], made["fits"] = rank, ROW, fits
        made["place"] = np.arange(place, place + len(made))
        _set_facts(made, columns)
        place += len(made)
        yield made


def failure_entries(
    output: Output, file: Mapping[str, Any], *, rank: int, place: int, fits: bool
) -> Iterator[np.ndarray]:
    """Yields entries of the failures in a file; failures that do not identify their image get the image_id 0."""
    for chunk in chunks(failures(output, file), _BATCH_ROWS):
        made = np.zeros(len(chunk), ENTRY)
        _set_ids(made, [failure["image_id"] for failure in chunk])
        made["time"] = [microseconds(failure["failed_at"]) for failure in chunk]
        made["rank"], made["kind"], made["fits"] = rank, FAILURE, fits
        made["place"] = np.arange(place, place + len(made))
        made["why"] = [_why(failure["reason"]) for failure in chunk]
        _set_facts(made, {name: [failure[name] for failure in chunk] for name in _FACTS})
        place += len(made)
        yield made


def touched_entries(
    output: Output, file: Mapping[str, Any], *, rank: int, place: int
) -> Iterator[np.ndarray]:
    """Yields entries of images with a new version but the same content."""
    for chunk in chunks(touched(output, file), _BATCH_ROWS):
        made = np.zeros(len(chunk), ENTRY)
        _set_ids(made, [one["image_id"] for one in chunk])
        made["time"] = [microseconds(one["seen_at"]) for one in chunk]
        made["rank"], made["kind"] = rank, TOUCHED
        made["place"] = np.arange(place, place + len(made))
        _set_facts(made, {name: [one[name] for one in chunk] for name in _FACTS})
        place += len(made)
        yield made


def tombstone_entries(output: Output, file: Mapping[str, Any], *, rank: int) -> Iterator[np.ndarray]:
    """Yields entries of the images that an output lists as deleted."""
    with open_parquet(output.path(str(file["name"]))) as parquet:
        for batch in parquet.iter_batches(_BATCH_ROWS, columns=["image_id", "deleted_at"]):
            made = np.zeros(batch.num_rows, ENTRY)
            _set_ids(made, batch.column("image_id").to_pylist())
            made["time"] = _microseconds(batch.column("deleted_at"))
            made["rank"], made["kind"], made["bytes"] = rank, TOMBSTONE, -1
            yield made


def failures(output: Output, file: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yields the failures of a file in order, with all keys of the current schema version."""
    # Earlier versions did not record the time.
    began = {"failed_at": iso_time(output.time)}
    unknown = dict.fromkeys(("source_bytes", "source_version", "content_hash"))
    with storage.open_input(output.path(str(file["name"]))) as lines:
        for line in lines:
            found: dict[str, Any] = parse(line, own_json.OUTCOME)
            if "image_id" in found:
                yield found if "failed_at" in found else found | began
                continue
            uri = found["uri"]
            identity = None if uri is None else version_1_identity(uri, output.manifest)
            yield {**found, "image_id": identity, **unknown, **began}


def touched(output: Output, file: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yields the lines of a file of images with a new version but the same content, in order."""
    began = {"seen_at": iso_time(output.time)}
    with storage.open_input(output.path(str(file["name"]))) as lines:
        for line in lines:
            yield began | parse(line, own_json.UNCHANGED)


def has_identity(there: pa.Schema) -> bool:
    """Whether a shard has the columns added by schema version 2, according to its metadata."""
    return (there.metadata or {}).get(metadata_keys.SCHEMA_VERSION.encode()) != b"1"


def chunks(values: Iterator[Any], size: int) -> Iterator[list[Any]]:
    """Yields lists of ``size`` values; the last one may be shorter."""
    while chunk := list(itertools.islice(values, size)):
        yield chunk


_COLUMNS = ("uri", "image_id", "labeled_at", "content_hash", "source_version", "source_bytes")


def _parquet_columns(path: str) -> Iterator[dict[str, list[Any]]]:
    with open_parquet(path) as parquet:
        # In version 1, kept columns could have these names.
        taken = frozenset() if has_identity(parquet.schema_arrow) else schema.SINCE_VERSION_2
        names = [name for name in _COLUMNS if name in parquet.schema_arrow.names and name not in taken]
        if "image_id" in names:
            names.remove("uri")
        for batch in parquet.iter_batches(_BATCH_ROWS, columns=names):
            columns = {
                name: _microseconds(batch.column(name)).tolist()
                if name == "labeled_at"
                else batch.column(name).to_pylist()
                for name in names
            }
            yield {"uri": columns.get("image_id") or [], **columns}


def _example_columns(path: str) -> Iterator[dict[str, list[Any]]]:
    for rows in read_examples(path, _COLUMNS):
        columns = {name: [row[name] for row in rows] for name in _COLUMNS}
        yield {name: values for name, values in columns.items() if any(value is not None for value in values)}


def _microseconds(times: pa.Array) -> np.ndarray:
    return np.asarray(times.cast(pa.timestamp("us", "UTC")).cast(pa.int64()).to_numpy(zero_copy_only=False))


def _set_ids(made: np.ndarray, ids: Sequence[str | None]) -> None:
    data = bytes.fromhex("".join(identity or "0" * 32 for identity in ids))
    if len(data) != 16 * len(made):
        raise ValueError("an image_id does not have 32 hex digits")
    halves = np.frombuffer(data, ">u8").reshape(-1, 2)
    made["high"], made["low"] = halves[:, 0], halves[:, 1]


def _set_facts(made: np.ndarray, columns: Mapping[str, Sequence[Any]]) -> None:
    nothing = [None] * len(made)
    hashes = columns.get("content_hash") or nothing
    made["content"] = [int(text[:16], 16) if text else 0 for text in hashes]
    made["version"] = [_hash(text) for text in columns.get("source_version") or nothing]
    made["bytes"] = [-1 if size is None else size for size in columns.get("source_bytes") or nothing]


def _hash(text: str | None) -> int:
    return 0 if text is None else xxhash.xxh3_64_intdigest(text.encode("utf-8", "surrogatepass")) or 1


def _why(reason: str) -> Why:
    if reason == Reason.NOT_FOUND:
        return Why.GONE
    return Why.LASTING if reason in LASTING else Why.PASSING
