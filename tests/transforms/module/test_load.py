"""Modules of every format: inputs, outputs and names."""

import tarfile

import numpy as np
import pytest

from beamlabel.transforms.hub.resolve import ModuleError, resolve_module
from beamlabel.transforms.module.load import inspect_module
from support.modules import inspect
from support.paths import DATA, SHARED_MODULES

GENUINE = SHARED_MODULES
TINY = DATA / "tiny_classification_1.tar.gz"
TINY_FEATURES = DATA / "tiny_feature_vector_1.tar.gz"


@pytest.fixture(scope="module")
def tiny(cache_dir):
    return resolve_module(str(TINY), cache_dir)


# --- TF1 Hub


@pytest.mark.parametrize(
    "name",
    [
        "tiny_classification_1",
        "tiny_feature_vector_1",
        "mobilenet_v2_075_160_classification_1",
        "mobilenet_v2_100_224_classification_1",
    ],
)
def test_genuine_modules_give_the_numbers_of_tensorflow_1(cache_dir, name):
    directory = DATA if name.startswith("tiny") else GENUINE
    if not (directory / f"{name}.tar.gz").is_file():
        pytest.skip(f"{name} is not beside the repository")
    module = inspect_module(resolve_module(str(directory / f"{name}.tar.gz"), cache_dir))
    expected = np.load(directory / f"{name}.expected.npz")
    assert module.kind == "tf1_hub"
    assert (module.height, module.width) == expected["images"].shape[1:3]
    assert module.input_range == (0, 1)
    logits, features = module.function(expected["images"])
    np.testing.assert_allclose(features, expected["features"], rtol=0, atol=1e-4)
    assert module.embedding_dim == expected["features"].shape[1]
    if "logits" in expected:
        np.testing.assert_allclose(logits, expected["logits"], rtol=0, atol=1e-4)
        assert module.num_classes == expected["logits"].shape[1]
    else:
        assert logits is module.num_classes is module.logits is None


def test_a_module_without_the_hubs_marker_is_still_one(tmp_path):
    with tarfile.open(TINY) as tar:
        tar.extractall(tmp_path, filter="data")
    (tmp_path / "tfhub_module.pb").unlink()
    module = inspect(tmp_path)
    assert (module.kind, module.num_classes, module.embedding_dim) == ("tf1_hub", 11, 64)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("image_classification:MobilenetV2/Predictions", "image_classification:MobilenetV2/Predictions"),
        ("image_classification", "image_classification:default"),
        ("default", "default:default"),
        ("MobilenetV2/Logits", "image_classification:MobilenetV2/Logits"),
    ],
)
def test_outputs_can_be_named(tiny, text, found):
    module = inspect_module(tiny, logits_output=text)
    assert module.logits.name == found
    assert module.features.name == "image_feature_vector:default"
    assert (module.num_classes, module.embedding_dim) == (11, 64)


@pytest.mark.parametrize("option", ["logits_output", "features_output"])
def test_an_output_can_be_left_out(tiny, option):
    module = inspect_module(tiny, **{option: "none"})
    assert (module.logits is None, module.features is None) == (
        option == "logits_output",
        option == "features_output",
    )


@pytest.mark.parametrize("text", ["absent", "image_classification:absent", "absent:default"])
def test_a_missing_name_gets_the_list_of_names(tiny, text):
    with pytest.raises(ModuleError, match=f"--features_output {text}: no such output") as caught:
        inspect_module(tiny, features_output=text)
    assert "image_feature_vector: default [?, 64], " in str(caught.value)
    assert "MobilenetV2/expanded_conv_3 [?, " in str(caught.value)


def test_a_feature_map_is_refused_with_a_hint(tiny):
    with pytest.raises(ModuleError, match=r"feature map \[\?, 16, 16, 32\], not a vector; name a pooled"):
        inspect_module(tiny, features_output="MobilenetV2/Conv")


def test_nothing_left_is_refused(tiny):
    with pytest.raises(ModuleError, match="neither logits nor features are left"):
        inspect_module(tiny, logits_output="none", features_output="none")


def test_a_fixed_size_is_the_only_one(tiny):
    assert inspect_module(tiny, image_size=32).height == 32
    assert inspect_module(tiny, image_size=(32, 32)).height == 32
    with pytest.raises(ModuleError, match=r"only .*32x32 .*but --image_size is 32x48"):
        inspect_module(tiny, image_size=(32, 48))


