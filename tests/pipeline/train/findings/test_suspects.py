"""Images with a probably wrong truth, also for degenerate tasks."""

import warnings

import numpy as np
import pytest

from beamlabel.pipeline.train.findings.suspects import suspects_of
from support.training_rows import training_rows

pytest.importorskip("cleanlab")

IMAGES, WRONG = 60, 7


def said_of(targets, seed=0):
    """Probabilities that are certain of the truth."""
    doubt = np.random.default_rng(seed).uniform(0.01, 0.2, targets.shape).astype(np.float32)
    return np.where(targets, 1 - doubt, doubt)


@pytest.mark.parametrize("constant", [None, 0, 1])
def test_one_wrong_set_of_classes_is_found_beside_classes_that_all_images_have_or_none(constant):
    targets = np.zeros((IMAGES, 3), np.uint8)
    targets[::2, 0] = targets[::3, 1] = targets[1::2, 2] = 1
    if constant is not None:
        targets[:, 1] = constant
    said = said_of(targets)
    targets[WRONG, 0] ^= 1
    (found,) = suspects_of(said, training_rows(targets), 10)
    assert found.uri == f"{WRONG}.jpg" and found.truth != found.predicted


def test_of_two_classes_one_that_all_images_have():
    targets = np.ones((IMAGES, 2), np.uint8)
    targets[::2, 1] = 0
    said = said_of(targets)
    targets[WRONG, 1] ^= 1
    assert [one.uri for one in suspects_of(said, training_rows(targets), 10)] == [f"{WRONG}.jpg"]


@pytest.mark.parametrize("targets", [np.ones((9, 2)), np.eye(2)[[0] * 9], np.eye(2)[[0, 0, 1, 1]]])
def test_nothing_is_found_if_nothing_can_be(targets):
    assert suspects_of(said_of(targets.astype(np.uint8)), training_rows(targets.astype(np.uint8)), 10) == ()


def test_nothing_is_found_among_images_of_one_class():
    """Validation and test images from a column may be like this."""
    rows = training_rows(np.array([0] * 5 + [1] * 5, np.int32))
    assert suspects_of(np.full((5, 2), 0.5, np.float32), rows.chosen(np.arange(5)), 10) == ()


def test_small_classes_are_no_reason_to_warn():
    targets = np.array([0] * 20 + [1] * 20 + [2] * 2, np.int32)
    said = said_of(np.eye(3, dtype=np.uint8)[targets])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert suspects_of(said / said.sum(axis=1, keepdims=True), training_rows(targets), 10) == ()
