"""A batch whose inference fails loses only the faulty image."""

import numpy as np
import pytest
from PIL import Image

from support.jobs import label, photos, uri_list


@pytest.fixture(scope="module")
def strict_module(tmp_path_factory):
    """A SavedModel that refuses batches with a black image and answers NaN for a white one."""
    import tensorflow as tf

    class Strict(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None, 16, 16, 3], tf.float32, name="images")])
        def __call__(self, images):
            means = tf.reduce_mean(images, [1, 2])
            with tf.control_dependencies([tf.debugging.assert_greater(means, 0.0, message="a black image")]):
                logits = tf.identity(means)
            return {"logits": tf.where(logits > 0.999, np.nan, logits)}

    directory = tmp_path_factory.mktemp("strict")
    model = Strict()
    tf.saved_model.save(model, str(directory), signatures={"serving_default": model.__call__})
    return directory


def test_only_the_image_at_fault_fails(tmp_path, strict_module):
    paths = photos(tmp_path / "photos", 12)
    Image.new("RGB", (20, 20), "black").save(paths[3])
    Image.new("RGB", (20, 20), "white").save(paths[7])
    uris = uri_list(tmp_path / "list.txt", paths)
    # LiteRT has no assertions, so the black image would pass there.
    options = ("--max_error_rate", 1, "--batch_size", 12, "--engine", "tensorflow", "--scores", "softmax")
    job = label(tmp_path / "out", "--input", uris, *options, module=strict_module)
    assert [row["uri"] for row in job.rows] == [str(path) for i, path in enumerate(paths) if i not in (3, 7)]
    black, white = job.failures
    assert (black["uri"], black["stage"], black["reason"]) == (str(paths[3]), "inference", "inference_error")
    assert "black image" in black["detail"]
    assert (white["uri"], white["reason"]) == (str(paths[7]), "inference_error")
    assert "NaN" in white["detail"]


def test_scores_are_found_to_be_probabilities_by_a_probe(tmp_path):
    import tensorflow as tf

    class Probabilities(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None, 16, 16, 3], tf.float32, name="images")])
        def __call__(self, images):
            return {"logits": tf.nn.softmax(tf.reduce_mean(images, [1, 2]) * 9)}

    model = Probabilities()
    tf.saved_model.save(model, str(tmp_path / "m"), signatures={"serving_default": model.__call__})
    uris = uri_list(tmp_path / "list.txt", photos(tmp_path / "photos", 4))
    auto = label(tmp_path / "auto", "--input", uris, module=tmp_path / "m")
    none = label(tmp_path / "none", "--input", uris, "--scores", "none", module=tmp_path / "m")
    softmax = label(tmp_path / "softmax", "--input", uris, "--scores", "softmax", module=tmp_path / "m")
    scores = [[row["scores"] for row in job.rows] for job in (auto, none, softmax)]
    assert scores[0] == scores[1] != scores[2]
    np.testing.assert_allclose(np.sum(scores[0], axis=1), 1, rtol=1e-5)
    assert (
        auto.rows[0]["preprocessing_id"]
        == none.rows[0]["preprocessing_id"]
        != softmax.rows[0]["preprocessing_id"]
    )
