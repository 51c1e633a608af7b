"""The temperature of scores: found if there is one, and cautious if a few images do not contradict certainty."""

import numpy as np
import pytest

from beamlabel.pipeline.train.findings.temperature import loss_of, probabilities, temperature_of


def drawn(count, classes, sharpness, seed=0):
    """Logits, and truth drawn by their softmax at another sharpness."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(count, classes)).astype(np.float32) * 3
    powers = np.exp(logits / sharpness)
    sums = np.cumsum(powers / powers.sum(axis=1, keepdims=True), axis=1)
    return logits, (sums < rng.random((count, 1))).sum(axis=1).clip(0, classes - 1).astype(np.int32)


@pytest.mark.parametrize("sharpness", [0.5, 1.0, 3.0])
def test_it_finds_the_parameters_of_the_drawn_truth(sharpness):
    found, _ = temperature_of(*drawn(20_000, 5, sharpness))
    assert found == pytest.approx(sharpness, rel=0.05)


@pytest.mark.parametrize("count", [2, 12, 200])
@pytest.mark.parametrize("classes", [2, 10])
def test_a_few_images_that_are_all_right_make_nobody_certain(count, classes):
    targets = (np.arange(count) % classes).astype(np.int32)
    logits = np.where(np.arange(classes) == targets[:, None], 5, 0).astype(np.float32)
    temperature, _ = temperature_of(logits, targets)
    sure = probabilities(logits / np.float32(temperature), False).max()
    assert sure == pytest.approx((count + 1) / (count + 2), abs=0.01)


def test_an_image_with_several_classes_is_not_certain():
    targets = (np.random.default_rng(0).random((12, 3)) < 0.4).astype(np.uint8)
    logits = np.where(targets, 4, -4).astype(np.float32)
    temperature, _ = temperature_of(logits, targets)
    assert probabilities(logits / np.float32(temperature), True).max() == pytest.approx(13 / 14, abs=0.01)


def test_the_loss_is_cross_entropy():
    logits, targets = drawn(50, 4, 1.0)
    said = probabilities(logits, False)[np.arange(50), targets]
    assert loss_of(logits, targets) == pytest.approx(-np.log(said).mean(), rel=1e-5)
