"""Reads some columns of the rows and failures of a published output, from Parquet and TFRecords alike."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from beamlabel.pipeline import layout
from beamlabel.pipeline.errors import UsageError
from beamlabel.pipeline.output.manifest import absolute_output, require_manifest
from beamlabel.pipeline.output.own_json import DAMAGE, FAILURE
from beamlabel.transforms import storage
from beamlabel.transforms.inputs.parquet_source import open_parquet
from beamlabel.transforms.rows import metadata_keys, schema, tf_examples
from beamlabel.transforms.rows.tfrecord import read_records
from beamlabel.transforms.shapes import parse
from beamlabel.transforms.storage.inside import below
from beamlabel.transforms.worker.read_ahead import read_ahead

_BATCH_ROWS = 8192
# Number of shards in a bucket to read at once.
_READERS = 16
# Records come with their embeddings, which cannot be left out, so batches are small.
_EXAMPLES = 512
_TEXTS, _NUMBERS = pa.list_(pa.string()), pa.list_(pa.int32())
_TYPES: Mapping[str, pa.DataType] = {"labels": _TEXTS, "class_ids": _NUMBERS, "score": pa.float32()}
_FAILURE_COLUMNS = ("uri", "ref_id", "image_id")


@dataclass(frozen=True)
class Result:
    """The manifest's entries for an output with classes.

    Attributes:
      output: absolute path or URI.
      manifest: its ``_MANIFEST.json``.
      shards, failures: file names.
      failed: number of failed images.
      has_names: whether classes have names.
    """

    output: str
    manifest: Mapping[str, Any]
    shards: tuple[str, ...]
    failures: tuple[str, ...]
    failed: int
    has_names: bool

    @property
    def trained_module(self) -> str | None:
        """The module's handle, if ``beamlabel train`` wrote it: its accuracy is too high on its training images."""
        module: Mapping[str, Any] = self.manifest.get("module", {})
        return module.get("handle") if module.get("class_names") is not None else None

    @contextmanager
    def readable(self, name: str) -> Iterator[str]:
        """Yields the path of a file of the output; errors in the block are reported with its name."""
        try:
            yield below(self.output, name)
        except (OSError, *DAMAGE) as error:
            raise UsageError(
                f"OUTPUT {self.output!r}: {name} cannot be read: {error}; run beamlabel verify"
            ) from error

    def schema(self) -> pa.Schema:
        """The columns; for TFRecords from the manifest, with the types in which values are read."""
        if self.shards[0].endswith(".parquet"):
            with self.readable(self.shards[0]) as path, open_parquet(path) as file:
                return file.schema_arrow
        metadata: dict[str, str] = dict(self.manifest["metadata"])
        own = schema.own_columns_by_metadata(metadata)
        names = [name for name in schema.OWN_COLUMNS if name in own]
        if metadata.get(metadata_keys.SCHEMA_VERSION) == "1":
            names = [name for name in names if name not in schema.SINCE_VERSION_2]
        fields = {name: _TYPES.get(name, pa.string()) for name in names}
        return pa.schema([*fields.items(), *_kept_fields(self.manifest)], metadata=metadata)

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Yields all rows with these columns."""
        sources = (functools.partial(self._shard_batches, name, columns) for name in self.shards)
        yield from read_ahead(sources, readers=1 if storage.is_local(self.output) else _READERS)

    def _shard_batches(self, name: str, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        with self.readable(name) as path:
            if name.endswith(".parquet"):
                with open_parquet(path) as file:
                    yield from file.iter_batches(_BATCH_ROWS, columns=list(columns))
            else:
                yield from _examples(path, self.schema(), columns)

    def failure_batches(self) -> Iterator[pa.RecordBatch]:
        """Yields all failures with the columns that identify their images."""
        for name in self.failures:
            with self.readable(name) as path, storage.open_input(path) as stream:
                while lines := list(itertools.islice(stream, _BATCH_ROWS)):
                    found = [parse(line, FAILURE) for line in lines]
                    yield pa.record_batch(
                        [pa.array([one.get(key) for one in found], pa.string()) for key in _FAILURE_COLUMNS],
                        names=list(_FAILURE_COLUMNS),
                    )


def read_result(output: str) -> Result:
    """Reads the manifest of an output.

    Raises:
      UsageError: there is none, it is damaged, or the rows have no classes.
    """
    output = absolute_output(output)
    try:
        manifest = require_manifest(output)
        files, metadata = manifest["files"], manifest["metadata"]
        shards = tuple(file["name"] for file in files if file["kind"] == "data")
        failures = tuple(file["name"] for file in files if file["kind"] == "failures")
        failed = manifest["rows"]["failed"]
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"OUTPUT {output!r}: {layout.MANIFEST} is damaged: {error}") from error
    if not shards:
        raise UsageError(f"OUTPUT {output!r}: the output has no rows")
    if metadata_keys.NUM_CLASSES not in metadata:
        raise UsageError(f"OUTPUT {output!r}: its rows have embeddings but no classes")
    return Result(output, manifest, shards, failures, failed, metadata_keys.LABELS_SHA256 in metadata)


def _kept_fields(manifest: Mapping[str, Any]) -> Iterator[tuple[str, pa.DataType]]:
    """Yields the kept columns of TFRecords; only columns whose values may be classes get their exact type."""
    told = manifest.get("kept_columns")
    if told is None:
        # Manifests of older versions have no types.
        told = {text.rpartition("=")[2]: "string" for text in manifest["options"].get("keep_columns", ())}
    for name, kind in told.items():
        value = pa.binary()
        if "string" in kind:
            value = pa.string()
        elif "int" in kind:
            value = pa.int64()
        is_nested = any(word in kind for word in ("struct", "map<", "timestamp", "date", "duration", "time"))
        yield name, pa.binary() if is_nested else pa.list_(value) if "list" in kind else value


def _examples(path: str, kinds: pa.Schema, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    with storage.open_input(path) as file:
        records = read_records(file)
        while chunk := list(itertools.islice(records, _EXAMPLES)):
            rows = tf_examples.decode(chunk, columns)
            yield pa.record_batch(
                [_column([row.get(name) for row in rows], kinds.field(name).type) for name in columns],
                names=list(columns),
            )


def _column(values: Sequence[list[Any] | None], kind: pa.DataType) -> pa.Array:
    """A feature of all rows as a column; a missing one is null; an empty list stays empty."""
    if pa.types.is_list(kind):
        return pa.array([None if one is None else [_plain(v) for v in one] for one in values], kind)
    return pa.array([_plain(one[0]) if one else None for one in values], kind)


def _plain(value: Any) -> Any:
    return value.decode() if isinstance(value, bytes) else value