def test_input_range_of_a_hub_module_may_be_given(tiny):
    assert inspect_module(tiny, input_range=(-1, 1)).input_range == (-1, 1)
    with pytest.raises(ModuleError, match="input_range"):
        inspect_module(tiny, input_range=(0, 2))


# --- TF2 SavedModels


def test_two_outputs_are_told_by_their_names(tmp_path):
    from support.tf_modules import CLASSES, FEATURES, save_two_outputs

    path = save_two_outputs(tmp_path / "m")
    with pytest.raises(ModuleError, match=r"any size, \[\?, \?, \?, 3\]; use --image_size"):
        inspect(path)
    module = inspect(path, image_size=(10, 12))
    assert (module.kind, module.height, module.width) == ("tf2_saved_model", 10, 12)
    assert module.logits.name == "serving_default:logits"
    assert module.features.name == "serving_default:feature_vector"
    logits, features = module.function(np.zeros([2, 10, 12, 3], np.float32))
    assert (logits.shape, features.shape) == ((2, CLASSES), (2, FEATURES))  # [2, 1, 1, FEATURES], squeezed


def test_names_that_tell_nothing_are_asked_for(tmp_path):
    from support.tf_modules import save_two_outputs

    path = save_two_outputs(tmp_path / "m", logits="a", features="b", size=8)
    with pytest.raises(
        ModuleError, match=r"--logits_output or --features_output .*a \[\?, 5\], b \[\?, 1, 1, 7\]"
    ):
        inspect(path)
    named = inspect(path, logits_output="a", features_output="serving_default:b")
    assert (named.num_classes, named.embedding_dim) == (5, 7)
    only = inspect(path, features_output="b")
    assert (only.num_classes, only.embedding_dim) == (None, 7)


def test_a_feature_map_is_no_candidate(tmp_path):
    from support.tf_modules import save_two_outputs

    path = save_two_outputs(tmp_path / "m", size=8, maps=True)
    assert inspect(path).features is None
    with pytest.raises(ModuleError, match="is a feature map"):
        inspect(path, features_output="feature_vector")


@pytest.mark.parametrize(
    ("width", "handle", "role"),
    [
        (9, "https://tfhub.dev/google/imagenet/net/classification/5", "logits"),
        (9, "https://tfhub.dev/google/imagenet/net/feature_vector/5", "features"),
        (1000, "https://tfhub.dev/google/imagenet/net/feature_vector/5", "features"),
        (9, "https://www.kaggle.com/models/google/net/tensorFlow2/224-feature-vector/2", "features"),
        (1000, "/models/mine", "logits"),
        (1001, "/models/mine/1", "logits"),
    ],
)
def test_a_single_output_is_told_by_handle_or_size(tmp_path, width, handle, role):
    from support.tf_modules import save_callable

    module = inspect(save_callable(tmp_path / "m", width), handle=handle)
    assert (module.num_classes, module.embedding_dim) == (
        (width, None) if role == "logits" else (None, width)
    )
    assert getattr(module, role).name == "__call__:output_0"
    results = module.function(np.ones([2, 16, 16, 3], np.float32))
    values = results[0] if role == "logits" else results[1]
    assert np.abs(values).max() < 500, "the trace for training adds 1000"


def test_a_single_output_that_nothing_tells_is_asked_for(tmp_path):
    from support.tf_modules import save_callable

    path = save_callable(tmp_path / "m", 9)
    with pytest.raises(ModuleError, match="cannot tell its logits from its features"):
        inspect(path, handle="/data/classification/mine")
    assert inspect(path, logits_output="output_0").num_classes == 9
    assert inspect(path, features_output="__call__").embedding_dim == 9


def test_a_saved_model_of_tensorflow_1(tmp_path):
    from support.tf_modules import save_constants

    module = inspect(save_constants(tmp_path / "m"))
    assert (module.kind, module.height, module.num_classes) == ("tf2_saved_model", 8, 3)


# --- Keras


