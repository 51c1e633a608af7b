"""Adds classes to rows with known features, using only a module's head."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from beamlabel.transforms.inference.engines import Engine
from beamlabel.transforms.inference.options import PredictOptions, fitted
from beamlabel.transforms.inference.top_k import top_k
from beamlabel.transforms.records import EmbeddedRows, Failure, LabeledRows, Reason, Stage

_EMBEDDING = "embedding"


def relabel_rows(rows: EmbeddedRows, engine: Engine, options: PredictOptions) -> list[LabeledRows | Failure]:
    """Labels rows with a module's head; a row with unsuitable features becomes a failure.

    Args:
      rows: rows of one unit.
      engine: the engine ``linear``, or an engine with such a ``head``.
      options: the prediction options; the embeddings stay unchanged, normalized or not.

    Raises:
      ValueError: there is no head.
      WishError: the module does not allow a value of the options.
    """
    head = engine.head or engine
    if head.spec.embedding_dim is None or head.spec.num_classes is None:
        raise ValueError("features cannot be labeled: the module has no head of its own")
    if options.is_open:
        options = fitted(options, head.spec)
    batch = rows.batch
    features, is_right = feature_matrix(batch.column(_EMBEDDING), head.spec.embedding_dim)
    columns: dict[str, pa.Array] = {}
    if options.top_k:
        logits, _ = head(features)
        assert logits is not None
        is_right &= np.isfinite(logits).all(axis=1)
        columns = _class_columns(logits, options)
    outcomes: list[LabeledRows | Failure] = [
        _failure(rows, int(place), head) for place in np.flatnonzero(~is_right)
    ]
    if options.embeddings:
        columns[_EMBEDDING] = fixed_size_lists(features)
    kept = [
        (name, column)
        for name, column in zip(batch.schema.names, batch.columns, strict=True)
        if name != _EMBEDDING
    ]
    columns = {**dict(kept), **columns}
    labeled = pa.record_batch(list(columns.values()), names=list(columns))
    places = rows.places
    if not is_right.all():
        labeled, places = labeled.filter(pa.array(is_right)), places[is_right]
    if len(places):
        outcomes.insert(0, LabeledRows(rows.unit_id, places, labeled, head.computed_by))
    return outcomes


def feature_matrix(column: pa.Array, dimension: int) -> tuple[np.ndarray, np.ndarray]:
    """The features of rows, float32[N, dimension], and bool[N]: whether a row has that many, all finite.

    Other rows are zero. The matrix is a view of the column's memory if all rows have that many.

    Args:
      column: lists of floats of any kind.
      dimension: number of features.

    Raises:
      ValueError: the column does not hold lists of floats.
    """
    kind = column.type
    is_fixed = pa.types.is_fixed_size_list(kind)
    if not (is_fixed or pa.types.is_list(kind) or pa.types.is_large_list(kind)) or not pa.types.is_floating(
        kind.value_type
    ):
        raise ValueError(f"the column {_EMBEDDING!r} is {kind}, not a list of floats")
    if is_fixed:
        has_all = np.full(len(column), kind.list_size == dimension)
    else:
        has_all = column.value_lengths().fill_null(-1).to_numpy(zero_copy_only=False) == dimension
    if column.null_count:
        has_all &= column.is_valid().to_numpy(zero_copy_only=False)
    whole = column if has_all.all() else column.filter(pa.array(has_all))
    values = whole.flatten().cast(pa.float32()).to_numpy(zero_copy_only=False)
    features = values.reshape(len(whole), dimension)
    if not has_all.all():
        every = np.zeros((len(column), dimension), np.float32)
        every[has_all] = features
        features = every
    # The sum is only finite if all values are, but it may overflow even so.
    with np.errstate(over="ignore", invalid="ignore"):
        is_finite = np.isfinite(features.sum(axis=1))
    if not is_finite.all():
        doubtful = np.flatnonzero(~is_finite)
        is_finite[doubtful] = np.isfinite(features[doubtful]).all(axis=1)
        if not is_finite.all():
            features = np.where(is_finite[:, None], features, np.float32(0))
    return features, has_all & is_finite


def fixed_size_lists(matrix: np.ndarray) -> pa.FixedSizeListArray:
    """float32[N, D] as an Arrow column of lists of D, without a copy."""
    values = pa.array(np.ascontiguousarray(matrix).ravel())
    kind = pa.list_(pa.field("element", pa.float32()), matrix.shape[1])
    return pa.FixedSizeListArray.from_arrays(values, type=kind)


def _class_columns(logits: np.ndarray, options: PredictOptions) -> dict[str, pa.Array]:
    ids, scores = top_k(logits, options.top_k or 0, options.scores)
    columns = {
        "score": pa.array(np.ascontiguousarray(scores[:, 0])),
        "class_ids": _lists(pa.array(ids.ravel()), ids.shape[1]),
        "scores": _lists(pa.array(scores.ravel()), ids.shape[1]),
    }
    if options.class_names is not None:
        names = pa.array(list(options.class_names), pa.string())
        columns["label"] = names.take(pa.array(np.ascontiguousarray(ids[:, 0])))
        columns["labels"] = _lists(names.take(pa.array(ids.ravel())), ids.shape[1])
    return columns


def _lists(values: pa.Array, length: int) -> pa.ListArray:
    offsets = pa.array(np.arange(0, len(values) + 1, length, dtype=np.int32))
    kind = pa.list_(pa.field("element", values.type))
    return pa.ListArray.from_arrays(offsets, values, type=kind)


def _failure(rows: EmbeddedRows, place: int, head: Engine) -> Failure:
    """The failure of a row that could not be labeled."""
    row = {
        name: rows.batch.column(name)[int(place)].as_py()
        for name in ("uri", "ref_id", "image_id", "source_bytes", "source_version", "content_hash")
    }
    embedding = rows.batch.column(_EMBEDDING)[int(place)]
    if not embedding.is_valid:
        detail = "the earlier row has no embedding"
    elif len(embedding.values) != head.spec.embedding_dim:
        found = len(embedding.values)
        detail = (
            f"the earlier row's embedding has {found} numbers, "
            f"but the module has {head.spec.embedding_dim} features"
        )
    else:
        detail = "the earlier row's embedding, or the head's result for it, has NaN or infinity"
    return Failure(
        row["uri"],
        row["ref_id"],
        Stage.INFERENCE,
        Reason.INFERENCE_ERROR,
        detail,
        int(rows.places[place]),
        rows.unit_id,
        row["image_id"],
        row["source_bytes"],
        row["source_version"],
        row["content_hash"],
    )
