"""A head on given features: every row gets the label from the weights or becomes a failure."""

import dataclasses

import numpy as np
import pyarrow as pa
import pytest

from beamlabel.transforms.inference.artifact import FLOAT32, LINEAR, ModelSpec, ModuleError
from beamlabel.transforms.inference.engines import Engine, open_payload
from beamlabel.transforms.inference.linear_engine import pack_head
from beamlabel.transforms.inference.options import PredictOptions
from beamlabel.transforms.inference.relabel import feature_matrix, relabel_rows
from beamlabel.transforms.records import EmbeddedRows, Failure, LabeledRows, Reason

DIM, CLASSES, ROWS = 6, 4, 5
NAMES = ("ant", "bee", "cat", "dog")
RANDOM = np.random.default_rng(7)
KERNEL = RANDOM.standard_normal((DIM, CLASSES)).astype(np.float32)
BIAS = RANDOM.standard_normal(CLASSES).astype(np.float32)
FEATURES = RANDOM.standard_normal((ROWS, DIM)).astype(np.float32)


SPEC = ModelSpec(
    LINEAR, 8, 8, CLASSES, DIM, "f", "h", "own", (0.0, 1.0), "logits", "softmax", "", "", None, None
)  # fmt: skip


def spec(**changes):
    return dataclasses.replace(SPEC, **changes)


def engine(*, normalizes=False, **changes):
    payload = pack_head(KERNEL, BIAS, normalizes=normalizes)
    return Engine(spec(**changes), len(payload), open_payload(spec(**changes), memoryview(payload)))


def options(**changes):
    return PredictOptions("", "", **{"top_k": 2, "scores": "softmax", "class_names": NAMES, **changes})


def rows(embeddings, kind=None):
    count = len(embeddings)
    batch = pa.record_batch({
        "uri": [f"{n}.png" for n in range(count)],
        "ref_id": [f"list.txt#{n}" for n in range(count)],
        "image_id": [f"{n:032x}" for n in range(count)],
        "embedding": embeddings if isinstance(embeddings, pa.Array) else pa.array(embeddings, kind),
        "customer": pa.array(range(count), pa.int16()),
        "source_bytes": pa.array([100] * count, pa.int64()),
        "source_version": pa.array([None] * count, pa.string()),
        "content_hash": [f"{n:032x}" for n in range(count)],
    })  # fmt: skip
    return EmbeddedRows("unit", np.arange(count) * 2 + 1, batch)


def softmax(logits):
    exponentials = np.exp(logits.astype(np.float64))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


FIXED, PLAIN = pa.list_(pa.float32(), DIM), pa.list_(pa.float32())


@pytest.mark.parametrize("kind", [FIXED, PLAIN, pa.large_list(pa.float64()), pa.list_(pa.float16())])
def test_every_row_is_labeled_as_the_weights_say(kind):
    features = FEATURES.astype(np.float16) if kind.value_type == pa.float16() else FEATURES
    [labeled] = relabel_rows(rows(list(features), kind), engine(), options())
    expected = softmax(features.astype(np.float32) @ KERNEL + BIAS)
    best = np.argsort(-expected, axis=1)[:, :2]
    assert isinstance(labeled, LabeledRows)
    assert labeled.batch.column("class_ids").to_pylist() == best.tolist()
    assert labeled.batch.column("label").to_pylist() == [NAMES[n] for n in best[:, 0]]
    assert labeled.batch.column("labels").to_pylist() == [[NAMES[n] for n in row] for row in best]
    scores = np.array(labeled.batch.column("scores").to_pylist())
    np.testing.assert_allclose(scores, np.take_along_axis(expected, best, 1), atol=1e-6)
    np.testing.assert_array_equal(
        np.array(labeled.batch.column("embedding").to_pylist(), np.float32), features
    )
    assert labeled.batch.column("customer").to_pylist() == list(range(ROWS))
    assert labeled.places.tolist() == [1, 3, 5, 7, 9]


@pytest.mark.parametrize("kind", [FIXED, PLAIN])
@pytest.mark.parametrize("bad", [None, [np.nan] * DIM, [*range(DIM - 1), np.inf], [*range(DIM - 1), None]])
def test_a_row_without_right_features_fails_alone(kind, bad):
    embeddings = [*FEATURES.tolist()[:2], bad, *FEATURES.tolist()[3:]]
    labeled, failure = relabel_rows(rows(embeddings, kind), engine(), options())
    [whole] = relabel_rows(rows(FEATURES.tolist(), kind), engine(), options())
    assert labeled.places.tolist() == [1, 3, 7, 9]
    assert labeled.batch.equals(whole.batch.take(pa.array([0, 1, 3, 4])))
    assert isinstance(failure, Failure) and failure.reason is Reason.INFERENCE_ERROR
    assert (failure.uri, failure.row, failure.unit_id, failure.content_hash) == (
        "2.png",
        5,
        "unit",
        f"{2:032x}",
    )


def test_another_dimension_fails():
    embeddings = [FEATURES[0].tolist(), FEATURES[1].tolist()[:-1], []]
    labeled, *failures = relabel_rows(rows(embeddings, PLAIN), engine(), options())
    assert labeled.places.tolist() == [1]
    assert [failure.row for failure in failures] == [3, 5]
    wrong = pa.array(FEATURES[:, :4].tolist(), pa.list_(pa.float32(), 4))
    assert [type(one) for one in relabel_rows(rows(wrong), engine(), options())] == [Failure] * ROWS


def test_a_slice_of_a_batch_is_read_where_it_lies():
    for kind in (FIXED, PLAIN):
        column = pa.array([None, *FEATURES.tolist(), None], kind).slice(2, 3)
        features, is_right = feature_matrix(column, DIM)
        assert is_right.all()
        np.testing.assert_array_equal(features, FEATURES[1:4])


def test_numbers_whose_sum_overflows_are_finite():
    large = np.full((1, DIM), 3e38, np.float32)
    assert feature_matrix(pa.array(list(large), FIXED), DIM)[1].all()


def test_a_head_that_normalizes_does_so():
    [labeled] = relabel_rows(
        rows(list(FEATURES), FIXED), engine(normalizes=True), options(scores="none", top_k=1)
    )
    unit = FEATURES / np.linalg.norm(FEATURES, axis=1, keepdims=True)
    np.testing.assert_allclose(
        labeled.batch.column("score").to_numpy(), (unit @ KERNEL + BIAS).max(axis=1), atol=1e-5
    )
    kept = np.array(labeled.batch.column("embedding").to_pylist(), np.float32)
    np.testing.assert_array_equal(kept, FEATURES)


def test_embeddings_are_dropped_if_not_asked_for():
    [labeled] = relabel_rows(rows(list(FEATURES), FIXED), engine(), options(embeddings=False))
    assert "embedding" not in labeled.batch.schema.names


def test_results_do_not_depend_on_how_rows_are_divided():
    many = RANDOM.standard_normal((700, DIM)).astype(np.float32)
    whole, _ = engine()(many)
    parts = [engine()(many[n : n + 93])[0] for n in range(0, 700, 93)]
    np.testing.assert_array_equal(whole, np.concatenate(parts))


def test_weights_of_another_shape_are_refused():
    with pytest.raises(ModuleError, match="5 features"):
        engine(embedding_dim=5)


def test_the_engine_says_how_it_computes():
    assert engine().computed_by == f"{LINEAR} {FLOAT32}"
    with pytest.raises(ValueError, match="features"):
        engine()([np.zeros((8, 8, 3), np.uint8)])
