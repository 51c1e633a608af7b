"""Predictions → one Arrow record batch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from beamlabel.transforms.prediction_blocks import gathered
from beamlabel.transforms.records import ImageInfo, ImageRef, Prediction, PredictionBlock
from beamlabel.transforms.rows.public_columns import public_column
from beamlabel.transforms.rows.schema import OutputSpec, arrow_schema
from beamlabel.transforms.storage.uris import encodable, public_uri


def to_record_batch(predictions: Sequence[Prediction], spec: OutputSpec) -> pa.RecordBatch:
    """One row per prediction, in the given order, with the columns of ``arrow_schema(spec)``.

    Raises:
      ValueError, pyarrow.ArrowException: See ``block_batch``.
    """
    return block_batch(gathered(predictions), spec)


def block_batch(block: PredictionBlock, spec: OutputSpec) -> pa.RecordBatch:
    """The rows of a block, in its order, with the columns of ``arrow_schema(spec)``; numbers are not copied.

    Raises:
      ValueError: The block lacks an array that the spec requires, or has it in another shape.
      pyarrow.ArrowException: A kept value does not have its column's type.
    """
    schema = arrow_schema(spec)
    columns = reference_columns(block.refs, spec.kept_fields)
    columns |= _image_columns(block.infos, spec)
    if spec.num_classes is not None:
        columns |= _class_columns(block, spec)
    if spec.embedding_dim is not None:
        kind = schema.field("embedding").type
        values = _checked(block, block.embeddings, spec.embedding_dim, np.float32, "embedding")
        columns["embedding"] = pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), type=kind)
    return pa.record_batch([columns[name] for name in schema.names], schema=schema)


def labeled_batch(batch: pa.RecordBatch, spec: OutputSpec) -> pa.RecordBatch:
    """The rows of ``LabeledRows`` with the columns of ``arrow_schema(spec)``, and without any others.

    Raises:
      ValueError: A column is missing, has another type than in the spec, or has a null that the spec forbids.
    """
    schema = arrow_schema(spec)
    constant = _constant_columns(spec, batch.num_rows)
    columns = []
    for field in schema:
        column = constant.get(field.name)
        if column is None:
            if field.name not in batch.schema.names:
                raise ValueError(f"labeled rows have no column {field.name!r}")
            column = batch.column(field.name)
        if column.type != field.type:
            raise ValueError(f"the column {field.name!r} of labeled rows is {column.type}, not {field.type}")
        if column.null_count and not field.nullable:
            raise ValueError(f"the column {field.name!r} of labeled rows has a null")
        columns.append(column)
    return pa.record_batch(columns, schema=schema)


def reference_columns(
    refs: Sequence[ImageRef], kept_fields: Sequence[tuple[str, pa.DataType]]
) -> dict[str, pa.Array]:
    """The columns of references: ``uri``, ``ref_id``, ``image_id`` and the kept columns, one row per reference.

    Args:
      refs: of the rows.
      kept_fields: see ``OutputSpec``.

    Raises:
      pyarrow.ArrowException: A kept value does not have its column's type.
    """
    kept = {
        name: public_column(pa.concat_arrays([pa.array([], kind), *(ref.passthrough[place] for ref in refs)]))
        for place, (name, kind) in enumerate(kept_fields)
    }
    return {
        "uri": _text([public_uri(ref.uri) for ref in refs]),
        "ref_id": _text([ref.ref_id for ref in refs]),
        "image_id": _text([ref.image_id or "" for ref in refs]),
        **kept,
    }


def _class_columns(block: PredictionBlock, spec: OutputSpec) -> dict[str, pa.Array]:
    k = spec.top_k
    ids = _checked(block, block.class_ids, k, np.int32, "class_ids")
    scores = _checked(block, block.scores, k, np.float32, "scores")
    columns = {
        "score": pa.array(np.ascontiguousarray(scores[:, 0])),
        "class_ids": _lists(pa.array(ids.ravel()), k),
        "scores": _lists(pa.array(scores.ravel()), k),
    }
    if spec.has_labels:
        labels = _checked(block, block.labels, k, np.object_, "labels")
        columns["label"] = _text(labels[:, 0].tolist())
        columns["labels"] = _lists(_text(labels.ravel().tolist()), k)
    return columns


def _image_columns(infos: Sequence[ImageInfo], spec: OutputSpec) -> dict[str, pa.Array]:
    return {
        "width": pa.array([i.width for i in infos], pa.int32()),
        "height": pa.array([i.height for i in infos], pa.int32()),
        "format": _text([i.format for i in infos]),
        "source_bytes": pa.array([i.source_bytes for i in infos], pa.int64()),
        "source_version": _text([i.source_version for i in infos]),
        "content_hash": _text([i.content_hash for i in infos]),
        **_constant_columns(spec, len(infos)),
    }


def _constant_columns(spec: OutputSpec, rows: int) -> dict[str, pa.Array]:
    """The columns with the same value in every row."""
    return {
        "module_handle": pa.repeat(spec.module_handle, rows),
        "module_fingerprint": pa.repeat(spec.module_fingerprint, rows),
        "preprocessing_id": pa.repeat(spec.preprocessing_id, rows),
        "labeled_at": pa.repeat(pa.scalar(spec.labeled_at, pa.timestamp("us", "UTC")), rows),
    }


def _text(values: Sequence[str | None]) -> pa.Array:
    try:
        return pa.array(values, pa.string())
    except UnicodeEncodeError:  # file names that are not UTF-8
        return pa.array([value if value is None else encodable(value) for value in values], pa.string())


def _checked(
    block: PredictionBlock, array: np.ndarray | None, width: int, dtype: type[np.generic], name: str
) -> np.ndarray:
    """An array of a block; raises ``ValueError`` unless it has ``width`` values for each image."""
    if array is None and not len(block):
        return np.empty((0, width), dtype)
    if array is None or array.shape != (len(block), width):
        found = None if array is None else array.shape[1:]
        raise ValueError(f"{name}: a prediction has {found}, expected ({width},)")
    return np.ascontiguousarray(array, dtype)


def _lists(values: pa.Array, length: int) -> pa.Array:
    """Cuts values into lists of one length."""
    return pa.ListArray.from_arrays(pa.array(np.arange(0, len(values) + 1, length, dtype=np.int32)), values)
