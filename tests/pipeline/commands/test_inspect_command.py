"""``beamlabel inspect``: its report on genuine modules is correct."""

import json
import os

import pytest

from beamlabel.pipeline.commands.inspect import main
from beamlabel.pipeline.errors import UsageError
from beamlabel.pipeline.job.prepare_module import resolve
from beamlabel.transforms.worker import cpu
from support.jobs import TINY, TINY_FEATURES, command


@pytest.fixture
def inspect(capsys, monkeypatch):
    """Runs the command in this process with a short measurement; returns its parsed JSON."""
    monkeypatch.setattr("beamlabel.pipeline.commands.inspection._SECONDS", 0.1)

    def run(*arguments):
        capsys.readouterr()
        assert main(["--json", *map(str, arguments)]) == 0
        return json.loads(capsys.readouterr().out)

    return run


def test_a_classifier(inspect):
    found = inspect(TINY)
    module = resolve(TINY)
    files = [path for path in module.path.rglob("*") if path.is_file()]
    assert (found["handle"], found["format"], found["fingerprint"]) == (TINY, "tf1_hub", module.fingerprint)
    assert (found["files"], found["bytes"]) == (len(files), sum(path.stat().st_size for path in files))
    assert 0 < found["artifact_bytes"] < found["bytes"]
    assert (found["height"], found["width"], found["input_range"]) == (32, 32, [0, 1])
    assert (found["num_classes"], found["class_names"], found["embedding_dim"]) == (11, None, 64)
    assert (found["logits"], found["features"]) == (
        "image_classification:default",
        "image_feature_vector:default",
    )
    assert (found["engine"], found["precision"], found["notes"]) == ("litert", "float32", [])
    assert found["cores"] == len(os.sched_getaffinity(0))
    assert found["images_per_second"] > found["images_per_second_decoded"] > 0
    signatures = {one["name"]: one for one in found["signatures"]}
    assert list(signatures) == ["image_classification", "image_feature_vector", "default"]
    images = {"key": "images", "dtype": "float32", "shape": [None, 32, 32, 3]}
    assert signatures["image_classification"]["inputs"] == [images]
    outputs = signatures["image_classification"]["outputs"]
    assert outputs[0] == {"key": "default", "dtype": "float32", "shape": [None, 11]}
    assert {"key": "MobilenetV2/Conv", "dtype": "float32", "shape": [None, 16, 16, 32]} in outputs


def test_the_command_says_it_in_text(tmp_path):
    names = tmp_path / "names.txt"
    names.write_text("".join(f"class {number}\n" for number in range(11)))
    done = command("inspect", TINY, "--labels", names, "--engine", "tensorflow")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == f"module       {TINY}"
    for line in (
        "format       TF1 Hub module (tf1_hub)",
        f"fingerprint  {resolve(TINY).fingerprint}",
        "input        32 x 32 pixels (height x width), RGB from 0 to 1",
        f"classes      11, named by {names}; logits from image_classification:default",
        "features     64, from image_feature_vector:default",
        f"engine       tensorflow float32, on {len(os.sched_getaffinity(0))} cores",
        "signatures",
    ):
        assert line in lines
    assert any(
        line.startswith("speed  ") and "images/s: the module alone, 128 at a time" in line for line in lines
    )
    assert any("images/s: including the decoding of JPEGs of 500x375 pixels" in line for line in lines)
    assert any(line.split() == ["->", "default", "float32", "[?,", "64]"] for line in lines)


def test_features_alone_and_one_output_left_out(inspect):
    found = inspect(TINY_FEATURES)
    assert (found["logits"], found["num_classes"], found["class_names"]) == (None, None, None)
    assert (found["features"], found["height"]) == ("image_feature_vector:default", 48)
    found = inspect(TINY, "--features_output", "none", "--input_range", "-1,1", "--batch_size", 8)
    assert (found["features"], found["embedding_dim"], found["num_classes"]) == (None, None, 11)
    assert (found["input_range"], found["batch_size"]) == ([-1, 1], 8)


def test_the_computing_engine_and_its_reason_are_reported(inspect):
    found = inspect(TINY, "--precision", "bfloat16")
    assert found["engine"] == "openvino"
    if found["precision"] == "float32":
        assert any("float32" in note for note in found["notes"])
    else:
        assert cpu.bfloat16_units()
        assert found["notes"] == []


def test_the_reason_against_litert_is_reported(inspect, tmp_path):
    """LiteRT has no operation for the inverse of a matrix."""
    import tensorflow as tf

    class Inverse(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None, 8, 8, 3], tf.float32, "images")])
        def serve(self, images):
            pooled = tf.reduce_mean(images, [1, 2])
            return {"logits": tf.reduce_sum(tf.linalg.inv(tf.eye(3)[None] + pooled[:, :, None]), 2)}

    module = Inverse()
    tf.saved_model.save(module, str(tmp_path / "module"), signatures=module.serve)
    found = inspect(tmp_path / "module")
    assert (found["engine"], found["num_classes"]) == ("tensorflow", 3)
    assert any("runs on TensorFlow" in note and "MatrixInverse" in note for note in found["notes"])
    again = inspect(tmp_path / "module")
    assert again["notes"] == found["notes"], "also when it comes from the cache"


@pytest.mark.long
def test_keras_exports_and_the_demo(inspect, tmp_path):
    from support.tf_modules import keras_classifier

    keras_classifier().save(tmp_path / "model.keras")
    found = inspect(tmp_path / "model.keras", "--input_range", "0,255")
    assert (found["format"], found["files"], found["num_classes"]) == ("keras_file", 1, 5)
    assert found["gives_probabilities"]
    assert (found["height"], found["width"]) == (16, 20)
    outputs = [one["dtype"] for signature in found["signatures"] for one in signature["outputs"]]
    assert set(outputs) == {"float32"}

    found = inspect("demo")
    assert (found["handle"], found["num_classes"], found["class_names"]) == ("demo", 1000, "ImageNet")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["/no/such/module"], "MODULE: module /no/such/module: no such file or directory"),
        ([TINY, "--image_size", "64"], "it only takes images of 32x32"),
        ([TINY, "--logits_output", "nothing"], "--logits_output nothing: no such output"),
        ([TINY, "--labels", "/no/such/names"], "--labels '/no/such/names'"),
        ([TINY, "--engine", "abacus"], "invalid choice: 'abacus'"),
        ([TINY, "--engine", "tensorflow", "--precision", "bfloat16"], "bfloat16"),
    ],
)
def test_mistakes_are_usage_errors(arguments, message):
    with pytest.raises(UsageError) as caught:
        main(arguments)
    assert message in str(caught.value)
