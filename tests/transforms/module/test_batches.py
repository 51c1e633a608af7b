"""Batches of a fixed size, and images with the channels first."""

import numpy as np
import pytest

from beamlabel.transforms.inference.artifact import ModuleError

tf = pytest.importorskip("tensorflow")

from support.modules import IMAGES, answers, inspect  # noqa: E402
from support.tf_modules import CLASSES, images_spec, save_functions  # noqa: E402


@pytest.mark.parametrize("engine", ["litert", "tensorflow", "openvino"])
def test_engines_cut_and_pad_batches_and_transpose(holder, tmp_path, engine):
    """Seven images for a module with batches of three, with the channels first, or both."""
    if engine == "openvino":
        pytest.importorskip("openvino")
    flat = tf.constant(tf.random.stateless_normal([8 * 8 * 3, CLASSES], seed=[1, 1]))

    def serve(images):
        images = images if images.shape[-1] == 3 else tf.transpose(images, [0, 2, 3, 1])
        return {"logits": tf.reshape(images, [images.shape[0] or -1, 8 * 8 * 3]) @ flat}

    expected = IMAGES.reshape(len(IMAGES), -1) @ flat.numpy()
    for name, shape in {"three": (3, 8, 8, 3), "nchw": (None, 3, 8, 8), "both": (3, 3, 8, 8)}.items():
        path = save_functions(
            tmp_path / name, holder, {"serving_default": images_spec(*shape)}, serving_default=serve
        )
        logits, _, spec = answers(path, tmp_path, engine=engine)
        assert (spec.engine, spec.batch, spec.channels_first) == (engine, shape[0], shape[1] == 3)
        assert len(spec.notes()) == (shape[0] == 3) + (shape[1] == 3)
        np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-3)
        module = inspect(path)
        np.testing.assert_allclose(module.function(IMAGES)[0], expected, rtol=0, atol=1e-3)


def test_a_batch_of_one_that_loses_its_batch(holder, tmp_path):
    path = save_functions(
        tmp_path / "m",
        holder,
        {"serving_default": images_spec(1, 8, 8, 3)},
        serving_default=lambda images: {"logits": tf.squeeze(holder.logits(images))},
    )
    logits, _, spec = answers(path, tmp_path)
    assert (spec.batch, spec.num_classes) == (1, CLASSES)
    np.testing.assert_allclose(logits, holder.logits(IMAGES), atol=1e-5)


def test_statistics_of_a_batch_of_one_size_are_found(holder, tmp_path):
    path = save_functions(
        tmp_path / "m",
        holder,
        {"serving_default": images_spec(4, 8, 8, 3)},
        serving_default=lambda images: {"logits": holder.logits(images - tf.reduce_mean(images, 0))},
    )
    with pytest.raises(ModuleError, match="rows depend on the other images"):
        answers(path, tmp_path)


def test_channels_first_of_any_size(holder, tmp_path):
    path = save_functions(
        tmp_path / "m",
        holder,
        {"serving_default": images_spec(None, 3, None, None)},
        serving_default=lambda images: {"logits": holder.logits(tf.transpose(images, [0, 2, 3, 1]))},
    )
    with pytest.raises(ModuleError, match=r"any size, \[\?, 3, \?, \?\]; use --image_size"):
        inspect(path)
    module = inspect(path, image_size=(8, 8))
    assert (module.height, module.width, module.channels_first) == (8, 8, True)
    np.testing.assert_allclose(module.function(IMAGES)[0], holder.logits(IMAGES), atol=1e-5)


@pytest.mark.parametrize(
    "spec",
    [
        images_spec(None, 8, 8, 1),
        images_spec(None, 8, 8, 4),
        images_spec(None, 192),
        images_spec(None, 2, 8, 8, 3),
        images_spec(None, 8, 8, 3, dtype=tf.string),
    ],
    ids=lambda spec: f"{spec.dtype.name}{spec.shape}",
)
def test_arrays_other_than_batches_of_images_are_refused(holder, tmp_path, spec):
    def serve(images):
        rows = tf.strings.length(images) if images.dtype == tf.string else images
        return {"logits": tf.reduce_mean(tf.cast(rows, tf.float32), list(range(1, len(spec.shape))))[:, None]}

    path = save_functions(tmp_path / "m", holder, {"serving_default": spec}, serving_default=serve)
    with pytest.raises(ModuleError, match=r"takes images .*; expected one input \[\?, height, width, 3\]"):
        inspect(path)
