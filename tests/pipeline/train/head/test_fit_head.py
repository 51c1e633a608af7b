"""The head: as good as scikit-learn's, deterministic, and with correct statements about itself."""

import dataclasses

import numpy as np
import pytest

from support.training_rows import clouds, training_rows

pytest.importorskip("tensorflow")

from beamlabel.pipeline.train.findings.evaluate_head import findings_of, right
from beamlabel.pipeline.train.findings.suspects import suspects_of
from beamlabel.pipeline.train.head.fit_head import fit_head, probabilities_of
from beamlabel.pipeline.train.rows.options import HeadOptions
from beamlabel.pipeline.train.rows.split import TEST, TRAIN, VALIDATION

DIMENSION, CLASSES = 96, 6


@pytest.fixture(scope="module")
def task():
    """Overlapping clouds, one constant feature, and one with large numbers."""
    features, targets = clouds(6000, DIMENSION, CLASSES, apart=2.4, seed=3)
    features[:, 5] = 7.25
    features[:, 6] = features[:, 6] * 1e4 + 3e5
    return features, training_rows(targets)


@pytest.fixture(scope="module")
def fitted(task):
    return fit_head(task[0], task[1], HeadOptions())


def accuracy(features, rows, head, split=TEST):
    places = np.flatnonzero(rows.split == split)
    return right(probabilities_of(features, head, places=places), rows.targets[places]).mean()


