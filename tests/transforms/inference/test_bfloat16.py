"""``--precision bfloat16``: its effects and limits, and workers that do not support it."""

import logging
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from beamlabel.transforms.hub.resolve import resolve_module
from beamlabel.transforms.inference import openvino_engine
from beamlabel.transforms.inference.artifact import ModuleError, unpack
from beamlabel.transforms.inference.engines import open_engine
from beamlabel.transforms.inference.probe import probe_batch
from beamlabel.transforms.module.compile import CompileOptions, compiled
from beamlabel.transforms.worker import cpu, once
from support.jobs import TINY, label, photos, uri_list
from support.paths import SHARED_MODULES

TRAINED = SHARED_MODULES / "mobilenet_v2_100_224_classification_1.tar.gz"
BFLOAT16 = CompileOptions(precision="bfloat16")


def _why_not() -> str | None:
    try:
        import openvino  # noqa: F401
    except ImportError:
        return "OpenVINO is not installed"
    return None if cpu.bfloat16_units() else "this CPU has no bfloat16 instructions"


needs_units = pytest.mark.skipif(_why_not() is not None, reason=str(_why_not()))


@pytest.fixture(autouse=True)
def _nothing_said_yet(monkeypatch):
    monkeypatch.setattr(once, "_said", set())


@pytest.fixture(autouse=True)
def _slow_units_are_taken_too(monkeypatch):
    monkeypatch.setattr(cpu, "is_intel", lambda: False)


@pytest.fixture
def no_units(monkeypatch):
    monkeypatch.setattr(cpu, "bfloat16_units", frozenset)


@pytest.fixture
def uris(tmp_path):
    return uri_list(tmp_path / "list.txt", photos(tmp_path / "photos", 20))


def engine_of(handle, options, cache_dir):
    artifact = compiled(resolve_module(str(handle), cache_dir), options, cache_dir)
    return open_engine(artifact.path, artifact.sha256)


def cosine(left, right):
    return (left * right).sum(1) / np.linalg.norm(left, axis=1) / np.linalg.norm(right, axis=1)


def metadata(job):
    (shard,) = job.output.glob("part-*.parquet")
    found = pq.read_schema(shard).metadata
    return {name: found[f"beamlabel.{name}".encode()].decode() for name in ("engine", "precision")}


# --- the engine


