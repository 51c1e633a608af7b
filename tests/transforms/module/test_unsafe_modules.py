"""Modules that write files are refused before any part of them runs, on every path that loads modules."""

import json
import zipfile
from pathlib import Path

import pytest

from beamlabel.transforms.hub.resolve import resolve_module
from beamlabel.transforms.inference.artifact import TENSORFLOW, ModuleError, pack, unpack
from beamlabel.transforms.inference.engines import open_payload
from beamlabel.transforms.module.compile import CompileOptions, compiled
from beamlabel.transforms.module.load import inspect_module
from beamlabel.transforms.module_artifact import artifact_of
from support.paths import ROOT

tf = pytest.importorskip("tensorflow")

from support.hostile_modules import PLACES, save_hidden, save_with_saver  # noqa: E402
from support.tf_modules import keras_classifier, save_two_outputs  # noqa: E402


@pytest.fixture
def victim(tmp_path):
    return tmp_path / "victim"


def writing(victim):
    return lambda: tf.io.write_file(str(victim), "written")


@pytest.mark.parametrize("place", PLACES)
def test_an_operation_is_refused_wherever_it_hides(tmp_path, victim, place):
    path = save_hidden(tmp_path / "m", place, writing(victim))
    with pytest.raises(ModuleError, match=r"WriteFile \(function '.*', node '.*'\).*--allow_unsafe_ops"):
        inspect_module(resolve_module(path, tmp_path))
    assert not victim.exists()


def test_a_main_op_of_version_1_is_refused(tmp_path, victim):
    path = save_with_saver(tmp_path / "m", writing(victim))
    with pytest.raises(ModuleError, match=r"WriteFile \(graph \{serve\}, node 'WriteFile'\)"):
        inspect_module(resolve_module(path, tmp_path))
    assert not victim.exists()


def test_a_main_op_that_restores_another_file_is_refused(tmp_path):
    other = str(tmp_path / "other")

    def restore():
        value = tf.raw_ops.RestoreV2(
            prefix=other, tensor_names=["x"], shape_and_slices=[""], dtypes=[tf.float32]
        )
        return value[0].op

    path = save_with_saver(tmp_path / "m", restore)
    with pytest.raises(ModuleError, match="RestoreV2"):
        inspect_module(resolve_module(path, tmp_path))


def test_allowing_all_operations_runs_them(tmp_path, victim):
    path = save_hidden(tmp_path / "m", "initializer", writing(victim))
    resolved = resolve_module(path, tmp_path, allow_unsafe_ops=True)
    assert inspect_module(resolved).num_classes == 5
    assert victim.read_text() == "written"


def test_a_module_without_such_operations_is_loaded(tmp_path):
    for name, save in (("1", save_with_saver), ("2", save_two_outputs)):
        path = save(tmp_path / name, **({} if name == "1" else {"size": 8}))
        assert inspect_module(resolve_module(path, tmp_path)).num_classes
        assert inspect_module(resolve_module(path, tmp_path, allow_unsafe_ops=True)).num_classes


def test_what_is_allowed_once_is_not_taken_from_the_cache_for_others(tmp_path, victim):
    path = save_hidden(tmp_path / "m", "initializer", writing(victim))
    trusted = resolve_module(path, tmp_path, allow_unsafe_ops=True)
    artifact = compiled(trusted, CompileOptions(), tmp_path / "cache")
    assert artifact.spec.allows_unsafe_ops
    with pytest.raises(ModuleError, match="WriteFile"):
        compiled(resolve_module(path, tmp_path), CompileOptions(), tmp_path / "cache")


def test_files_that_change_while_they_are_read(tmp_path):
    path = save_two_outputs(tmp_path / "m", size=8)
    resolved = resolve_module(path, tmp_path)
    (Path(path) / "assets").mkdir(exist_ok=True)
    (Path(path) / "assets" / "more.txt").write_text("more")
    with pytest.raises(ModuleError, match="changed"):
        compiled(resolved, CompileOptions(), tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("*.beamlabel"))


# --- artifacts