def test_it_is_as_good_as_scikit_learns_best(task, fitted):
    """Both train on the same rows and choose the strength of L2 on the same validation images."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    features, rows = task
    train, validation, test = (rows.split == split for split in (TRAIN, VALIDATION, TEST))
    scaler = StandardScaler().fit(features[train])
    best = 0.0, 0.0
    for strength in 10.0 ** np.arange(-4, 1):
        peer = LogisticRegression(C=strength, max_iter=500)
        peer.fit(scaler.transform(features[train]), rows.targets[train])
        scores = (
            peer.score(scaler.transform(features[part]), rows.targets[part]) for part in (validation, test)
        )
        best = max(best, tuple(scores))
    assert 0.5 < best[1] < 0.9, "neither chance nor easy"
    assert accuracy(features, rows, fitted.validated) >= best[1] - 0.005
    assert accuracy(features, rows, fitted.head) >= best[1] - 0.005


def test_the_same_each_time_to_the_last_bit(task, fitted):
    again = fit_head(task[0], task[1], HeadOptions())
    for name in ("kernel", "bias"):
        assert getattr(again.head, name).tobytes() == getattr(fitted.head, name).tobytes()
    assert again.history == fitted.history
    assert again.out_of_sample.tobytes() == fitted.out_of_sample.tobytes()


def test_the_process_draws_as_if_nothing_had_been_trained(task):
    import random

    import tensorflow as tf

    random.seed(1)
    np.random.seed(1)
    expected = random.random(), np.random.random()
    random.seed(1)
    np.random.seed(1)
    fit_head(task[0], task[1], HeadOptions(epochs=1))
    assert (random.random(), np.random.random()) == expected
    # TensorFlow refuses to draw without a seed while its operations are deterministic.
    with tf.Graph().as_default():
        tf.random.uniform([])


def test_the_temperature_makes_scores_as_sure_as_they_are_right(task, fitted):
    features, rows = task
    test = rows.split == TEST
    places = np.flatnonzero(test)
    found = findings_of(
        probabilities_of(features, fitted.head),
        rows,
        temperature=fitted.temperature,
        uncalibrated=probabilities_of(features, fitted.head, fitted.temperature, places=places),
    )
    assert found.calibration is not None and found.calibration.temperature == fitted.temperature
    assert found.calibration.error < 0.05
    assert sum(one.images for one in found.calibration.bins) == test.sum()
    one = found.accuracy["test"]
    assert one.images == test.sum() and one.low < one.value < one.high
    # Wilson's interval for a share of n images: Brown, Cai and DasGupta, Interval Estimation, 2001.
    z, n = 1.959964, one.images
    middle = (one.value + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(one.value * (1 - one.value) / n + z * z / (4 * n * n))
    assert (one.low, one.high) == pytest.approx((middle - half, middle + half), abs=1e-6)


def test_more_truth_is_better_and_parts_are_nested(fitted, task):
    images = [count for count, _ in fitted.curve]
    scores = [accuracy(*task, head) for _, head in fitted.curve]
    assert images == sorted(images) and images[-1] == (task[1].split == TRAIN).sum()
    assert scores[0] < scores[-1]


def test_wrong_truth_is_found(task):
    """A tenth of the truth of well-separated clouds is wrong: nearly all errors are found, and few others."""
    features, targets = clouds(1500, 32, 4, apart=8, seed=5)
    rng = np.random.default_rng(1)
    wrong = rng.choice(len(targets), 150, replace=False)
    flipped = targets.copy()
    flipped[wrong] = (targets[wrong] + rng.integers(1, 4, len(wrong))) % 4
    rows = training_rows(flipped)
    fitted = fit_head(features, rows, HeadOptions(epochs=40))
    suspects = suspects_of(fitted.out_of_sample, rows, 1000)
    found = {int(one.uri.removesuffix(".jpg")) for one in suspects}
    assert len(found & set(wrong.tolist())) >= 0.9 * len(wrong)
    assert len(found - set(wrong.tolist())) <= 0.1 * len(found)
    assert [one.quality for one in suspects] == sorted(one.quality for one in suspects)
    first = suspects[0]
    place = int(first.uri.removesuffix(".jpg"))
    assert first.truth == rows.classes[flipped[place]] and first.predicted == rows.classes[targets[place]]
    assert len(suspects_of(fitted.out_of_sample, rows, 7)) == 7


@pytest.mark.long
def test_rare_classes_weigh_more_if_asked():
    features, targets = clouds(3000, 24, 3, apart=1.6, seed=9)
    kept = (targets != 2) | (np.arange(len(targets)) % 20 == 0)
    features, targets = features[kept], targets[kept]
    rows = training_rows(targets)
    rare = np.flatnonzero((rows.split == TEST) & (targets == 2))
    recalls = []
    for weights in ("none", "balanced"):
        head = fit_head(features, rows, HeadOptions(class_weights=weights, epochs=30)).head
        said = probabilities_of(features, head, places=rare)
        recalls.append(right(said, targets[rare]).mean())
    assert recalls[1] > recalls[0] + 0.2


def test_several_classes_an_image():
    features, targets = clouds(2000, 32, 4, apart=7, seed=2)
    sets = np.zeros((len(targets), 4), np.uint8)
    sets[np.arange(len(targets)), targets] = 1
    # The other class of each pair is present if a feature indicates it.
    sets[:, 3] |= (features[:, 0] > np.median(features[:, 0])).astype(np.uint8)
    rows = training_rows(sets)
    fitted = fit_head(features, rows, HeadOptions(epochs=40))
    assert fitted.head.scores == "sigmoid"
    said = probabilities_of(features, fitted.head)
    places = rows.split == TEST
    assert right(said[places], sets[places]).mean() > 0.8
    found = findings_of(said, rows, suspects=suspects_of(fitted.out_of_sample, rows, 5))
    assert found.multi_label and found.calibration is None and found.macro_f1 > 0.8


def test_features_of_length_1_make_a_head_that_normalizes(task):
    features, rows = task
    some = features[:400] / np.linalg.norm(features[:400], axis=1, keepdims=True)
    small = training_rows(rows.targets[:400])
    small = dataclasses.replace(small, base=dataclasses.replace(small.base, normalized=True))
    assert fit_head(some, small, HeadOptions(epochs=3)).head.normalizes
