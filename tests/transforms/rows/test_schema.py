"""The content of an output row, and the conversion of predictions to rows."""

from __future__ import annotations

import dataclasses
import datetime as dt
import pickle

import numpy as np
import pyarrow as pa
import pytest

from beamlabel.transforms.rows.metadata_keys import MODULE_HANDLE
from beamlabel.transforms.rows.record_batch import to_record_batch
from beamlabel.transforms.rows.schema import OWN_COLUMNS, OutputSpec, arrow_schema, check_kept
from support.outputs import DIM, FULL, KEPT, PLAIN, TOP_K, prediction


def test_columns_are_those_of_the_design_in_its_order() -> None:
    schema = arrow_schema(FULL)
    assert schema.names == [*OWN_COLUMNS[:2], *KEPT, *OWN_COLUMNS[2:]]
    assert schema.field("embedding").type == pa.list_(pa.float32(), DIM)
    assert schema.field("class_ids").type == pa.list_(pa.int32())
    assert schema.field("source_bytes").type == pa.int64()
    assert schema.metadata == {MODULE_HANDLE.encode(): b"https://tfhub.dev/some/module/1"}


def test_fields_that_the_module_cannot_fill_are_absent() -> None:
    assert not {"label", "score", "labels", "class_ids", "scores"} & set(arrow_schema(PLAIN).names)
    nameless = arrow_schema(OutputSpec(top_k=1, num_classes=2)).names
    assert not {"label", "labels", "embedding"} & set(nameless)
    assert {"score", "class_ids", "scores"} <= set(nameless)


def test_the_spec_travels_to_workers() -> None:
    assert pickle.loads(pickle.dumps(FULL)) == FULL


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"format": "csv"}, "'csv'"),
        ({"compression": "zip"}, "'zip'"),
        ({"compression": "gzip"}, "parquet"),
        ({"top_k": 6}, "6"),
        ({"num_classes": None}, "num_classes"),
        ({"embedding_dim": 0}, "0"),
        ({"kept_fields": (("uri", pa.string()),)}, "'uri'"),
    ],
)
def test_a_spec_that_cannot_be_written_is_refused(changes: dict, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        dataclasses.replace(FULL, **changes)


@pytest.mark.parametrize("name", [*OWN_COLUMNS, "Label", "URI"])
def test_a_kept_column_with_a_name_of_ours_is_refused(name: str) -> None:
    kept = (("fine", pa.int8()), (name, pa.string()))
    with pytest.raises(ValueError, match=f"{name!r}.*SOURCE=NAME"):
        dataclasses.replace(FULL, kept_fields=kept)


@pytest.mark.parametrize(
    ("spec", "free"),
    [
        (PLAIN, {"label", "labels", "score", "class_ids", "scores"}),
        (OutputSpec(top_k=1, num_classes=2), {"label", "labels", "embedding"}),
    ],
)
def test_a_name_of_ours_is_free_if_the_output_lacks_that_column(spec: OutputSpec, free: set[str]) -> None:
    for name in OWN_COLUMNS:
        kept = ((name, pa.string()),)
        if name in free:
            names = arrow_schema(dataclasses.replace(spec, kept_fields=kept)).names
            assert names.count(name) == 1
        else:
            with pytest.raises(ValueError, match=name):
                dataclasses.replace(spec, kept_fields=kept)


def test_a_kept_column_named_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="'A': named twice"):
        check_kept([("a", pa.int8()), ("A", pa.int8())], "parquet")


@pytest.mark.parametrize(
    "kind",
    [
        pa.struct({"a": pa.int8()}),
        pa.map_(pa.string(), pa.int8()),
        pa.decimal128(9, 2),
        pa.list_(pa.list_(pa.int8())),
        pa.list_(pa.struct({"a": pa.int8()})),
        pa.uint64(),
        pa.null(),
    ],
    ids=str,
)
def test_a_type_without_counterpart_is_refused_for_tfrecord_only(kind: pa.DataType) -> None:
    check_kept([("odd", kind)], "parquet")
    with pytest.raises(ValueError, match="'odd'") as error:
        check_kept([("odd", kind)], "tfrecord")
    assert str(kind) in str(error.value)


def test_rows_equal_the_predictions() -> None:
    rows = [prediction(row) for row in range(7)]
    batch = to_record_batch(rows, FULL)
    batch.validate(full=True)
    assert batch.schema.equals(arrow_schema(FULL), check_metadata=True)
    for row, found in zip(rows, batch.to_pylist(), strict=True):
        assert row.class_ids is not None and row.scores is not None
        assert row.labels is not None and row.embedding is not None
        kept = {name: value[0].as_py() for name, value in zip(KEPT, row.ref.passthrough, strict=True)}
        assert {name: found.pop(name) for name in KEPT} == kept
        assert found == {
            "uri": row.ref.uri,
            "ref_id": row.ref.ref_id,
            "image_id": row.ref.image_id,
            "label": row.labels[0],
            "score": row.scores[0],
            "labels": list(row.labels),
            "class_ids": row.class_ids.tolist(),
            "scores": row.scores.tolist(),
            "embedding": row.embedding.tolist(),
            "width": row.info.width,
            "height": row.info.height,
            "format": "jpeg",
            "source_bytes": row.info.source_bytes,
            "source_version": row.info.source_version,
            "content_hash": row.info.content_hash,
            "module_handle": FULL.module_handle,
            "module_fingerprint": FULL.module_fingerprint,
            "preprocessing_id": FULL.preprocessing_id,
            "labeled_at": dt.datetime.fromtimestamp(FULL.labeled_at / 1e6, dt.timezone.utc),
        }


@pytest.mark.parametrize("spec", [FULL, PLAIN, OutputSpec(top_k=TOP_K, num_classes=5)])
def test_no_rows_give_an_empty_batch_with_the_full_schema(spec: OutputSpec) -> None:
    batch = to_record_batch([], spec)
    assert batch.num_rows == 0
    assert batch.schema.equals(arrow_schema(spec), check_metadata=True)


def test_the_signature_of_a_signed_url_is_not_written() -> None:
    row = prediction(0)
    signed = dataclasses.replace(row.ref, uri="https://host/a.jpg?X-Goog-Signature=secret")
    batch = to_record_batch([dataclasses.replace(row, ref=signed)], FULL)
    assert batch["uri"].to_pylist() == ["https://host/a.jpg"]


def test_a_file_name_that_is_not_utf8_is_a_row_all_the_same() -> None:
    row = prediction(0)
    odd = dataclasses.replace(row.ref, uri=b"caf\xe9.jpg".decode("utf-8", "surrogateescape"))
    batch = to_record_batch([dataclasses.replace(row, ref=odd)], FULL)
    assert batch["uri"].to_pylist() == ["caf\\udce9.jpg"]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"embedding": None}, "embedding"),
        ({"embedding": np.zeros(1, np.float32)}, "embedding"),
        ({"class_ids": np.zeros(2, np.int32)}, "class_ids"),
        ({"scores": None}, "scores"),
        ({"labels": None}, "labels"),
    ],
)
def test_a_prediction_of_another_shape_is_refused(changes: dict, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        to_record_batch([prediction(0), dataclasses.replace(prediction(1), **changes)], FULL)