@pytest.fixture
def hostile_artifact(tmp_path, victim, monkeypatch):
    """A foreign artifact whose graph writes a file, with the given metadata."""
    monkeypatch.setenv("BEAMLABEL_CACHE", str(tmp_path / "cache"))
    path = save_two_outputs(tmp_path / "m", size=8)
    artifact = artifact_of(path, engine=TENSORFLOW)
    spec, payload = unpack(Path(artifact.path).read_bytes())
    graph = tf.compat.v1.GraphDef.FromString(bytes(payload))
    with tf.Graph().as_default() as written:
        tf.io.write_file(str(victim), "written")
    added = graph.node.add()
    written = written.as_graph_def().node
    graph.node.remove(added)
    graph.node.extend(written)
    output = next(node for node in graph.node if node.name == spec.logits_tensor)
    output.input.append(f"^{next(node.name for node in written if node.op == 'WriteFile')}")

    def make(allows):
        file = tmp_path / "theirs.beamlabel"
        said = json.loads(spec.to_json()) | {"allows_unsafe_ops": allows}
        claimed = type(spec).from_json(json.dumps(said))
        file.write_bytes(pack(claimed, graph.SerializeToString()))
        return str(file), claimed, graph.SerializeToString()

    return make


def test_an_artifact_of_somebody_else_runs_no_such_operation(hostile_artifact, victim):
    _, spec, payload = hostile_artifact(False)
    with pytest.raises(ModuleError, match="WriteFile"):
        open_payload(spec, memoryview(payload))
    path, _, _ = hostile_artifact(True)
    with pytest.raises(ModuleError, match="allow_unsafe_ops"):
        artifact_of(path)
    assert artifact_of(path, allow_unsafe_ops=True).spec.allows_unsafe_ops
    assert not victim.exists()


def test_an_artifact_is_pinned_by_its_own_sha256(hostile_artifact):
    path, _, _ = hostile_artifact(False)
    sha256 = artifact_of(path).sha256
    assert artifact_of(path, module_fingerprint=sha256).sha256 == sha256
    with pytest.raises(ModuleError, match=sha256):
        artifact_of(path, module_fingerprint="0" * 64)


# --- .keras


CHANGES = {
    "a lambda": {"module": "keras.layers", "class_name": "Lambda", "config": {"name": "x"}},
    "code": {"module": "os", "class_name": "system", "config": {"name": "x"}},
    "a class of ours": {"module": "beamlabel.transforms.storage", "class_name": "delete", "config": {}},
    "a download": {"module": "keras.utils", "class_name": "get_file", "config": {"origin": "http://x"}},
    "a pickle": {"module": "keras.layers", "class_name": "TorchModuleWrapper", "config": {"module": "x"}},
    "a SavedModel": {"module": "keras.layers", "class_name": "TFSMLayer", "config": {"filepath": "/x"}},
    "a file": {"module": "keras.layers", "class_name": "StringLookup", "config": {"vocabulary": "/etc/passwd"}},
    "a function": {"module": "builtins", "class_name": "function", "config": "os.system"},
    "a loader": {"module": "keras.models", "class_name": "function", "config": "load_model"},
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_a_keras_file_with_more_than_layers_of_keras(tmp_path, change):
    path = tmp_path / "m.keras"
    keras_classifier().save(path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(members["config.json"])
    config["config"]["layers"][1]["config"]["bias_initializer"] = CHANGES[change]
    members["config.json"] = json.dumps(config).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    with pytest.raises(ModuleError, match=f"{CHANGES[change]['class_name']}|os.system"):
        inspect_module(resolve_module(str(path), tmp_path), input_range=(0, 1))


# --- all paths


def test_only_one_place_has_tensorflow_load_a_module():
    """Any other place would bypass the check; ``beamlabel train`` may load the module it has just written."""
    loading = {
        str(path.relative_to(ROOT))
        for directory in ("pipeline", "transforms")
        for path in (ROOT / directory).rglob("*.py")
        if any(
            text in path.read_text()
            for text in (
                ".saved_model.load(str",
                "tensorflow_hub().load(",
                "models.load_model(",
                "load_partial(",
            )
        )
    }
    assert loading == {
        "transforms/module/checked_files.py",
        "transforms/module/keras_file.py",
        "pipeline/train/module/export.py",
    }
