"""Own modules in the job, the transforms and the commands."""

import dataclasses
import json

import apache_beam as beam
import numpy as np
import pytest
from apache_beam.runners.portability.fn_api_runner import FnApiRunner

from beamlabel import LabelImages, ModelHandler
from beamlabel.pipeline.commands import inspect as inspect_command
from beamlabel.pipeline.commands.fetch import fetch_module
from beamlabel.pipeline.job.prepare_module import resolve
from beamlabel.transforms.derive import derive
from beamlabel.transforms.hub.resolve import resolve_module
from beamlabel.transforms.inference.artifact import ModuleError
from beamlabel.transforms.inference.engines import open_engine
from beamlabel.transforms.inference.options import WishError
from beamlabel.transforms.inference.probe import extreme_batch, probe_batch
from beamlabel.transforms.inference.top_k import scores_of
from beamlabel.transforms.module.compile import CompileOptions, compiled
from beamlabel.transforms.module.load import inspect_module
from beamlabel.transforms.module_artifact import artifact_of
from beamlabel.transforms.rows import metadata_keys
from beamlabel.transforms.storage.host_cache import cache_dir
from support.collect import Collect
from support.jobs import TINY, label, photos, uri_list
from support.own_modules import NAMES, save_own
from support.paths import DATA

pytest.importorskip("tensorflow")

from support.tf_modules import save_two_outputs

DECODING = {"crop": 0.875, "color_profile": "ignore"}


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """An own module on the tiny module, its base and its head."""
    training = {
        "format": 1,
        "accuracy": {"test": {"images": 80, "value": 0.9, "low": 0.815, "high": 0.948}},
        "macro_f1": 0.88,
        "facts": {"truth": "truth.csv"},
        "suspects": [],
    }
    beside = {"_TRAINING.json": json.dumps(training).encode(), "_report.html": b"<p>"}
    return save_own(tmp_path_factory.mktemp("own") / "mine", TINY, cache_dir(), beside=beside)


@pytest.fixture(scope="module")
def jobs(own, tmp_path_factory):
    """The same images, labeled by the base and by the own module."""
    directory = tmp_path_factory.mktemp("jobs")
    source = ("--input", uri_list(directory / "list.txt", photos(directory / "photos", 12)))
    return label(directory / "base", *source), label(directory / "mine", *source, module=own[0]), source


