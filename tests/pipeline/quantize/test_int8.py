"""``--precision int8``: the launcher's artifact, the workers' use, and the case of insufficient agreement."""

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest

pytest.importorskip("nncf")
pytest.importorskip("openvino")

from beamlabel.pipeline.commands.inspect import main
from beamlabel.transforms.hub.resolve import resolve_module
from beamlabel.transforms.inference.artifact import ModuleError, pack, unpack
from beamlabel.transforms.inference.engines import open_engine, open_payload
from beamlabel.transforms.inference.int8_payload import pack_int8, unpack_int8
from beamlabel.transforms.inference.probe import probe_batch
from beamlabel.transforms.module.compile import CompileOptions, compiled
from beamlabel.transforms.quantize import nncf_model, search
from support.jobs import TINY_FEATURES, label, photos, uri_list

CALIBRATION = 8


@pytest.fixture
def counted(monkeypatch):
    """Counts the calls of NNCF, and makes int8 appear faster, since a tiny module need not be."""
    asked = []
    quantized = nncf_model.Quantizer.quantized

    def counting(self, setting):
        asked.append(setting)
        return quantized(self, setting)

    monkeypatch.setattr(nncf_model.Quantizer, "quantized", counting)
    monkeypatch.setattr(search, "cpu_seconds", lambda runs: [2.0, 1.0])
    return asked


@pytest.fixture
def uris(tmp_path):
    return uri_list(tmp_path / "list.txt", photos(tmp_path / "photos", CALIBRATION + 100))


def in_int8(output, uris, *more):
    return label(
        output, "--input", uris, "--precision", "int8", "--calibration_images", CALIBRATION, *more,
        module=TINY_FEATURES,
    )  # fmt: skip


def test_a_job_in_int8(tmp_path, uris, counted):
    exact = label(tmp_path / "exact", "--input", uris, module=TINY_FEATURES)
    near = in_int8(tmp_path / "near", uris)
    assert (exact.code, near.code) == (0, 0)
    told = near.manifest["preprocessing"]
    assert told["precision"] == "int8" and told["quantization"]["float32_layers"] == []
    assert set(told) - set(exact.manifest["preprocessing"]) == {"quantization"}
    for name in ("beamlabel.preprocessing_id", "beamlabel.features_id"):
        assert near.manifest["metadata"][name] != exact.manifest["metadata"][name]
    assert {file["computed_by"] for file in near.manifest["files"]} == {"openvino int8"}
    before, after = (
        np.stack(pq.read_table(tmp_path / name).sort_by("uri").column("embedding").to_numpy())
        for name in ("exact", "near")
    )
    cosines = (before * after).sum(1) / np.linalg.norm(before, axis=1) / np.linalg.norm(after, axis=1)
    assert np.median(cosines) >= 0.99 and not np.array_equal(before, after)
    # The next run quantizes nothing, and rows are equal for all batch sizes.
    asked = len(counted)
    again = in_int8(tmp_path / "again", uris, "--batch_size", 7)
    assert len(counted) == asked and again.manifest["preprocessing"] == told
    rows = np.stack(pq.read_table(tmp_path / "again").sort_by("uri").column("embedding").to_numpy())
    assert np.array_equal(rows, after)
    # Other images give another model.
    fewer = in_int8(tmp_path / "fewer", uris, "--calibration_images", CALIBRATION - 1)
    assert fewer.manifest["preprocessing"]["quantization"] != told["quantization"]


def test_too_different_answers_end_the_run_or_use_float32(tmp_path, uris, counted, monkeypatch, capsys):
    monkeypatch.setattr("beamlabel.transforms.quantize.agreement.LEAST_COSINE", 1.1)
    assert in_int8(tmp_path / "refused", uris).code == 2
    message = capsys.readouterr().err
    assert "cosine" in message and "int8,float32" in message
    assert not (tmp_path / "refused").exists()
    asked = len(counted)
    exact = in_int8(tmp_path / "exact", uris, "--precision", "int8,float32")
    assert exact.code == 0 and exact.manifest["preprocessing"]["precision"] == "float32"
    # A failed attempt is cached, too.
    assert len(counted) == asked


