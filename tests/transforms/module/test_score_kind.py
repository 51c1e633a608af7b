"""The kind of scores of an output, for frozen heads of every sort."""

import numpy as np
import pytest

from beamlabel.transforms.inference.artifact import LOGITS
from beamlabel.transforms.inference.probe import extreme_batch, probe_batch
from beamlabel.transforms.module.freeze import freeze_function
from beamlabel.transforms.module.score_kind import KINDS, RanksError, coarsest_float, score_kind

tf = pytest.importorskip("tensorflow")

CLASSES = 6
PIXELS = np.concatenate([probe_batch(8, 8), extreme_batch(8, 8)])


@pytest.fixture(scope="module")
def weights():
    numbers = np.random.default_rng(3).normal(0, 4, (3, 1200)).astype(np.float32)
    return tf.Variable(numbers)


def as_bfloat16(function):
    return lambda z: tf.cast(function(tf.cast(z, tf.bfloat16)), tf.float32)


def by_groups(z):
    return tf.reshape(tf.nn.softmax(tf.reshape(z, [-1, 2, CLASSES // 2])), [-1, CLASSES])


def two_classes(z):
    p = tf.sigmoid(z[:, :1])
    return tf.concat([1 - p, p], 1)


def by_argsort(z):
    p = tf.nn.softmax(z)
    return tf.gather(p, tf.argsort(p, direction="DESCENDING"), batch_dims=1)


def of_superclasses(z):
    """Probabilities of some classes and of a superclass, by a matrix of 0 and 1."""
    return tf.nn.softmax(z) @ np.eye(CLASSES, CLASSES + 1, dtype=np.float32)


HEADS = {
    "probabilities": {
        "softmax": tf.nn.softmax,
        "softmax in bfloat16": as_bfloat16(tf.nn.softmax),
        "softmax in float16": lambda z: tf.cast(tf.nn.softmax(tf.cast(z, tf.float16)), tf.float32),
        "softmax at a temperature": lambda z: tf.nn.softmax(z * 50),
        "softmax, clipped": lambda z: tf.clip_by_value(tf.nn.softmax(z), 1e-7, 1 - 1e-7),
        "softmax by hand": lambda z: tf.exp(z) / tf.reduce_sum(tf.exp(z), -1, keepdims=True),
        "exp of log-softmax": lambda z: tf.exp(tf.nn.log_softmax(z)),
        "the mean of two softmaxes": lambda z: (tf.nn.softmax(z) + tf.nn.softmax(z * 2)) / 2,
        "a sigmoid and its rest": two_classes,
    },
    "independent": {
        "sigmoid": tf.sigmoid,
        "sigmoid in bfloat16": as_bfloat16(tf.sigmoid),
        "one minus sigmoid": lambda z: 1 - tf.sigmoid(z),
        "sigmoid by hand": lambda z: 1 / (1 + tf.exp(-z)),
        "sigmoid by tanh": lambda z: 0.5 * (tf.tanh(z / 2) + 1),
        "hard sigmoid": lambda z: tf.nn.relu6(z + 3) / 6,
        "clipped": lambda z: tf.clip_by_value(z, 0, 1),
        "products of sigmoids": lambda z: tf.sigmoid(z) * tf.sigmoid(z + 1),
        "the mean of two sigmoids": lambda z: (tf.sigmoid(z) + tf.sigmoid(2 * z)) * 0.5,
        "softmax over groups": by_groups,
        "some columns of a softmax": lambda z: tf.gather(tf.nn.softmax(z), [0, 3, 4], axis=1),
        "one sigmoid": lambda z: tf.sigmoid(z[:, :1]),
    },
    "logits": {
        "a matrix": lambda z: z,
        "a matrix, in [0, 1] by chance": lambda z: z * 0.001 + 0.4,
        "a bias beside": lambda z: z + tf.range(CLASSES, dtype=tf.float32),
        "soft-capped": lambda z: 30 * tf.tanh(z / 30),
        "scaled": lambda z: z / 0.07,
        "of hidden sigmoids": lambda z: (
            tf.sigmoid(z) @ np.linspace(-1, 1, 30, dtype=np.float32).reshape(CLASSES, 5)
        ),
        "a matrix in bfloat16": as_bfloat16(lambda z: z),
    },
    "log_probabilities": {
        "log-softmax": tf.nn.log_softmax,
        "log of softmax": lambda z: tf.math.log(tf.nn.softmax(z)),
    },
    "unclear": {
        "percent": lambda z: tf.nn.softmax(z) * 100,
        "relu": tf.nn.relu,
        "relu, in [0, 1] by chance": lambda z: tf.nn.relu(z) * 0.001,
        "tanh": tf.tanh,
        "softplus": lambda z: tf.math.softplus(z),
        "logarithms of sigmoids": lambda z: tf.math.log_sigmoid(z),
        "unit vectors": lambda z: tf.linalg.l2_normalize(z, 1),
        "unit vectors by hand": lambda z: z / tf.norm(z, axis=1, keepdims=True),
        "one logit": lambda z: z[:, :1],
        "one logit, in [0, 1] by chance": lambda z: z[:, :1] * 0.001 + 0.4,
        "one relu": lambda z: tf.nn.relu(z[:, :1]),
        "the largest probability": lambda z: tf.reduce_max(tf.nn.softmax(z), 1, keepdims=True),
    },
}
CASES = [(kind, name) for kind, heads in HEADS.items() for name in heads]


def decided(weights, head, classes=CLASSES, key="output_0"):
    def serve(pixels):
        mean = tf.reduce_mean(tf.cast(pixels, tf.float32) / 255, [1, 2])
        return [head((mean - 0.5) @ weights[:, :classes])]

    graph_def = freeze_function(serve, (None, 8, 8, 3), [LOGITS])
    (values,) = serve(PIXELS)
    return score_kind(np.asarray(tf.cast(values, tf.float32)), key, graph_def, LOGITS)


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_a_head(weights, kind, name):
    found = decided(weights, HEADS[kind][name])
    assert (found.kind, found.reason != "") == (kind, True)
    wanted = {"logits": "softmax", "log_probabilities": "softmax", "unclear": None}
    assert found.scores == wanted.get(kind, "none")


def test_all_kinds_are_met():
    assert set(HEADS) == set(KINDS)


@pytest.mark.parametrize("dtype", [tf.bfloat16, tf.float16])
def test_a_softmax_of_many_classes_in_few_bits(weights, dtype):
    found = decided(weights, lambda z: tf.cast(tf.nn.softmax(tf.cast(z / 4, dtype)), tf.float32), 1000)
    assert (found.kind, found.scores) == ("probabilities", "none")
    assert dtype.name in found.reason


@pytest.mark.parametrize("head", [lambda z: tf.math.top_k(tf.nn.softmax(z), 3).values, by_argsort])
def test_ranks_are_no_classes(weights, head):
    """Ranks fail even if the user states a kind of scores: class 0 would be the best of each image."""
    with pytest.raises(RanksError, match="output_0 are ranks"):
        decided(weights, head)


def test_superclasses_are_left_as_they_are(weights):
    found = decided(weights, of_superclasses)
    assert found.scores == "none"


def test_a_name_tells_where_the_graph_does_not(weights):
    """A ReLU can be the last layer before a softmax if its name says logits."""
    assert decided(weights, tf.nn.relu, key="logits").kind == "logits"
    assert decided(weights, lambda z: tf.nn.relu(z) * 0.001, key="logits").kind == "unclear"
    assert decided(weights, lambda z: tf.nn.softmax(z) * 100, key="logits").kind == "unclear"


def test_values_alone_decide_without_a_graph():
    random = np.random.default_rng(0)
    shares = random.dirichlet(np.ones(4), 12)
    inside = random.uniform(0, 1, (12, 4))
    for values, key, kind in [
        (shares, "output_0", "probabilities"),
        (np.log(shares), "output_0", "log_probabilities"),
        (inside, "scores", "independent"),
        (inside, "output_0", "unclear"),
        (inside, "logits", "unclear"),
        (inside[:, :1], "probability", "independent"),
        (inside[:, :1], "output_0", "unclear"),
        (inside * 20 - 10, "output_0", "logits"),
        (inside * 20, "output_0", "unclear"),
        (np.full((12, 4), np.nan), "scores", "unclear"),
    ]:
        assert score_kind(values, key, None, LOGITS).kind == kind, (key, kind)


def test_the_coarsest_float_is_found_in_functions_too():
    def serve(pixels):
        means = tf.reduce_mean(tf.cast(pixels, tf.float32), [1, 2])
        halves = tf.map_fn(lambda row: tf.cast(tf.cast(row, tf.float16) / 2, tf.float32), means)
        return [halves]

    assert coarsest_float(freeze_function(serve, (None, 8, 8, 3), [LOGITS])) == "float16"
