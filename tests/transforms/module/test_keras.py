"""Keras files: those that need code, and the heads that follow from their layers."""

import numpy as np
import pytest

from beamlabel.transforms.hub.resolve import resolve_module
from beamlabel.transforms.inference.artifact import ModuleError
from beamlabel.transforms.module.compile import CompileOptions, compiled
from beamlabel.transforms.module.load import inspect_module

tf = pytest.importorskip("tensorflow")

from support.modules import IMAGES, answers, inspect  # noqa: E402
from support.tf_modules import CLASSES  # noqa: E402


def test_keras_files_that_need_code_get_the_way_out(tmp_path):
    layers = tf.keras.layers
    images = layers.Input((8, 8, 3))
    doubled = layers.Lambda(lambda one: one * 2)(images)
    model = tf.keras.Model(images, layers.Dense(3, activation="softmax")(layers.Flatten()(doubled)))
    model.save(tmp_path / "m.keras")
    model.save(tmp_path / "m.h5")
    model.save_weights(tmp_path / "m.weights.h5")
    (tmp_path / "checkpoint").mkdir()
    tf.train.Checkpoint(model=model).save(str(tmp_path / "checkpoint" / "ckpt"))
    for name in ("m.keras", "m.h5", "m.weights.h5", "checkpoint"):
        with pytest.raises(ModuleError, match=r"model\.export\(DIR\)"):
            inspect_module(resolve_module(str(tmp_path / name), tmp_path), input_range=(0, 1))
    model.export(str(tmp_path / "DIR"), verbose=False)
    assert inspect(tmp_path / "DIR", input_range=(0, 1)).num_classes == 3


def test_keras_heads_are_recognized_by_their_activation(tmp_path):
    from support.tf_modules import keras_classifier

    keras_classifier(activation="sigmoid").export(str(tmp_path / "m"), verbose=False)
    resolved = resolve_module(str(tmp_path / "m"), tmp_path)
    spec = compiled(resolved, CompileOptions(input_range=(0, 1)), tmp_path).spec
    assert (spec.score_kind, spec.scores, spec.num_classes) == ("independent", "none", CLASSES)


def test_augmentation_is_off_in_a_keras_file_and_on_in_its_export(tmp_path):
    layers = tf.keras.layers
    images = layers.Input((8, 8, 3))
    turned = layers.RandomRotation(0.2)(layers.RandomFlip()(images))
    model = tf.keras.Model(images, layers.Dense(3, activation="softmax")(layers.Flatten()(turned)))
    model.save(tmp_path / "m.keras")
    model.export(str(tmp_path / "m"), verbose=False)
    logits, _, _ = answers(tmp_path / "m.keras", tmp_path, input_range=(0, 1))
    np.testing.assert_allclose(logits, model(IMAGES, training=False), atol=1e-5)
    with pytest.raises(ModuleError, match=r"random numbers .*\.keras"):
        answers(tmp_path / "m", tmp_path, input_range=(0, 1))