def test_too_few_images(tmp_path, counted, capsys):
    few = uri_list(tmp_path / "few.txt", photos(tmp_path / "photos", CALIBRATION + 99))
    assert in_int8(tmp_path / "out", few).code == 2
    assert "--calibration_images" in capsys.readouterr().err
    # Copies count as one image.
    copies = uri_list(tmp_path / "copies.txt", [*photos(tmp_path / "photos", 60)] * 4)
    assert in_int8(tmp_path / "out", copies).code == 2
    assert counted == []


@pytest.mark.parametrize(
    "arguments",
    [
        ("--precision", "int8", "--engine", "litert"),
        ("--calibration_images", "100"),
        ("--precision", "int8", "--calibration_images", "0"),
    ],
)
def test_options_that_do_not_go_together(tmp_path, uris, arguments):
    assert label(tmp_path / "out", "--input", uris, *arguments).code == 2


def test_a_worker_whose_answers_are_others_refuses(tmp_path, counted):
    random = np.random.default_rng(1)
    artifact = compiled(resolve_module(TINY_FEATURES, tmp_path), CompileOptions(), tmp_path)
    size = (artifact.spec.height, artifact.spec.width)
    images = [image for _ in range(30) for image in probe_batch(*size)]
    images = [np.clip(one + random.normal(0, 9, one.shape), 0, 255).astype(np.uint8) for one in images]
    found = search.search(artifact, images[:10], images[10:], "none", tmp_path)
    assert found.artifact is not None
    assert open_engine(found.artifact.path, found.artifact.sha256).computed_by == "openvino int8"
    # Workers have no NNCF.
    code = (
        "import sys; sys.modules['nncf'] = None\n"
        "from beamlabel.transforms.inference.engines import open_engine\n"
        "print(open_engine(*sys.argv[1:]).computed_by, 'tensorflow' in sys.modules)"
    )
    worker = [sys.executable, "-c", code, found.artifact.path, found.artifact.sha256]
    assert (
        subprocess.run(worker, stdout=subprocess.PIPE, check=True, text=True).stdout
        == "openvino int8 False\n"
    )
    with open(found.artifact.path, "rb") as file:  # noqa: PTH123
        spec, payload = unpack(file.read())
    model, (logits, features) = unpack_int8(payload)
    payload = memoryview(pack_int8(model, (logits, -features)))
    with pytest.raises(ModuleError, match="int8"):
        open_payload(spec, payload)
    assert unpack(pack(spec, bytes(payload)))[0] == spec
    assert json.loads(spec.to_json())["quantization"] == dataclasses.asdict(spec.quantization) | {
        "float32_layers": list(spec.quantization.float32_layers)
    }


def test_the_same_images_make_the_same_bytes(tmp_path):
    artifact = compiled(resolve_module(TINY_FEATURES, tmp_path), CompileOptions(), tmp_path)
    with open(artifact.path, "rb") as file:  # noqa: PTH123
        spec, payload = unpack(file.read())
    images = list(probe_batch(spec.height, spec.width))
    models = [nncf_model.Quantizer(spec, payload, images).quantized(search.ROUNDS[0][0]) for _ in range(2)]
    assert models[0] == models[1]


@pytest.mark.long
def test_inspect_shows_them_side_by_side(uris, counted, capsys):
    arguments = ["--precisions", "--input", str(uris), "--calibration_images", str(CALIBRATION)]
    assert main([TINY_FEATURES, "--json", *arguments]) == 0
    rows = {row["precision"]: row for row in json.loads(capsys.readouterr().out)}
    assert list(rows) == ["float32", "bfloat16", "int8"]
    exact, near = rows["float32"], rows["int8"]
    assert (exact["speedup"], exact["cosine"]) == (1.0, pytest.approx(1.0))
    assert near["computed_by"] == "openvino int8" and 0.99 <= near["cosine"] < 1
    assert exact["images_per_second"] > 0 and near["images_per_second"] > 0
    assert main([TINY_FEATURES, *arguments]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [name for line in lines for name in rows if line.split()[:1] == [name]] == list(rows)