@needs_units
@pytest.mark.parametrize("handle", [TINY, TRAINED], ids=["tiny", "trained"])
def test_bfloat16_is_near_float32(handle, tmp_path):
    if not (handle == TINY or handle.exists()):
        pytest.skip(f"no module {handle.name}")
    exact = engine_of(handle, CompileOptions(), tmp_path)
    near = engine_of(handle, BFLOAT16, tmp_path)
    assert (exact.computed_by, near.computed_by) == ("litert float32", "openvino bfloat16")
    # Photographs are smooth; the mirrored and rotated probe batch comes closest among synthetic images.
    base = probe_batch(exact.spec.height, exact.spec.width)
    images = np.concatenate(
        [base, base[:, ::-1], base[:, :, ::-1], 255 - base, base[::-1, ::-1, ::-1], base // 2]
    )
    expected, found = exact(images), near(images)
    assert not np.array_equal(expected[0], found[0])
    assert [array.dtype for array in found] == [np.float32, np.float32]
    assert cosine(expected[1], found[1]).min() > 0.99
    assert np.mean(expected[0].argmax(1) == found[0].argmax(1)) >= 0.9


@needs_units
def test_results_depend_neither_on_the_batch_nor_on_the_threads(tmp_path):
    from concurrent.futures import ThreadPoolExecutor

    engine = engine_of(TINY, BFLOAT16, tmp_path)
    images = np.random.default_rng(1).integers(0, 256, (21, 32, 32, 3), dtype=np.uint8)
    together = engine(images)
    with ThreadPoolExecutor(4) as pool:
        alone = list(pool.map(engine, images[:, None]))
    for place in (0, 1):
        np.testing.assert_array_equal(together[place], np.concatenate([one[place] for one in alone]))


@needs_units
def test_the_payload_is_litert_s(tmp_path):
    resolved = resolve_module(TINY, tmp_path)
    ours, theirs = (compiled(resolved, options, tmp_path) for options in (BFLOAT16, CompileOptions()))
    assert ours.path != theirs.path
    (spec, payload), (_, expected) = (unpack(Path(a.path).read_bytes()) for a in (ours, theirs))
    assert payload == expected
    assert (spec.engine, spec.precision, theirs.spec.precision) == ("openvino", "bfloat16", "float32")


# --- the job


@needs_units
def test_a_run_names_what_it_ran(tmp_path, uris):
    exact = label(tmp_path / "exact", "--input", uris)
    near = label(tmp_path / "near", "--input", uris, "--precision", "bfloat16")
    again = label(tmp_path / "again", "--input", uris, "--precision", "bfloat16")
    assert exact.code == near.code == again.code == 0
    assert metadata(exact) == {"engine": "litert", "precision": "float32"}
    assert metadata(near) == {"engine": "openvino", "precision": "bfloat16"}
    assert [file["computed_by"] for file in near.manifest["files"]] == ["openvino bfloat16"]
    assert near.manifest["preprocessing"]["precision"] == "bfloat16"
    assert near.rows[0]["preprocessing_id"] != exact.rows[0]["preprocessing_id"]
    assert [row["label"] if "label" in row else row["class_ids"][0] for row in near.rows] == [
        row["label"] if "label" in row else row["class_ids"][0] for row in exact.rows
    ]
    embeddings = [np.array([row["embedding"] for row in job.rows]) for job in (exact, near)]
    assert cosine(*embeddings).min() > 0.999
    assert [file["sha256"] for file in near.manifest["files"]] == [
        file["sha256"] for file in again.manifest["files"]
    ]


def test_a_worker_without_the_units_says_so_once_and_computes_in_float32(tmp_path, uris, no_units, caplog):
    pytest.importorskip("openvino")
    with caplog.at_level(logging.WARNING):
        jobs = [
            label(tmp_path / name, "--input", uris, "--precision", "bfloat16", "--output_format", kind)
            for name, kind in (("first", "parquet"), ("second", "tfrecord"))
        ]
    said = [record.message for record in caplog.records if "bfloat16" in record.message]
    assert len(said) == 1, "also by the process that compiled, if the cache was cold"
    assert "no bfloat16 instructions" in said[0]
    assert "float32" in said[0]
    exact = label(tmp_path / "exact", "--input", uris, "--engine", "openvino")
    assert metadata(jobs[0]) == metadata(exact) == {"engine": "openvino", "precision": "float32"}
    for job in jobs:
        assert [file["computed_by"] for file in job.manifest["files"]] == ["openvino float32"]
    # The preprocessing has the requested precision, the file the actual one.
    assert jobs[0].manifest["preprocessing"]["precision"] == "bfloat16"
    same = [name for name in exact.table.column_names if name != "preprocessing_id"]
    assert jobs[0].table.select(same) == exact.table.select(same)


@needs_units
def test_a_worker_whose_check_fails_says_so_once_and_computes_in_float32(tmp_path, uris, monkeypatch, caplog):
    resolved = resolve_module(TINY, tmp_path / "cache")
    artifact = compiled(resolved, BFLOAT16, tmp_path / "cache")
    monkeypatch.setitem(openvino_engine.TOLERANCE, "bfloat16", 1e-6)
    with caplog.at_level(logging.WARNING):
        engines = [open_engine(artifact.path, artifact.sha256) for _ in range(2)]
    assert {engine.computed_by for engine in engines} == {"openvino float32"}
    (said,) = [record.message for record in caplog.records if "changed its" in record.message]
    assert "bfloat16 by OpenVINO changed its logits by" in said
    assert "float32" in said
    # The launcher refuses, since the user can still change the options.
    with pytest.raises(ModuleError, match="bfloat16 by OpenVINO changed its logits"):
        compiled(resolved, BFLOAT16, tmp_path / "cold")


def test_intels_units_without_amx_are_not_worth_while(tmp_path, monkeypatch, caplog):
    pytest.importorskip("openvino")
    monkeypatch.setattr(cpu, "is_intel", lambda: True)
    monkeypatch.setattr(cpu, "bfloat16_units", lambda: frozenset({"avx512_bf16"}))
    with caplog.at_level(logging.WARNING):
        assert engine_of(TINY, BFLOAT16, tmp_path).computed_by == "openvino float32"
    (said,) = [record.message for record in caplog.records if "AMX" in record.message]
    assert "slower than float32" in said


def test_openvino_in_float32_is_the_module(tmp_path):
    pytest.importorskip("openvino")
    reference = engine_of(TINY, CompileOptions(engine="tensorflow"), tmp_path)
    engine = engine_of(TINY, CompileOptions(engine="openvino"), tmp_path)
    assert engine.computed_by == "openvino float32"
    images = np.random.default_rng(2).integers(0, 256, (21, 32, 32, 3), dtype=np.uint8)
    for expected, found in zip(reference(images), engine(images), strict=True):
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


def test_a_worker_that_lacks_openvino_computes_with_litert(tmp_path, no_units, monkeypatch):
    pytest.importorskip("openvino")
    artifact = compiled(resolve_module(TINY, tmp_path), BFLOAT16, tmp_path)
    monkeypatch.setitem(sys.modules, "openvino", None)
    assert open_engine(artifact.path, artifact.sha256).computed_by == "litert float32"


# --- usage


@pytest.mark.parametrize("engine", ["litert", "tensorflow"])
def test_no_other_engine_has_it(tmp_path, uris, engine, capsys):
    job = label(tmp_path / "out", "--input", uris, "--precision", "bfloat16", "--engine", engine)
    assert job.code == 2
    assert f"--precision bfloat16 does not work with --engine {engine}" in capsys.readouterr().err
    with pytest.raises(ValueError, match=f"'bfloat16' is not supported by the engine '{engine}'"):
        CompileOptions(engine=engine, precision="bfloat16")


def test_without_openvino_the_extra_is_named(tmp_path, uris, monkeypatch, capsys):
    import importlib.util

    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: None if name == "openvino" else find_spec(name, *rest),
    )
    job = label(tmp_path / "out", "--input", uris, "--precision", "bfloat16")
    assert job.code == 2
    assert "pip install '.[openvino]'" in capsys.readouterr().err
    assert not job.output.exists()


def test_a_module_that_litert_cannot_express_is_refused(tmp_path, uris, capsys):
    pytest.importorskip("openvino")
    import tensorflow as tf

    class Inverse(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None, 8, 8, 3], tf.float32, name="images")])
        def __call__(self, images):
            return {"logits": tf.linalg.inv(tf.eye(8) * 3 + images[..., 0])[:, 0]}

    model = Inverse()
    tf.saved_model.save(model, str(tmp_path / "m"), signatures={"serving_default": model.__call__})
    job = label(tmp_path / "out", "--input", uris, "--precision", "bfloat16", module=tmp_path / "m")
    assert job.code == 2
    error = capsys.readouterr().err
    assert "OpenVINO cannot compute this module in bfloat16: LiteRT cannot express it" in error
    assert not job.output.exists()
