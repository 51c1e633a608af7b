"""The required agreement of a quantized module."""

import numpy as np
import pytest

from beamlabel.transforms.quantize.agreement import Agreement, agreement


def logits_of(classes, sure):
    """float32[N, 3] with the given best class and a score of 0.99 if it is sure, otherwise of about 0.4."""
    found = np.zeros((len(classes), 3), np.float32)
    found[np.arange(len(classes)), classes] = np.where(sure, 6.0, 0.3)
    return found


def test_only_sure_images_count_for_the_class():
    sure = np.arange(200) < 100
    before = logits_of(np.zeros(200, int), sure)
    after = logits_of(np.where(np.arange(200) < 1, 1, np.where(sure, 0, 2)), sure)
    found = agreement((before, None), (after, None), "softmax")
    assert (found.images, found.sure_images, found.cosine) == (200, 100, None)
    assert found.sure_same_class == pytest.approx(0.99)
    assert found.same_class == pytest.approx(0.495)
    assert found.passes
    after[1] = logits_of([1], [True])
    assert not agreement((before, None), (after, None), "softmax").passes


def test_too_few_sure_images_do_not_pass():
    before = logits_of(np.zeros(200, int), np.arange(200) < 49)
    assert not agreement((before, None), (before, None), "softmax").passes
    before = logits_of(np.zeros(200, int), np.arange(200) < 50)
    assert agreement((before, None), (before, None), "softmax").passes


def test_features_are_compared_by_their_median_cosine():
    random = np.random.default_rng(3)
    before = random.standard_normal((101, 64)).astype(np.float32)
    near, far = before.copy(), before.copy()
    near[:50] *= -1
    far[:51] *= -1
    assert agreement((None, before), (None, near), "none").passes
    assert not agreement((None, before), (None, far), "none").passes
    assert agreement((None, before), (None, 3 * before), "none").cosine == pytest.approx(1)


def test_rows_of_zeros_and_numbers_that_are_none():
    zeros = np.zeros((3, 4), np.float32)
    assert agreement((None, zeros), (None, zeros), "none").cosine == 1
    assert agreement((None, zeros), (None, zeros + 1), "none").cosine == 0
    assert not Agreement(3, None, 0, None, float("nan")).passes
