"""One side of a comparison: its current outcomes on disk, partitioned by image, and their sums."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from beamlabel.pipeline.current.entries import chunks
from beamlabel.pipeline.current.outputs import Output, find_outputs
from beamlabel.pipeline.current.read import examples, parquet_batches, wanted, wanted_failures
from beamlabel.pipeline.current.select import Selection, Source, select
from beamlabel.pipeline.earlier.rows import version_1_identity
from beamlabel.transforms.rows import metadata_keys, tf_examples
from beamlabel.transforms.writing.unit_summary import class_name

BUCKETS = 64

OUTCOME = pa.schema(
    {
        "image_id": pa.string(), "uri": pa.string(), "ref_id": pa.string(), "label": pa.string(), "score": pa.float32(),
        "content_hash": pa.string(), "reason": pa.string(), "detail": pa.string(), "output": pa.int32(),
    }
)  # fmt: skip
"""Outcome of an image: a row, or a failure with a ``reason``. ``output`` is the position of its output."""

_ROW_COLUMNS = ("image_id", "uri", "ref_id", "label", "score", "content_hash")
_EXAMPLES = 512
_FAILURES = 4096
# Embeddings are comparable only if these agree.
_SPACE = (
    metadata_keys.MODULE_FINGERPRINT,
    metadata_keys.PREPROCESSING_ID,
    metadata_keys.EMBEDDING_DIM,
    metadata_keys.EMBEDDING_NORMALIZED,
)


@dataclass
class Side:
    """The content of a side.

    Attributes:
      outputs: outputs in the order of their runs.
      labels: numbers of current rows by best label.
      labeled, failed: numbers of current rows and failures.
      unidentified: number of rows and failures that do not identify their image and are not compared.
      spaces: modules and preprocessings of the embeddings, as tuples of metadata.
      embedding_sum: float64[D], sum over the current rows; None without embeddings, or with several spaces.
    """

    outputs: list[Output]
    directory: Path
    labels: Counter[str] = field(default_factory=Counter)
    labeled: int = 0
    failed: int = 0
    unidentified: int = 0
    spaces: set[tuple[str | None, ...]] = field(default_factory=set)
    embedding_sum: np.ndarray | None = None

    def bucket(self, number: int) -> pa.Table:
        """The outcomes of about a 64th of the images."""
        path = self.directory / f"outcomes-{number:02x}"
        if not path.exists():
            return OUTCOME.empty_table()
        with pa.OSFile(str(path)) as file, pa.ipc.open_stream(file) as stream:
            return stream.read_all()


def read_side(pattern: str, name: str, directory: Path) -> Side:
    """Reads the current outcomes of the outputs that match a pattern; memory does not depend on their number.

    Args:
      pattern: an output, a directory of outputs, or a glob of either.
      name: name of the argument, for messages.
      directory: empty directory for the outcomes.

    Raises:
      UsageError: there is no such output.
      OSError, ValueError, ImportError: a file cannot be read.
    """
    outputs = find_outputs([pattern], name)
    scratch = directory / "select"
    scratch.mkdir()
    selection = select(outputs, lambda output, file: True, scratch)
    side = Side(outputs, directory)
    side.unidentified = selection.rows["unidentified"] + selection.failures["unidentified"]
    places = {id(output): place for place, output in enumerate(outputs)}
    writer = _Writer(directory)
    try:
        for source in selection.data:
            for batch in _outcomes(source, selection, side):
                labels = batch.column("label").value_counts().to_pylist()
                side.labels.update({v["values"]: v["counts"] for v in labels if v["values"] is not None})
                side.labeled += batch.num_rows
                writer.write(_as_outcomes(batch, places[id(source.output)]))
        for source in selection.failed:
            for chunk in chunks(wanted_failures(source, wanted(selection.is_failed, source)), _FAILURES):
                side.failed += len(chunk)
                batch = pa.RecordBatch.from_pylist(
                    chunk, pa.schema([c for c in OUTCOME if c.name in chunk[0]])
                )
                writer.write(_as_outcomes(batch, places[id(source.output)]))
    finally:
        writer.close()
    return side


def _outcomes(source: Source, selection: Selection, side: Side) -> Iterator[pa.RecordBatch]:
    """Yields the current rows of a file, and adds up their embeddings."""
    is_wanted = wanted(selection.is_kept, source)
    if not is_wanted.any():
        return
    metadata = source.output.manifest["metadata"]
    dimension = metadata.get(metadata_keys.EMBEDDING_DIM)
    if dimension is not None:
        side.spaces.add(tuple(metadata.get(name) for name in _SPACE))
    adds = dimension is not None and len(side.spaces) == 1
    if not adds:
        side.embedding_sum = None
    read = _parquet if source.path.endswith(".parquet") else _tfrecords
    for batch, embeddings in read(source, is_wanted, adds):
        if embeddings is not None:
            total = embeddings.sum(axis=0, dtype=np.float64)
            side.embedding_sum = total if side.embedding_sum is None else side.embedding_sum + total
        yield batch


_Rows = Iterator[tuple[pa.RecordBatch, "np.ndarray | None"]]


def _parquet(source: Source, is_wanted: np.ndarray, adds: bool) -> _Rows:
    names = [*_ROW_COLUMNS, "class_ids", *(("embedding",) if adds else ())]
    for batch in parquet_batches(source, is_wanted, names, 4096):
        columns = {name: batch.column(name) for name in batch.schema.names}
        embeddings = columns.pop("embedding", None)
        ids = columns.pop("class_ids", None)
        if "image_id" not in columns:
            uris = columns["uri"].to_pylist()
            columns["image_id"] = pa.array(
                [version_1_identity(uri, source.output.manifest) for uri in uris], pa.string()
            )
        if "label" not in columns and ids is not None:
            columns["label"] = pa.array([class_name(best[0]) for best in ids.to_pylist()], pa.string())
        numbers = None
        if embeddings is not None:
            numbers = embeddings.flatten().to_numpy().reshape(batch.num_rows, -1)
        yield _batch(columns, batch.num_rows), numbers


def _tfrecords(source: Source, is_wanted: np.ndarray, adds: bool) -> _Rows:
    names = [*_ROW_COLUMNS, "class_ids", *(("embedding",) if adds else ())]
    for chunk in chunks(examples(source, is_wanted), _EXAMPLES):
        rows = tf_examples.decode(chunk, names)
        found: dict[str, list[Any]] = {name: [_first(row.get(name)) for row in rows] for name in _ROW_COLUMNS}
        if not any(found["image_id"]):
            found["image_id"] = [version_1_identity(uri, source.output.manifest) for uri in found["uri"]]
        if not any(found["label"]) and rows[0].get("class_ids"):
            found["label"] = [class_name((row["class_ids"] or [0])[0]) for row in rows]
        numbers = np.array([row["embedding"] for row in rows], np.float32) if adds else None
        yield (
            _batch(
                {name: pa.array(values, OUTCOME.field(name).type) for name, values in found.items()},
                len(rows),
            ),
            numbers,
        )


def _first(values: list[Any] | None) -> Any:
    value = values[0] if values else None
    return value.decode() if isinstance(value, bytes) else value


def _batch(columns: Mapping[str, pa.Array], rows: int) -> pa.RecordBatch:
    kinds = {name: OUTCOME.field(name).type for name in _ROW_COLUMNS}
    arrays = [columns.get(name, pa.nulls(rows, kind)) for name, kind in kinds.items()]
    return pa.RecordBatch.from_arrays(arrays, list(kinds))


def _as_outcomes(batch: pa.RecordBatch, output: int) -> pa.RecordBatch:
    rows = batch.num_rows
    arrays = [
        batch.column(c.name) if c.name in batch.schema.names else pa.nulls(rows, c.type)
        for c in list(OUTCOME)[:-1]
    ]
    return pa.RecordBatch.from_arrays([*arrays, pa.array(np.full(rows, output, np.int32))], schema=OUTCOME)


class _Writer:
    """Writes outcomes to one file per bucket, chosen by the first byte of the image_id."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._open: dict[int, tuple[Any, Any]] = {}

    def write(self, batch: pa.RecordBatch) -> None:
        first = (
            np.array([int(identity[:2], 16) for identity in batch.column("image_id").to_pylist()]) % BUCKETS
        )
        for number in np.unique(first):
            self._of(int(number)).write_batch(batch.filter(pa.array(first == number)))

    def _of(self, number: int) -> Any:
        if number not in self._open:
            file = pa.OSFile(str(self._directory / f"outcomes-{number:02x}"), "wb")
            self._open[number] = file, pa.ipc.new_stream(file, OUTCOME)
        return self._open[number][1]

    def close(self) -> None:
        for file, stream in self._open.values():
            stream.close()
            file.close()