def test_rows_of_base_and_own_module_have_the_same_features(own, jobs):
    base, mine, _ = jobs
    assert base.code == mine.code == 0
    one, other = base.manifest["metadata"], mine.manifest["metadata"]
    assert one[metadata_keys.FEATURES_ID] == other[metadata_keys.FEATURES_ID]
    assert one[metadata_keys.MODULE_FINGERPRINT] != other[metadata_keys.MODULE_FINGERPRINT]
    left, right = (np.array([row["embedding"] for row in job.rows], np.float32) for job in (base, mine))
    np.testing.assert_allclose(left, right, rtol=0, atol=1e-6 * np.abs(left).max())
    # Labels from the assets, and scores by softmax of the head's logits.
    logits = own[2].logits(left)
    expected = scores_of(logits, "softmax")
    for row, scores in zip(mine.rows, expected, strict=True):
        assert row["label"] == NAMES[int(scores.argmax())] and sorted(row["labels"]) == sorted(NAMES)
        np.testing.assert_allclose(row["score"], scores.max(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("engine", ["litert", "openvino", "tensorflow"])
def test_engines_give_the_numbers_of_the_exported_graph(own, engine):
    if engine == "openvino":
        pytest.importorskip("openvino")
    pixels = np.concatenate([probe_batch(32, 32), extreme_batch(32, 32)])
    resolved = resolve_module(own[0], cache_dir())
    artifact = compiled(resolved, CompileOptions(engine=engine), cache_dir())
    assert artifact.spec.engine == engine
    found = open_engine(artifact.path, artifact.sha256)(pixels)
    expected = own[1].function(pixels.astype(np.float32) / 255)[1].numpy()
    for got, wanted in zip(found, (own[2].logits(expected), expected), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-5 * max(1, np.abs(wanted).max()))


def test_the_transforms_take_the_modules_own_names(own, jobs, tmp_path):
    _, mine, source = jobs
    uris = source[1].read_text().split("\n")[:3]
    seen = Collect()
    with beam.Pipeline(runner=FnApiRunner()) as pipeline:
        images = pipeline | beam.Create([{"uri": uri} for uri in uris], reshuffle=False)
        _ = (images | LabelImages(own[0])).predictions | seen
    wanted = {row["uri"]: row["label"] for row in mine.rows}
    assert len(seen.values) == 3 and all(one["label"] == wanted[one["uri"]] for one in seen.values)
    # The same from an artifact, which needs neither the module nor TensorFlow.
    ModelHandler(own[0]).save_artifact(tmp_path / "mine.beamlabel")
    assert derive(artifact_of(tmp_path / "mine.beamlabel")).predict.class_names == NAMES


def test_a_thousand_classes_of_ones_own_are_not_imagenets(tmp_path):
    names = [f"part {number}" for number in range(1000)]
    base = save_two_outputs(tmp_path / "base", size=8)
    path, *_ = save_own(tmp_path / "mine", base, tmp_path / "cache", names=names, scores="sigmoid")
    derived = derive(artifact_of(path))
    assert derived.predict.class_names == tuple(names) and derived.predict.scores == "sigmoid"
    assert derive(artifact_of(path), class_names="none").predict.class_names is None


def test_images_are_decoded_as_those_that_the_head_was_trained_on(tmp_path):
    base = save_two_outputs(tmp_path / "base", size=8)
    path, *_ = save_own(tmp_path / "mine", base, tmp_path / "cache", changes={"decoding": DECODING})
    artifact = artifact_of(path)
    for given in ({}, {"crop": 0.875}, {"color_profile": "ignore"}, DECODING):
        decode = derive(artifact, **given).decode
        assert (decode.crop, decode.color_profile) == (0.875, "ignore")
    for argument, value in (("crop", 0.5), ("color_profile", "convert")):
        with pytest.raises(WishError) as caught:
            derive(artifact, **{argument: value})
        assert caught.value.argument == argument and str(value) in str(caught.value)
        assert str(DECODING[argument]) in str(caught.value)
    stretched = dataclasses.replace(artifact, spec=dataclasses.replace(artifact.spec, crop=None))
    assert derive(stretched).decode.crop is None
    with pytest.raises(WishError, match="crop"):
        derive(stretched, crop=0.875)
    # For any other module the options decide.
    other = derive(artifact_of(DATA / "tiny_classification_1.tar.gz"), crop=0.5)
    assert (other.decode.crop, other.decode.color_profile) == (0.5, "convert")
    resolved = resolve(path)
    with pytest.raises(ModuleError, match="input_range 0,1"):
        inspect_module(resolved, input_range=(0.0, 255.0))
    with pytest.raises(ModuleError, match="image_size"):
        inspect_module(resolved, image_size=16)
    assert inspect_module(resolved, input_range=(0.0, 1.0), image_size=8).num_classes == len(NAMES)


def test_inspect_describes_it(own, capsys, monkeypatch):
    monkeypatch.setattr("beamlabel.pipeline.commands.inspection._SECONDS", 0.1)
    assert inspect_command.main([own[0], "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["own"]["class_names"] == list(NAMES) and found["own"]["base"] == TINY
    assert found["own"]["base_fingerprint"] == resolve(TINY).fingerprint
    assert found["own"]["training"]["facts"] == {"truth": "truth.csv"}
    assert "suspects" not in found["own"]["training"]
    assert (found["scores"], found["num_classes"], found["logits"]) == (
        "softmax",
        3,
        "serving_default:logits",
    )
    assert inspect_command.main([own[0]]) == 0
    text = capsys.readouterr().out
    for told in (TINY, "red shoe, blaue Tür, 赤", "90.0 % (81.5 to 94.8) of 80 images", "softmax"):
        assert told in text


def test_fetch_mirrors_it(own, tmp_path):
    fetch_module(own[0], str(tmp_path / "copy"))
    fetch_module(own[0], str(tmp_path / "copy"))
    assert resolve(str(tmp_path / "copy")).fingerprint == resolve(own[0]).fingerprint
    names = {path.name for path in (tmp_path / "copy").iterdir()}
    assert names == {"assets", "saved_model.pb", "variables"}
