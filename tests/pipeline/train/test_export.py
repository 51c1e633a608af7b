"""Own modules: the files for each kind of base, answers equal to base plus head, and publication."""

import dataclasses
import tarfile

import numpy as np
import pytest

from beamlabel.pipeline.train.module.export import ExportBase, export_module
from beamlabel.transforms import storage
from beamlabel.transforms.hub.files import SAVED_MODEL
from beamlabel.transforms.hub.resolve import resolve_module
from beamlabel.transforms.inference.artifact import ModuleError
from beamlabel.transforms.inference.engines import open_engine
from beamlabel.transforms.inference.probe import probe_batch
from beamlabel.transforms.module.compile import CompileOptions, compiled
from beamlabel.transforms.module.load import inspect_module
from beamlabel.transforms.own_module.description import check_class_names, read_description
from beamlabel.transforms.own_module.head import SIGMOID, SOFTMAX
from support.own_modules import NAMES, description_of, head_of, save_own
from support.paths import DATA

tf = pytest.importorskip("tensorflow")

from support.tf_modules import images_spec, keras_classifier, save_functions, save_two_outputs  # noqa: E402

TINY = DATA / "tiny_classification_1.tar.gz"


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def tiny(cache, tmp_path_factory):
    """An own module on the tiny module: path, base and head."""
    beside = {"_TRAINING.json": b'{"format": 1}', "_report.html": b"<p>"}
    return save_own(tmp_path_factory.mktemp("own") / "mine", TINY, cache, beside=beside)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A base that loads quickly."""
    return save_two_outputs(tmp_path_factory.mktemp("base") / "small", size=8)


def _vectors(images):
    """Features [N, 1, 1, 32] of images [N, 8, 8, 3], not symmetric in height and width."""
    return tf.reshape(tf.reshape(images, [-1, 8, 24])[:, ::2, ::3], [-1, 1, 1, 32])


class _Base(tf.Module):
    """A layer on the pixels, so that a swap of height and width would show."""

    def __init__(self, trainable=True):
        super().__init__()
        kernel = tf.random.stateless_normal([32, 7], seed=[1, 2])
        self.kernel = tf.Variable(kernel, name="layer/kernel") if trainable else tf.constant(kernel)

    def feature_vector(self, images):
        return {
            "feature_vector": tf.reshape(tf.reshape(_vectors(images), [-1, 32]) @ self.kernel, [-1, 1, 1, 7])
        }

    def channels_first(self, images):
        return self.feature_vector(tf.transpose(images, [0, 2, 3, 1]))


def _tf2(path):
    return save_two_outputs(path, size=16), {}, True


def _any_size(path):
    return save_two_outputs(path), {"image_size": (8, 12)}, True


def _vectors_only(path):
    return save_functions(path, base := _Base(), serving_default=base.feature_vector), {}, True


def _keras_export(path):
    keras_classifier().export(path, verbose=False)
    # This module outputs only its classes, which can serve as features, too.
    return (
        path,
        {"input_range": (0.0, 255.0), "features_output": "serving_default", "logits_output": "none"},
        True,
    )


def _keras_file(path):
    path = path.with_suffix(".keras")
    keras_classifier().save(path)
    return path, {"input_range": (-1.0, 1.0), "features_output": "pooled"}, True


def _channels_first(path):
    base = _Base()
    spec = {"serving_default": images_spec(None, 3, 8, 8)}
    return save_functions(path, base, spec, serving_default=base.channels_first), {}, True


def _batch_of_three(path):
    base = _Base()
    spec = {"serving_default": images_spec(3, 8, 8, 3)}
    return save_functions(path, base, spec, serving_default=base.feature_vector), {}, True


def _constants(path):
    base = _Base(trainable=False)
    return save_functions(path, base, serving_default=base.feature_vector), {}, False


KINDS = (
    _tf2,
    _any_size,
    _vectors_only,
    _keras_export,
    _keras_file,
    _channels_first,
    _batch_of_three,
    _constants,
)


@pytest.mark.parametrize("kind", KINDS, ids=lambda one: one.__name__.strip("_"))
def test_every_kind_of_base_becomes_a_module_that_answers_as_base_and_head(kind, cache, tmp_path):
    base, options, trainable = kind(tmp_path / "base")
    path, module, head = save_own(tmp_path / "mine", base, cache, normalizes=kind is _tf2, **options)
    loaded = tf.saved_model.load(path)
    pixels = np.concatenate([probe_batch(module.height, module.width)] * 2)[:7]
    low, high = module.input_range
    images = (pixels / np.float32(255) * np.float32(high - low) + np.float32(low)).astype(np.float32)
    expected = module.function(tf.constant(images))[1].numpy()
    for count in (1, 7):
        found = loaded.signatures["serving_default"](images=tf.constant(images[:count]))
        np.testing.assert_allclose(found["feature_vector"], expected[:count], rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(found["logits"], head.logits(expected[:count]), rtol=1e-5, atol=2e-5)
    assert read_description(tmp_path / "mine").trainable == trainable
    assert (len(loaded.trainable_variables) > 2) == trainable  # the head has two classes
    # As in the job.
    artifact = compiled(resolve_module(path, cache), CompileOptions(), cache)
    spec = artifact.spec
    assert (spec.engine, spec.class_names, spec.input_range) == ("litert", NAMES, module.input_range)
    assert (spec.height, spec.width, spec.features_of) == (module.height, module.width, module.features_of)
    logits, features = open_engine(artifact.path, artifact.sha256)(pixels)
    np.testing.assert_allclose(features, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())
    np.testing.assert_allclose(logits, head.logits(expected), rtol=1e-5, atol=1e-4)


def test_signatures_attributes_and_assets_are_those_of_the_contract(tiny):
    path, _, head = tiny
    hub = pytest.importorskip("tensorflow_hub")
    loaded = hub.load(path)
    images = tf.random.stateless_uniform([3, 32, 32, 3], seed=[1, 1])
    answers = {name: one(images=images) for name, one in loaded.signatures.items() if name != "head"}
    assert {name: set(one) for name, one in answers.items()} == {
        "serving_default": {"logits", "feature_vector"},
        "image_classification": {"logits", "feature_vector"},
        "image_feature_vector": {"feature_vector"},
    }
    features = answers["image_feature_vector"]["feature_vector"]
    again = loaded.signatures["head"](features=features)["logits"]
    np.testing.assert_allclose(again, answers["serving_default"]["logits"], rtol=0, atol=1e-5)
    np.testing.assert_allclose(loaded(images), again, rtol=0, atol=1e-5)
    np.testing.assert_array_equal(loaded.head_kernel, head.kernel)
    np.testing.assert_array_equal(loaded.head_bias, head.bias)
    # The base can be trained further: gradients reach every variable except the moving averages.
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(loaded.signatures["serving_default"](images=images)["logits"] ** 2)
    gradients = tape.gradient(loss, loaded.trainable_variables)
    assert len(gradients) > 20 and all(one is not None for one in gradients)
    moving = {one.name for one in loaded.variables} - {one.name for one in loaded.trainable_variables}
    assert moving and all("moving" in name for name in moving)
    assert read_description(resolve_module(path, ".").path).class_names == NAMES


def test_the_same_module_has_the_same_fingerprint_and_files_beside_it_do_not_count(tiny, cache, tmp_path):
    path, *_ = tiny
    # Between the two exports the process numbers many functions.
    again, *_ = save_own(tmp_path / "again", TINY, cache)
    one, other = resolve_module(path, cache), resolve_module(again, cache)
    assert one.fingerprint == other.fingerprint
    assert sorted(file.name for file in one.path.glob("_*")) == ["_TRAINING.json", "_report.html"]
    with tarfile.open(tmp_path / "mine.tar.gz", "w:gz") as tar:
        tar.add(path, arcname=".")
    assert resolve_module(str(tmp_path / "mine.tar.gz"), cache).fingerprint == one.fingerprint


@pytest.mark.parametrize("kind", [_keras_file, _batch_of_three])
def test_what_the_process_did_before_is_not_in_the_files(kind, cache, tmp_path):
    """Keras numbers models and layers, and TensorFlow the functions of loops."""
    base, options, _ = kind(tmp_path / "base")
    paths = [save_own(tmp_path / name, base, cache, **options)[0] for name in ("one", "other")]
    assert len({resolve_module(path, cache).fingerprint for path in paths}) == 1


def test_terms_that_cancel_each_other_are_no_error(small, cache, tmp_path):
    """With standardization folded in, features of small variance get large weights and biases."""
    module = inspect_module(resolve_module(small, cache))
    head = head_of(module.embedding_dim, len(NAMES))
    mean = module.function(tf.fill([1, 8, 8, 3], 0.5))[1].numpy()[0]
    kernel = head.kernel * np.float32(3000)
    head = dataclasses.replace(head, kernel=kernel, bias=head.bias - mean @ kernel)
    export_module(ExportBase.of_module(module), head, description_of(module, head), tmp_path / "mine")
    assert inspect_module(resolve_module(str(tmp_path / "mine"), cache)).num_classes == len(NAMES)


def test_another_class_name_is_another_fingerprint(small, cache, tmp_path):
    paths = [
        save_own(tmp_path / names[2], small, cache, names=names)[0] for names in (NAMES, (*NAMES[:2], "青"))
    ]
    assert len({resolve_module(path, cache).fingerprint for path in paths}) == 2


def test_an_own_module_is_a_base_and_its_features_stay_the_first_bases(small, cache, tmp_path):
    path, module, _ = save_own(tmp_path / "first", small, cache)
    second, base, _ = save_own(tmp_path / "second", path, cache, names=("a", "b"))
    assert base.features_of == module.features_of
    spec = compiled(resolve_module(second, cache), CompileOptions(), cache).spec
    assert (spec.features_of, spec.class_names) == (module.features_of, ("a", "b"))
    names = [one.name for one in tf.saved_model.load(second).variables]
    first = tf.saved_model.load(path)
    assert names[:-2] == [one.name for one in first.variables][:-2]


def test_features_of_a_fine_tuned_module_are_its_own(small, cache, tmp_path):
    path, *_ = save_own(tmp_path / "tuned", small, cache, changes={"features_of": ""})
    found = inspect_module(resolve_module(path, cache))
    assert found.features_of == f"{found.resolved.fingerprint}:serving_default:feature_vector"


@pytest.mark.parametrize("count", [1, 10_000])
def test_one_class_and_very_many(count, small, cache, tmp_path):
    names = [f"class\u2028 {number} ü" for number in range(count)]
    scores = SIGMOID if count == 1 else SOFTMAX
    path, *_ = save_own(tmp_path / "mine", small, cache, names=names, scores=scores)
    spec = compiled(resolve_module(path, cache), CompileOptions(), cache).spec
    assert spec.class_names == tuple(names)
    assert spec.scores == scores


@pytest.mark.parametrize(
    ("names", "scores"),
    [
        ((), SOFTMAX), (("a",), SOFTMAX), (("a", ""), SOFTMAX), (("a", " "), SIGMOID), (("a", "b\nc"), SOFTMAX),
        (("a\r", "b"), SOFTMAX), (("a", "b\0"), SOFTMAX), (("a", "b", "a"), SOFTMAX), (("a", "\ud800"), SOFTMAX),
    ],
)  # fmt: skip
def test_names_that_cannot_be_kept_are_refused(names, scores):
    with pytest.raises(ModuleError):
        check_class_names(names, scores)


def test_an_export_that_fails_leaves_nothing(tiny, cache, tmp_path):
    _, module, head = tiny
    base = ExportBase.of_module(module)
    description = description_of(module, head)
    other = head_of(module.embedding_dim, 2)
    broken = dataclasses.replace(base, features=lambda images: base.features(images) + tf.random.uniform([]))
    for wrong_base, wrong_head in ((base, other), (broken, head)):
        with pytest.raises(ModuleError):
            export_module(wrong_base, wrong_head, description, tmp_path / "mine")
        assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="begin with _"):
        export_module(base, head, description, tmp_path / "mine", beside={"notes": b""})
    with pytest.raises(ModuleError, match="input_range"):
        export_module(base, head, description_of(module, head, input_range=(-1.0, 1.0)), tmp_path / "mine")
    (tmp_path / "mine").mkdir()
    with pytest.raises(FileExistsError):
        export_module(base, head, description, tmp_path / "mine")
    assert [one.name for one in tmp_path.iterdir()] == ["mine"] and not list((tmp_path / "mine").iterdir())


def test_a_base_without_features_is_refused(small, cache, tmp_path):
    module = inspect_module(resolve_module(small, cache), features_output="none")
    with pytest.raises(ModuleError, match="no features"):
        ExportBase.of_module(module)


def test_files_of_two_modules_are_not_taken_for_one(small, cache, tmp_path):
    path, *_ = save_own(tmp_path / "mine", small, cache, names=("a", "b"))
    save_own(tmp_path / "other", small, cache, names=("a", "b"), normalizes=True)
    assets = tmp_path / "mine" / "assets"
    labels, description = (assets / "labels.txt").read_bytes(), (assets / "beamlabel.json").read_bytes()
    (assets / "labels.txt").write_bytes(b"a\nb\nc\n")
    with pytest.raises(ModuleError, match="3 classes"):
        inspect_module(resolve_module(path, cache))
    (assets / "labels.txt").write_bytes(labels)
    (assets / "beamlabel.json").write_bytes((tmp_path / "other" / "assets" / "beamlabel.json").read_bytes())
    with pytest.raises(ModuleError, match="do not match its head"):
        inspect_module(resolve_module(path, cache))
    (assets / "beamlabel.json").write_bytes(description.replace(b'"format": 1', b'"format": 2'))
    with pytest.raises(ModuleError, match="later version"):
        inspect_module(resolve_module(path, cache))


def test_a_bucket_gets_a_module_and_nothing_of_an_upload_that_fails(small, cache, gcs, tmp_path, monkeypatch):
    path, module, head = save_own(tmp_path / "mine", small, cache)
    base, description = ExportBase.of_module(module), description_of(module, head)
    target = f"gs://{gcs.bucket}/models/mine"
    put = storage.put_file

    def put_but_the_graph(source, path):
        if path.endswith(SAVED_MODEL):
            assert len(list(storage.match(target + "/"))) == 5  # it comes last
            raise OSError("no more")
        put(source, path)

    monkeypatch.setattr(storage, "put_file", put_but_the_graph)
    with pytest.raises(OSError, match="no more"):
        export_module(base, head, description, target, beside={"_TRAINING.json": b"{}"})
    assert not list(storage.match(target + "/"))
    monkeypatch.undo()
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs.server.url)
    export_module(base, head, description, target, beside={"_TRAINING.json": b"{}"})
    assert storage.read_bytes(f"{target}/_TRAINING.json") == b"{}"
    resolved = resolve_module(target, cache)
    assert resolved.fingerprint == resolve_module(path, cache).fingerprint
    assert not (resolved.path / "_TRAINING.json").exists()
    with pytest.raises(FileExistsError):
        export_module(base, head, description, target)
