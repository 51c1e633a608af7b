"""Reads data files of published outputs, Parquet or TFRecord, as Arrow batches of some columns."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa

from beamlabel.pipeline.current.outputs import Output
from beamlabel.transforms import storage
from beamlabel.transforms.inputs.parquet_source import open_parquet
from beamlabel.transforms.rows import tf_examples
from beamlabel.transforms.rows.tfrecord import read_records

_BATCH_ROWS = 16_384
# Embeddings of 1280 features take 5 MB.
_EMBEDDED_ROWS = 1024
_TEXTS = ("uri", "ref_id", "image_id", "label", "format", "source_version", "content_hash", "module_handle",
          "module_fingerprint", "preprocessing_id")  # fmt: skip
_NUMBERS = ("width", "height", "source_bytes", "labeled_at")


def columns_of(outputs: Sequence[Output]) -> pa.Schema:
    """All columns of the outputs with their newest types, and the metadata of the newest output.

    Args:
      outputs: the newest last.
    """
    found: dict[str, pa.DataType] = {}
    for output in reversed(outputs):
        for name, kind in _columns(output).items():
            found.setdefault(name, kind)
    return pa.schema(list(found.items()), metadata=outputs[-1].manifest["metadata"])


def all_batches(outputs: Sequence[Output], names: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Yields the rows of all data files, see ``batches``."""
    for output in outputs:
        for file in output.files("data"):
            yield from batches(output, output.path(str(file["name"])), names)


def batches(output: Output, path: str, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Yields the rows of a data file in order, with those of the named columns that it has.

    Raises:
      OSError, ValueError: the file cannot be read.
      ImportError: see ``tf_examples.check_installed``.
    """
    if path.endswith(".parquet"):
        with open_parquet(path) as file:
            there = set(file.schema_arrow.names)
            yield from file.iter_batches(_BATCH_ROWS, columns=[name for name in names if name in there])
        return
    kinds = _columns(output)
    for examples in _examples(path):
        found = tf_examples.decode_batch(examples)
        arrays = {
            name: _typed(found.column(name), kinds[name])
            for name in names
            if name in kinds and name in found.schema.names
        }
        yield pa.RecordBatch.from_pydict(arrays)


def embeddings(path: str, dimension: int) -> Iterator[np.ndarray]:
    """Yields the embeddings of a data file in the order of its rows: float32[some, dimension] at a time.

    Raises:
      OSError, ValueError: the file cannot be read, or an embedding has another dimension.
      ImportError: see ``tf_examples.check_installed``.
    """
    if path.endswith(".parquet"):
        with open_parquet(path) as file:
            for batch in file.iter_batches(_EMBEDDED_ROWS, columns=["embedding"]):
                yield _matrix(batch.column("embedding"), dimension, path)
        return
    for examples in _examples(path):
        yield _matrix(tf_examples.decode_batch(examples).column("embedding"), dimension, path)


def _matrix(column: pa.Array, dimension: int, path: str) -> np.ndarray:
    values = column.flatten()
    if values.null_count or len(values) != len(column) * dimension:
        raise ValueError(f"{path}: an embedding does not have {dimension} values")
    return np.asarray(values.to_numpy(zero_copy_only=False), np.float32).reshape(len(column), dimension)


def _examples(path: str) -> Iterator[list[bytes]]:
    with storage.open_input(path) as file:
        records = read_records(file)
        while chunk := list(itertools.islice(records, _EMBEDDED_ROWS)):
            yield chunk


def _columns(output: Output) -> dict[str, pa.DataType]:
    data = output.files("data")
    if not data:
        return {}
    path = output.path(str(data[0]["name"]))
    if path.endswith(".parquet"):
        with open_parquet(path) as file:
            return {field.name: field.type for field in file.schema_arrow}
    kept = output.manifest.get("kept_columns") or {}
    own = {**dict.fromkeys(_TEXTS, pa.string()), **dict.fromkeys(_NUMBERS, pa.int64())}
    return {
        **own,
        "labels": pa.list_(pa.string()),
        **{name: _example_type(kind) for name, kind in kept.items()},
    }


def _example_type(kind: str) -> pa.DataType:
    """The type that a kept column has when read from ``tf.Example``; ``kind`` is its Arrow type in the manifest."""
    inner = kind.partition(": ")[2] if "list" in kind else kind
    if "string" in inner:
        value = pa.string()
    elif "binary" in inner:
        value = pa.binary()
    else:
        value = pa.float32() if any(name in inner for name in ("float", "double")) else pa.int64()
    return pa.list_(value) if "list" in kind else value


def _typed(column: pa.Array, kind: pa.DataType) -> pa.Array:
    if pa.types.is_list(kind):
        return column.cast(kind)
    lengths = column.value_lengths()
    if column.null_count or not pa.compute.all(pa.compute.equal(lengths, 1)).as_py():
        column = pa.array(
            [value[0] if value else None for value in column.to_pylist()], column.type.value_type
        )
    else:
        column = column.flatten()
    return column.cast(kind)