def test_a_keras_export_needs_its_range(tmp_path):
    from support.tf_modules import CLASSES, keras_classifier

    keras_classifier().export(str(tmp_path / "m"), verbose=False)
    with pytest.raises(ModuleError, match=r"Keras model.*--input_range"):
        inspect(tmp_path / "m")
    module = inspect(tmp_path / "m", input_range=(0, 255))
    # The name `output_0` carries no information, but its values are probabilities.
    assert (module.kind, module.num_classes, module.embedding_dim) == ("keras_saved_model", CLASSES, None)
    assert (module.height, module.width, module.input_range) == (16, 20, (0, 255))
    hub = inspect(tmp_path / "m", handle="https://tfhub.dev/google/imagenet/net/classification/5")
    assert hub.input_range == (0, 1)


def test_a_keras_model_saved_by_tensorflow_is_one_too(tmp_path):
    import tensorflow as tf

    from support.tf_modules import keras_classifier

    tf.saved_model.save(keras_classifier(), str(tmp_path / "m"))
    assert inspect(tmp_path / "m", input_range=(0, 1)).kind == "keras_saved_model"
    with pytest.raises(ModuleError, match="--input_range"):
        inspect(tmp_path / "m")


def test_a_keras_file_whose_outputs_have_names_of_their_own(tmp_path):
    """In a dict, which Keras flattens in the order of the keys, not of the layers."""
    import tensorflow as tf

    from support.tf_modules import CLASSES, FEATURES

    images = tf.keras.Input((32, 32, 3))
    pooled = tf.keras.layers.Dense(FEATURES, name="first")(tf.keras.layers.GlobalAveragePooling2D()(images))
    logits = tf.keras.layers.Dense(CLASSES, name="second")(pooled)
    tf.keras.Model(images, {"scores": pooled, "answers": logits}).save(tmp_path / "m.keras")
    module = inspect(
        tmp_path / "m.keras", input_range=(0, 1), logits_output="answers", features_output="scores"
    )
    assert (module.num_classes, module.embedding_dim) == (CLASSES, FEATURES)


def test_a_keras_file(tmp_path):
    from support.tf_modules import CLASSES, FEATURES, keras_classifier

    model = keras_classifier()
    model.save(tmp_path / "m.keras")
    with pytest.raises(ModuleError, match="--input_range"):
        inspect(tmp_path / "m.keras")
    module = inspect(tmp_path / "m.keras", input_range=(-1, 1), features_output="pooled")
    assert (module.kind, module.num_classes, module.embedding_dim) == ("keras_file", CLASSES, FEATURES)
    images = np.random.default_rng(0).uniform(-1, 1, (3, 16, 20, 3)).astype(np.float32)
    logits, _ = module.function(images)
    np.testing.assert_allclose(logits, model(images, training=False), rtol=0, atol=1e-6)


def test_keras_logits_that_are_no_probabilities_are_asked_for(tmp_path):
    from support.tf_modules import keras_classifier

    keras_classifier(activation=None).export(str(tmp_path / "m"), verbose=False)
    with pytest.raises(ModuleError, match="cannot tell"):
        inspect(tmp_path / "m", input_range=(0, 1))


# --- paths without a module


def test_files_other_than_modules_are_named(tmp_path):
    import tensorflow as tf

    from support.tf_modules import save_callable

    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "saved_model.pb").write_bytes(b"\xff" * 50)
    (tmp_path / "text.keras").write_bytes(b"no zip file")

    class Text(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "text")])
        def __call__(self, text):
            return {"embedding": tf.strings.length(text)[:, None]}

    tf.saved_model.save(Text(), str(tmp_path / "text"))
    tf.saved_model.save(tf.Module(), str(tmp_path / "bare"))
    save_callable(tmp_path / "no_weights", 9)
    for file in (tmp_path / "no_weights" / "variables").iterdir():
        file.unlink()
    expected = {
        "damaged": "saved_model.pb is damaged",
        "text.keras": "Keras cannot load it",
        "text": r"takes text string\[\?\]; expected one input",
        "bare": "no signatures",
        "no_weights": "TensorFlow cannot load it",
    }
    for name, message in expected.items():
        with pytest.raises(ModuleError, match=message) as caught:
            inspect(tmp_path / name)
        assert f"module {tmp_path / name}: " in str(caught.value)


def test_a_graph_for_training_only_is_no_module(tmp_path):
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    saved_model = SavedModel()
    saved_model.meta_graphs.add().meta_info_def.tags.append("train")
    (tmp_path / "saved_model.pb").write_bytes(saved_model.SerializeToString())
    with pytest.raises(ModuleError, match=r"it has \{train\}; expected the tags"):
        inspect(tmp_path)
