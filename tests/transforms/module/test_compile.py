"""Compilation from module to artifact to engine, and the cache."""

import gc
import json
import subprocess
import sys
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from beamlabel.transforms.hub.resolve import resolve_module
from beamlabel.transforms.inference import engines
from beamlabel.transforms.inference.artifact import ModelSpec, ModuleError, pack, unpack
from beamlabel.transforms.inference.engines import open_engine
from beamlabel.transforms.inference.probe import check_equal, probe_batch
from beamlabel.transforms.module.compile import CompileOptions, artifact_path, compile_module, compiled
from beamlabel.transforms.module.freeze import freeze
from beamlabel.transforms.module.load import inspect_module
from beamlabel.transforms.own_module.check import ROUNDING
from beamlabel.transforms.storage.errors import ChecksumError
from support import needs
from support.paths import DATA

TINY = DATA / "tiny_classification_1.tar.gz"
TINY_FEATURES = DATA / "tiny_feature_vector_1.tar.gz"


@pytest.fixture(scope="module")
def module(cache_dir):
    return inspect_module(resolve_module(str(TINY), cache_dir))


@pytest.fixture(scope="module")
def artifact(module, cache_dir):
    return compiled(module.resolved, CompileOptions(), cache_dir)


@pytest.fixture(scope="module")
def engine(artifact):
    return open_engine(artifact.path, artifact.sha256)


