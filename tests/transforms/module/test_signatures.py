"""The choice of the signature and the outputs of a module."""

import numpy as np
import pytest

from beamlabel.transforms.inference.artifact import ModuleError

tf = pytest.importorskip("tensorflow")

from support.modules import IMAGES, answers, inspect  # noqa: E402
from support.tf_modules import CLASSES, Holder, images_spec, save_functions  # noqa: E402

BYTES = tf.TensorSpec([None], tf.string, "image_bytes")


def test_an_answer_is_the_signatures(holder, tmp_path):
    def of_bytes(image_bytes):
        images = tf.map_fn(
            lambda one: tf.image.resize(tf.io.decode_png(one, 3), (8, 8)),
            image_bytes,
            fn_output_signature=tf.float32,
        )
        return {"logits": holder.logits(tf.ensure_shape(images, [None, 8, 8, 3]))}

    def of_images(images):
        return {"logits": holder.logits(images)}

    specs = {"serving_default": BYTES}
    signature = save_functions(
        tmp_path / "signature", holder, specs, serving_default=of_bytes, predict_images=of_images
    )
    assert inspect(signature).logits.name == "predict_images:logits"
    call = save_functions(tmp_path / "call", holder, specs, serving_default=of_bytes, call=of_images)
    assert inspect(call).logits.name == "__call__:logits"
    only = save_functions(tmp_path / "only", holder, specs, serving_default=of_bytes)
    with pytest.raises(
        ModuleError, match=r"none .* takes a batch of images: .* takes image_bytes string\[\?\]"
    ):
        inspect(only)
    logits, _, _ = answers(call, tmp_path)
    np.testing.assert_allclose(logits, holder.logits(IMAGES), atol=1e-5)


def test_a_function_that_is_no_signature_is_looked_at_last(holder, tmp_path):
    holder.count = tf.function(lambda text: tf.strings.length(text), input_signature=[BYTES])
    holder.describe = tf.function(
        lambda images: {"logits": holder.logits(images)}, input_signature=[images_spec()]
    )
    tf.saved_model.save(holder, str(tmp_path / "m"))
    assert inspect(tmp_path / "m").logits.name == "describe:logits"


def test_a_signature_that_fails_does_not_end_the_search(holder, tmp_path):
    def broken(images):
        with tf.control_dependencies([tf.debugging.Assert(tf.reduce_all(images > 5), ["never"])]):
            return {"logits": tf.identity(holder.logits(images))}

    path = save_functions(
        tmp_path / "m",
        holder,
        serving_default=broken,
        images=lambda images: {"logits": holder.logits(images)},
    )
    assert inspect(path).logits.name == "images:logits"
    alone = save_functions(tmp_path / "alone", holder, serving_default=broken)
    with pytest.raises(ModuleError, match="it fails on a batch of 8x8 images"):
        inspect(alone)


def test_signatures_of_one_rank_are_asked_for(holder, tmp_path):
    path = save_functions(
        tmp_path / "m",
        holder,
        one=lambda images: {"logits": holder.logits(images)},
        two=lambda images: {"logits": -holder.logits(images)},
        text=lambda images: {"names": tf.as_string(holder.logits(images))},
    )
    with pytest.raises(ModuleError, match="one and two all take images") as caught:
        inspect(path)
    assert "--logits_output" in str(caught.value) and f"two: logits [?, {CLASSES}]" in str(caught.value)
    assert inspect(path, logits_output="two").logits.name == "two:logits"
    with pytest.raises(ModuleError, match="--logits_output text: its dtype is string"):
        inspect(path, logits_output="text")


def saved_traces(path, *specs, values=(False,)):
    class Traced(tf.Module):
        def __init__(self):
            super().__init__()
            self.holder = Holder()

        @tf.function
        def __call__(self, images, training):
            logits = self.holder.logits(images)
            return {"logits": logits + 1000 if training else logits}

    module = Traced()
    for spec in specs:
        for value in values:
            module.__call__.get_concrete_function(images_spec(*spec), value)
    tf.saved_model.save(module, str(path))
    return module


def test_the_trace_for_any_batch_is_taken(tmp_path):
    module = saved_traces(tmp_path / "m", (2, 8, 8, 3), (None, 8, 8, 3), values=(True, False))
    found = inspect(tmp_path / "m")
    assert (found.logits.name, found.batch) == ("__call__:logits", None)
    assert list(found.signatures) == ["__call__", "__call__#2"]
    np.testing.assert_allclose(found.function(IMAGES)[0], module(IMAGES, False)["logits"], atol=1e-5)


def test_traces_for_two_sizes_are_asked_for(tmp_path):
    saved_traces(tmp_path / "m", (None, 8, 8, 3), (None, 16, 12, 3))
    with pytest.raises(ModuleError, match=r"8x8 and 16x12 .* use --image_size"):
        inspect(tmp_path / "m")
    assert inspect(tmp_path / "m", image_size=(16, 12)).width == 12


def test_strings_and_whole_numbers_are_no_candidates(holder, tmp_path):
    """As in canned estimators; of logits and values derived from them, the derived ones are taken."""

    def estimator(images):
        logits = holder.logits(images)
        best = tf.argmax(logits, 1)
        return {
            "logits": logits,
            "probabilities": tf.nn.softmax(logits),
            "predictions": best[:, None],
            "classes": tf.as_string(best)[:, None],
            "all_classes": tf.as_string(tf.zeros_like(logits)),
        }

    def binary(images):
        logits = holder.logits(images)[:, :1]
        p = tf.sigmoid(logits)
        return {"logits": logits, "logistic": p, "probabilities": tf.concat([1 - p, p], 1)}

    logits, _, spec = answers(save_functions(tmp_path / "e", holder, serving_default=estimator), tmp_path)
    assert (spec.score_kind, spec.scores, spec.num_classes) == ("probabilities", "none", CLASSES)
    np.testing.assert_allclose(logits, tf.nn.softmax(holder.logits(IMAGES)), atol=1e-5)
    found = inspect(save_functions(tmp_path / "b", holder, serving_default=binary))
    assert (found.logits.key, found.num_classes) == ("probabilities", 2)


def test_two_heads_are_asked_for(holder, tmp_path):
    def heads(images):
        logits = holder.logits(images)
        return {"colour_scores": tf.sigmoid(logits), "kind_scores": tf.sigmoid(logits[:, ::-1])}

    path = save_functions(tmp_path / "m", holder, serving_default=heads)
    with pytest.raises(
        ModuleError, match=r"which of .*colour_scores, .*kind_scores are its logits; name them"
    ):
        inspect(path)
    assert inspect(path, logits_output="kind_scores", features_output="none").num_classes == CLASSES


def test_a_detectors_scores_are_no_classes(holder, tmp_path):
    def detect(images):
        scores = tf.sigmoid(holder.logits(images))
        return {"detection_scores": scores, "detection_boxes": tf.zeros([tf.shape(images)[0], CLASSES, 4])}

    with pytest.raises(ModuleError, match="cannot tell its logits"):
        inspect(save_functions(tmp_path / "m", holder, serving_default=detect))
