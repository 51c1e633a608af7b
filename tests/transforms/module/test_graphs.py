"""The relevant part of a module's graph: state and random numbers count, but only for used outputs."""

import numpy as np
import pytest

from beamlabel.transforms.inference.artifact import ModuleError

tf = pytest.importorskip("tensorflow")

from support.modules import IMAGES, answers  # noqa: E402
from support.tf_modules import CLASSES, save_functions  # noqa: E402


def test_what_serves_other_outputs_does_not_matter(holder, tmp_path):
    """A table, a counter and a generator, without control flow and within a loop."""
    holder.table = tf.lookup.StaticHashTable(
        tf.lookup.KeyValueTensorInitializer(tf.range(CLASSES, dtype=tf.int64), tf.constant(list("abcde"))),
        "?",
    )
    holder.calls = tf.Variable(0, dtype=tf.int64)
    holder.generator = tf.random.Generator.from_seed(1)

    def serve(images):
        logits = holder.logits(images)
        for _ in tf.range(3):
            logits += 1.0
        return {
            "logits": logits,
            "label": holder.table.lookup(tf.argmax(logits, 1)),
            "calls": holder.calls.assign_add(1),
            "noise": holder.generator.normal([tf.shape(images)[0]]),
        }

    path = save_functions(tmp_path / "m", holder, serving_default=serve)
    logits, _, spec = answers(path, tmp_path)
    np.testing.assert_allclose(logits, holder.logits(IMAGES) + 3, atol=1e-5)
    assert spec.fallback is None


def test_outputs_made_of_a_table_are_refused(holder, tmp_path):
    holder.table = tf.lookup.StaticHashTable(
        tf.lookup.KeyValueTensorInitializer(
            tf.range(CLASSES, dtype=tf.int64), tf.range(CLASSES, dtype=tf.float32)
        ),
        0,
    )

    def serve(images):
        logits = holder.logits(images)
        return {"logits": logits + holder.table.lookup(tf.argmax(logits, 1))[:, None]}

    path = save_functions(tmp_path / "m", holder, serving_default=serve)
    with pytest.raises(ModuleError, match="depend on a lookup table"):
        answers(path, tmp_path)


def test_a_state_that_the_graph_changes_is_refused(holder, tmp_path):
    """The answers may happen to be equal: a shift of all columns does not change a softmax."""
    holder.calls = tf.Variable(0.0)

    def serve(images):
        return {"probs": tf.nn.softmax(holder.logits(images) + holder.calls.assign_add(1.0))}

    path = save_functions(tmp_path / "m", holder, serving_default=serve)
    with pytest.raises(ModuleError, match=r"state that each call changes.*\.keras"):
        answers(path, tmp_path)


def test_random_numbers_are_refused_even_if_seldom_used(holder, tmp_path):
    def serve(images):
        seldom = tf.cast(tf.random.uniform([]) > 1 - 1e-6, tf.float32)
        return {"logits": holder.logits(images) * (1 - seldom)}

    path = save_functions(tmp_path / "m", holder, serving_default=serve)
    with pytest.raises(ModuleError, match=r"depend on random numbers \(RandomUniform\)"):
        answers(path, tmp_path)


def test_dropout_in_a_branch_that_never_runs_does_not_matter(tmp_path):
    """As in Keras models saved by TensorFlow 1: a placeholder switches training on; the default is off."""
    v1 = tf.compat.v1
    numbers = np.linspace(-1, 1, 3 * CLASSES).reshape(3, CLASSES).astype(np.float32)
    v1.disable_control_flow_v2()
    with v1.Graph().as_default(), v1.Session() as session:
        images = v1.placeholder(tf.float32, [None, 8, 8, 3])
        learns = v1.placeholder_with_default(False, [])
        pooled = tf.reduce_mean(images, [1, 2])
        pooled = v1.cond(learns, lambda: tf.nn.dropout(pooled, 0.5, seed=1), lambda: tf.identity(pooled))
        calls = v1.get_variable("calls", initializer=0.0, use_resource=True)
        session.run(v1.global_variables_initializer())
        with tf.control_dependencies([calls.assign_add(1.0)]):
            logits = pooled @ numbers
        v1.saved_model.simple_save(session, str(tmp_path / "m"), {"images": images}, {"logits": logits})
    v1.enable_control_flow_v2()
    logits, _, spec = answers(tmp_path / "m", tmp_path)
    np.testing.assert_allclose(logits, IMAGES.mean(axis=(1, 2)) @ numbers, atol=1e-5)
    assert spec.scores == "softmax"


@pytest.mark.parametrize("cause", ["dropout", "flips", "batch"])
def test_unsteady_modules_are_refused_by_their_cause(holder, tmp_path, cause):
    def serve(images):
        if cause == "flips":
            images = tf.image.random_flip_left_right(images) * tf.linspace(0.0, 1.0, 8)[:, None]
        pooled = tf.reduce_mean(images, [1, 2])
        if cause == "dropout":
            pooled = tf.nn.dropout(pooled, 0.5, seed=1)
        if cause == "batch":
            mean, variance = tf.nn.moments(pooled, [0])
            pooled = (pooled - mean) / tf.sqrt(variance + 1e-3)
        return {"logits": pooled @ holder.weights}

    path = save_functions(tmp_path / "m", holder, serving_default=serve)
    expected = (
        "rows depend on the other images" if cause == "batch" else r"call to call: .* random numbers \("
    )
    with pytest.raises(ModuleError, match=expected):
        answers(path, tmp_path)


def test_a_graph_that_no_file_can_hold_is_refused(holder, tmp_path, monkeypatch):
    monkeypatch.setattr("beamlabel.transforms.module.freeze.MAX_GRAPH_BYTES", 50)
    path = save_functions(
        tmp_path / "m", holder, serving_default=lambda images: {"logits": holder.logits(images)}
    )
    with pytest.raises(ModuleError, match="GB of weights, but a graph can only hold 2 GB"):
        answers(path, tmp_path)