def pixels(count, height=32, width=32, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def test_the_engine_gives_the_answers_of_the_module(module, engine):
    images = pixels(6)
    logits, features = engine(images)
    expected = module.function(images / np.float32(255))
    np.testing.assert_allclose(logits, expected[0], rtol=0, atol=1e-5)
    np.testing.assert_allclose(features, expected[1], rtol=0, atol=1e-5)
    assert (logits.dtype, features.dtype) == (np.float32, np.float32)
    assert (logits.shape, features.shape) == ((6, 11), (6, 64))


def test_the_spec_says_it_all(artifact, engine, module):
    spec = engine.spec
    assert spec == artifact.spec
    assert (spec.engine, spec.kind, spec.handle) == ("litert", "tf1_hub", str(TINY))
    assert spec.fallback is None
    assert (spec.height, spec.width, spec.num_classes, spec.embedding_dim) == (32, 32, 11, 64)
    assert spec.fingerprint == module.resolved.fingerprint
    assert spec.input_range == (0.0, 1.0)
    assert (spec.score_kind, spec.scores, spec.batch) == ("logits", "softmax", None)
    assert ModelSpec.from_json(spec.to_json()) == spec
    assert engine.nbytes == Path(artifact.path).stat().st_size


def test_the_network_is_run_once_for_both_outputs(artifact, module, cache_dir):
    from tensorflow.compat.v1.graph_util import extract_sub_graph
    from tensorflow.core.framework.graph_pb2 import GraphDef
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    saved_model = SavedModel.FromString((module.resolved.path / "saved_model.pb").read_bytes())
    (graph,) = (graph for graph in saved_model.meta_graphs if not graph.meta_info_def.tags)
    ends = [
        graph.signature_def[name].outputs["default"].name.partition(":")[0]
        for name in ("image_classification", "image_feature_vector")
    ]
    reference = compiled(module.resolved, CompileOptions(engine="tensorflow"), cache_dir)
    _, payload = unpack(Path(reference.path).read_bytes())
    frozen = GraphDef.FromString(bytes(payload))
    assert convolutions(frozen) == convolutions(extract_sub_graph(graph.graph_def, ends)) > 5
    assert not [node.name for node in frozen.node if "Variable" in node.op or "VarHandle" in node.op]
    assert sum(name in ("CONV_2D", "DEPTHWISE_CONV_2D") for name in operators(artifact)) == convolutions(
        frozen
    )


def operators(artifact):
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    _, payload = unpack(Path(artifact.path).read_bytes())
    # Without XNNPACK, which merges whole subgraphs.
    interpreter = Interpreter(
        model_content=bytes(payload),
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    return [operator["op_name"] for operator in interpreter._get_ops_details()]


def convolutions(graph):
    nodes = [*graph.node, *(node for function in graph.library.function for node in function.node_def)]
    return sum(node.op in ("Conv2D", "DepthwiseConv2dNative") for node in nodes)


def test_a_module_without_logits(cache_dir):
    artifact = compiled(resolve_module(str(TINY_FEATURES), cache_dir), CompileOptions(), cache_dir)
    logits, features = open_engine(artifact.path, artifact.sha256)(pixels(2, 48, 48))
    assert logits is artifact.spec.num_classes is None
    assert features.shape == (2, 64)


def test_features_can_be_left_out(module, cache_dir, engine):
    artifact = compiled(module.resolved, CompileOptions(features_output="none"), cache_dir)
    logits, features = open_engine(artifact.path, artifact.sha256)(pixels(2))
    assert features is artifact.spec.embedding_dim is None
    np.testing.assert_array_equal(logits, engine(pixels(2))[0])


@pytest.mark.parametrize("low_high", [(0, 1), (-1, 1), (0, 255)])
def test_pixels_are_scaled_in_the_graph(module, cache_dir, low_high):
    artifact = compiled(module.resolved, CompileOptions(input_range=low_high), cache_dir)
    logits, _ = open_engine(artifact.path, artifact.sha256)(pixels(3))
    low, high = low_high
    expected, _ = module.function((low + pixels(3) * ((high - low) / 255)).astype(np.float32))
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)


def test_results_do_not_depend_on_the_batch(engine):
    images = pixels(9)
    together = engine(images)
    alone = [engine(image[None]) for image in images]
    np.testing.assert_array_equal(together[0], np.concatenate([logits for logits, _ in alone]))
    np.testing.assert_array_equal(together[1], np.concatenate([features for _, features in alone]))


def test_threads_may_share_an_engine(engine):
    batches = [pixels(1 + seed % 5, seed=seed) for seed in range(40)]
    expected = [engine(batch)[0] for batch in batches]
    barrier = threading.Barrier(4)
    with ThreadPoolExecutor(4, initializer=barrier.wait) as pool:
        for found, logits in zip(pool.map(engine, batches), expected, strict=True):
            np.testing.assert_array_equal(found[0], logits)


def test_loads_are_counted_and_engines_are_freed(artifact):
    before = engines.loads
    engine = open_engine(artifact.path, artifact.sha256)
    assert engines.loads == before + 1
    reference = weakref.ref(engine)
    del engine
    gc.collect()
    assert reference() is None


@pytest.mark.parametrize(
    "batch",
    [
        np.zeros([2, 32, 32, 3], np.float32),
        np.zeros([2, 16, 32, 3], np.uint8),
        np.zeros([32, 32, 3], np.uint8),
    ],
)
def test_other_pixels_are_refused(engine, batch):
    with pytest.raises(ValueError, match=r"takes images of uint8\[32, 32, 3\]"):
        engine(batch)


# --- the artifact as a file


def test_an_artifact_on_gs(artifact, gcs, engine):
    uri = gcs.put("staging/model.beamlabel", Path(artifact.path).read_bytes())
    np.testing.assert_array_equal(open_engine(uri, artifact.sha256)(pixels(1))[0], engine(pixels(1))[0])


def test_litert_maps_the_file(artifact):
    """All processes of a host share the pages of a mapped file."""
    maps = Path("/proc/self/maps")
    if not maps.exists():
        needs.lacking("no /proc")
    opened = open_engine(artifact.path, artifact.sha256)
    gc.collect()
    assert opened.name == "litert" and artifact.path in maps.read_text()


def test_other_bytes_are_refused(artifact, tmp_path):
    data = Path(artifact.path).read_bytes()
    for name, content in (("short", data[:-1000]), ("other", data[:-1] + b"?"), ("empty", b"")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ChecksumError, match=r"SHA-256 is .*, but the launcher staged"):
            open_engine(str(tmp_path / name), artifact.sha256)
        with pytest.raises(ModuleError, match=r"damaged|not a complete compiled model"):
            unpack(content)


def test_an_unknown_engine_is_named(artifact, tmp_path):
    import hashlib

    data = pack(replace(artifact.spec, engine="abacus"), b"beads")
    (tmp_path / "model").write_bytes(data)
    with pytest.raises(
        ModuleError, match="'abacus'; available engines: linear, litert, openvino, tensorflow"
    ):
        open_engine(str(tmp_path / "model"), hashlib.sha256(data).hexdigest())


# --- the cache


def test_a_warm_cache_needs_no_tensorflow(artifact, cache_dir):
    code = (
        "import sys; from beamlabel.transforms.module.compile import *\n"
        "from beamlabel.transforms.hub.resolve import resolve_module\n"
        f"found = compiled(resolve_module({str(TINY)!r}, {str(cache_dir)!r}), CompileOptions(), {str(cache_dir)!r})\n"
        "assert not [m for m in sys.modules if m.startswith(('tensorflow', 'keras', 'apache_beam'))]\n"
        "import json; print(json.dumps([found.path, found.sha256, found.spec.to_json()]))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert json.loads(done.stdout) == [artifact.path, artifact.sha256, artifact.spec.to_json()]


def test_the_cache_is_used_and_repaired(module, tmp_path):
    first = compiled(module.resolved, CompileOptions(), tmp_path)
    inode = Path(first.path).stat().st_ino
    assert compiled(module.resolved, CompileOptions(), tmp_path) == first
    assert Path(first.path).stat().st_ino == inode
    data = bytearray(Path(first.path).read_bytes())
    data[len(data) // 2] ^= 1
    Path(first.path).write_bytes(data)
    assert compiled(module.resolved, CompileOptions(), tmp_path) == first
    assert Path(first.path).stat().st_ino != inode
    assert [path.name for path in tmp_path.iterdir()] == [Path(first.path).name]


def test_every_change_of_the_artifact_changes_its_place(module, tmp_path):
    resolved = module.resolved
    variants = [
        (resolved, CompileOptions()),
        (resolved, CompileOptions(logits_output="MobilenetV2/Logits")),
        (resolved, CompileOptions(features_output="none")),
        (resolved, CompileOptions(image_size=(32, 32))),
        (resolved, CompileOptions(input_range=(-1, 1))),
        (replace(resolved, fingerprint="1" * 64), CompileOptions()),
        (replace(resolved, handle="other"), CompileOptions()),
        (resolved, CompileOptions(engine="litert")),
        (resolved, CompileOptions(engine="tensorflow")),
    ]
    paths = {artifact_path(resolved, options, tmp_path) for resolved, options in variants}
    assert len(paths) == len(variants)
    assert str(artifact_path(*variants[0], tmp_path)) == compiled(*variants[0], tmp_path).path


# --- the self-check


def test_an_artifact_that_differs_from_its_module_is_refused(module, tmp_path, monkeypatch):
    def drifted(module):
        return freeze(replace(module, function=lambda images: [x * 1.01 for x in module.function(images)]))

    monkeypatch.setattr("beamlabel.transforms.module.compile.freeze", drifted)
    with pytest.raises(ModuleError, match=r"compilation changed its logits by 0\.01"):
        compile_module(module, tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_what_counts_as_equal():
    expected = np.array([[1.0, 2.0, 2.0], [0.5, -100.0, 0.0]], np.float32)
    check_equal("features", expected, expected + 0.05)
    with pytest.raises(ModuleError, match="changed its features"):
        check_equal("features", expected, expected + 0.2)
    with pytest.raises(ModuleError, match="changed its features"):
        check_equal("features", expected, np.full_like(expected, np.nan))
    with pytest.raises(ModuleError, match="not finite"):
        check_equal("features", np.full_like(expected, np.nan), expected)
    # The order within a tie may change, but not the best class.
    check_equal("logits", expected, expected + np.array([0, 0, 0.001], np.float32))
    close = np.array([[1.0, 1.05, -100.0]], np.float32)
    with pytest.raises(ModuleError, match="best class"):
        check_equal("logits", close, close + np.array([0.09, 0, 0], np.float32))


def test_sums_whose_terms_cancel_are_compared_by_their_terms():
    """Terms of 1000 cancel to a logit of about 1: rounding is accepted, another head is not."""
    expected = np.array([[1.0, 0.5]], np.float32)
    rounded = expected + np.array([0.002, 0.0], np.float32)
    with pytest.raises(ModuleError, match="changed its logits"):
        check_equal("logits", expected, rounded)
    check_equal("logits", expected, rounded, least_scale=1000 * ROUNDING)
    with pytest.raises(ModuleError, match="changed its logits"):
        check_equal("logits", expected, expected + 0.02, least_scale=1000 * ROUNDING)


# --- Keras and TF2, end to end


def test_a_keras_classifier_looks_like_probabilities(tmp_path):
    from support.tf_modules import keras_classifier

    model = keras_classifier()
    model.export(str(tmp_path / "export"), verbose=False)
    model.save(tmp_path / "model.keras")
    images = pixels(3, 16, 20)
    for name in ("export", "model.keras"):
        resolved = resolve_module(str(tmp_path / name), tmp_path)
        artifact = compiled(resolved, CompileOptions(input_range=(0, 255)), tmp_path / "cache")
        assert (artifact.spec.score_kind, artifact.spec.scores) == ("probabilities", "none")
        logits, features = open_engine(artifact.path, artifact.sha256)(images)
        np.testing.assert_allclose(logits, model(images.astype(np.float32), training=False), atol=1e-5)
        assert features is None


def test_a_tf2_module_of_any_size(tmp_path):
    from support.tf_modules import save_two_outputs

    resolved = resolve_module(save_two_outputs(tmp_path / "m"), tmp_path)
    artifact = compiled(resolved, CompileOptions(image_size=(6, 9)), tmp_path)
    assert (artifact.spec.height, artifact.spec.width) == (6, 9)
    logits, features = open_engine(artifact.path, artifact.sha256)(pixels(2, 6, 9))
    assert (logits.shape, features.shape) == ((2, 5), (2, 7))


# --- small parts


def test_the_probe_batch_is_fixed_and_varied():
    batch = probe_batch(24, 40)
    assert (batch.shape, batch.dtype) == ((4, 24, 40, 3), np.uint8)
    np.testing.assert_array_equal(batch, probe_batch(24, 40))
    assert all(image.std() > 20 for image in batch)
    assert probe_batch(1, 1).shape == (4, 1, 1, 3)
