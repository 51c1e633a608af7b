import numpy as np
import pytest

from beamlabel.transforms.inference.top_k import l2_normalized, scores_of, top_k


def test_softmax_agrees_with_its_definition_in_double_precision():
    logits = np.random.default_rng(0).normal(0, 5, (7, 1001)).astype(np.float32)
    exact = np.exp(logits.astype(np.float64))
    exact /= exact.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(scores_of(logits, "softmax"), exact, rtol=1e-5)


@pytest.mark.parametrize("function", ["softmax", "sigmoid"])
def test_scores_of_huge_logits_stay_finite(function):
    scores = scores_of(np.array([[-1000.0, 0.0, 1000.0]], np.float32), function)
    assert np.isfinite(scores).all()
    assert scores[0, 2] == 1 and scores[0, 0] == 0


def test_sigmoid_agrees_with_its_definition():
    logits = np.linspace(-10, 10, 50, dtype=np.float32).reshape(5, 10)
    np.testing.assert_allclose(
        scores_of(logits, "sigmoid"), 1 / (1 + np.exp(-logits.astype(np.float64))), rtol=1e-6
    )


def test_none_hands_the_logits_through():
    logits = np.array([[3.0, -1.0, 7.0]], np.float32)
    ids, scores = top_k(logits, 2, "none")
    assert ids.tolist() == [[2, 0]]
    assert scores.tolist() == [[7.0, 3.0]]


def test_top_k_is_the_head_of_the_full_order():
    logits = np.random.default_rng(1).normal(size=(20, 50)).astype(np.float32)
    ids, scores = top_k(logits, 5, "softmax")
    assert ids.dtype == np.int32 and scores.dtype == np.float32
    np.testing.assert_array_equal(ids, np.argsort(-logits, axis=1)[:, :5])
    assert (np.diff(scores, axis=1) <= 0).all()


def test_equal_logits_keep_the_order_of_the_classes():
    ids, _ = top_k(np.array([[1, 2, 2, 2, 0]], np.float32), 3, "softmax")
    assert ids.tolist() == [[1, 2, 3]]


def test_equal_logits_at_the_border_too():
    logits = np.zeros((3, 1001), np.float32)
    logits[1, 500] = 1
    logits[2] = np.arange(1001)
    ids, _ = top_k(logits, 5, "none")
    assert ids.tolist() == [[0, 1, 2, 3, 4], [500, 0, 1, 2, 3], [1000, 999, 998, 997, 996]]


def test_all_classes_may_be_asked_for():
    ids, scores = top_k(np.array([[0.0, 2.0, 1.0]], np.float32), 3, "softmax")
    assert ids.tolist() == [[1, 2, 0]]
    assert scores.sum() == pytest.approx(1)


@pytest.mark.parametrize("k", [0, 4])
def test_k_out_of_range_is_refused(k):
    with pytest.raises(ValueError, match=f"k must be 1 to 3.*not {k}"):
        top_k(np.zeros((1, 3), np.float32), k, "softmax")


def test_an_unknown_function_is_refused():
    with pytest.raises(ValueError, match="'sparsemax'"):
        scores_of(np.zeros((1, 3), np.float32), "sparsemax")


def test_normalized_rows_have_length_one_and_zero_stays_zero():
    vectors = np.array([[3.0, 4.0], [0.0, 0.0]], np.float32)
    np.testing.assert_allclose(l2_normalized(vectors), [[0.6, 0.8], [0.0, 0.0]], rtol=1e-6)
