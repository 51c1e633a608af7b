"""Which signature is taken of those that a module has, and what of its graph."""

from pathlib import Path

import numpy as np
import pytest

from beamlabel.transforms.hub.resolve import ResolvedModule, resolve_module
from beamlabel.transforms.inference.artifact import ModuleError
from beamlabel.transforms.inference.engines import open_engine
from beamlabel.transforms.inference.probe import probe_batch
from beamlabel.transforms.module.compile import CompileOptions, compiled
from beamlabel.transforms.module.load import inspect_module

tf = pytest.importorskip("tensorflow")

from support.tf_modules import CLASSES, Holder, images_spec, save_functions  # noqa: E402

PIXELS = np.concatenate([probe_batch(8, 8), 255 - probe_batch(8, 8)[:3]])
IMAGES = (PIXELS / np.float32(255)).astype(np.float32)
BYTES = tf.TensorSpec([None], tf.string, "image_bytes")


@pytest.fixture
def holder():
    return Holder()


def inspect(path, **options):
    return inspect_module(ResolvedModule(str(path), Path(path), "0" * 64), **options)


def answers(path, folder, **options):
    """Logits and features of the artifact, from the engine that workers use; and its spec."""
    artifact = compiled(resolve_module(str(path), folder), CompileOptions(**options), folder / "cache")
    return (*open_engine(artifact.path, artifact.sha256)(PIXELS), artifact.spec)


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
    with pytest.raises(ModuleError, match="--logits_output text: it holds string"):
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
    with pytest.raises(ModuleError, match=r"8x8 and 16x12 .* give --image_size"):
        inspect(tmp_path / "m")
    assert inspect(tmp_path / "m", image_size=(16, 12)).width == 12


def test_strings_and_whole_numbers_are_no_candidates(holder, tmp_path):
    """As canned estimators give them; of logits and what is made of them, that is taken."""

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


# --- what serves other outputs


def test_what_serves_other_outputs_does_not_matter(holder, tmp_path):
    """A table, a counter and a generator; a way without control flow, and one within a loop."""
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
    with pytest.raises(ModuleError, match="made of a lookup table"):
        answers(path, tmp_path)


def test_a_state_that_the_graph_changes_is_refused(holder, tmp_path):
    """Also where the answers happen to be equal: a shift of all columns leaves a softmax as it is."""
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
    with pytest.raises(ModuleError, match=r"made of random numbers \(RandomUniform\)"):
        answers(path, tmp_path)


def test_dropout_in_a_branch_that_never_runs_does_not_matter(tmp_path):
    """As TensorFlow 1 saved Keras models: a placeholder says whether it learns, by default not."""
    v1 = tf.compat.v1
    numbers = np.linspace(-1, 1, 3 * CLASSES).reshape(3, CLASSES).astype(np.float32)
    v1.disable_control_flow_v2()
    with v1.Graph().as_default(), v1.Session() as session:
        images = v1.placeholder(tf.float32, [None, 8, 8, 3])
        learns = v1.placeholder_with_default(False, [])
        pooled = tf.reduce_mean(images, [1, 2])
        pooled = v1.cond(learns, lambda: tf.nn.dropout(pooled, 0.5), lambda: tf.identity(pooled))
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
            pooled = tf.nn.dropout(pooled, 0.5)
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


# --- batches of one size, and channels first


@pytest.mark.parametrize("engine", ["litert", "tensorflow", "openvino"])
def test_engines_cut_and_pad_batches_and_transpose(holder, tmp_path, engine):
    """Seven images for a module of three, or with the channels first, or both: as the module has it."""
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
    with pytest.raises(ModuleError, match=r"any size, \[\?, 3, \?, \?\]: give --image_size"):
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
def test_what_is_no_batch_of_images_is_refused(holder, tmp_path, spec):
    def serve(images):
        rows = tf.strings.length(images) if images.dtype == tf.string else images
        return {"logits": tf.reduce_mean(tf.cast(rows, tf.float32), list(range(1, len(spec.shape))))[:, None]}

    path = save_functions(tmp_path / "m", holder, {"serving_default": spec}, serving_default=serve)
    with pytest.raises(ModuleError, match=r"takes images .*; expected one input \[\?, height, width, 3\]"):
        inspect(path)


# --- Keras


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


def test_keras_heads_are_told_by_their_activation(tmp_path):
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


def test_a_graph_that_no_file_can_hold_is_refused(holder, tmp_path, monkeypatch):
    monkeypatch.setattr("beamlabel.transforms.module.freeze.MAX_GRAPH_BYTES", 50)
    path = save_functions(
        tmp_path / "m", holder, serving_default=lambda images: {"logits": holder.logits(images)}
    )
    with pytest.raises(ModuleError, match="GB of weights; a graph can hold 2 GB"):
        answers(path, tmp_path)
