"""The command, ``LabelImages`` and ``PredictOptions`` derive the same scores, top k, names and sizes."""

import apache_beam as beam
import numpy as np
import pytest
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.testing.util import assert_that, equal_to

from beamlabel.transforms.derive import derive
from beamlabel.transforms.elements.references import ElementOptions, ToReferences
from beamlabel.transforms.hub.resolve import resolve_module
from beamlabel.transforms.inference.artifact import Artifact
from beamlabel.transforms.inference.options import PredictOptions, WishError, fitted
from beamlabel.transforms.label_images import Label, LabelImages
from beamlabel.transforms.load_images import LoadImages
from beamlabel.transforms.loading.fetch import FetchOptions
from beamlabel.transforms.loading.load_options import LoadOptions
from beamlabel.transforms.model_handler import ModelHandler
from beamlabel.transforms.module.compile import CompileOptions, compiled
from beamlabel.transforms.predict import Predict
from support.jobs import label, photos

tf = pytest.importorskip("tensorflow")

from support.tf_modules import Holder, images_spec, save_functions  # noqa: E402


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return tmp_path_factory.mktemp("derive")


def artifact_of(directory, name, function) -> Artifact:
    path = save_functions(
        directory / name, Holder(), {"serving_default": images_spec()}, serving_default=function
    )
    return compiled(resolve_module(path, directory), CompileOptions(), directory / "cache")


def colours(images):
    return tf.reduce_mean(images, [1, 2])


@pytest.fixture(scope="module")
def softmax(directory):
    """A module with three classes as probabilities."""
    return artifact_of(directory, "softmax", lambda images: {"probs": tf.nn.softmax(9 * colours(images))})


@pytest.fixture(scope="module")
def sigmoid(directory):
    """A module with one class as a probability."""
    return artifact_of(
        directory, "sigmoid", lambda images: {"probs": tf.sigmoid(9 * colours(images)[:, :1] - 4)}
    )


@pytest.fixture(scope="module")
def percent(directory):
    """A module with percentages, which are neither."""
    return artifact_of(
        directory, "percent", lambda images: {"scores": 100 * tf.nn.softmax(9 * colours(images))}
    )


@pytest.fixture(scope="module")
def features(directory):
    """A module without classes."""
    return artifact_of(directory, "features", lambda images: {"embedding": 3 * colours(images)})


def test_the_command_and_both_ways_of_a_pipeline_agree(softmax, sigmoid, directory, tmp_path):
    paths = photos(tmp_path, 3)
    listed = tmp_path / "list.txt"
    listed.write_text("".join(f"{path}\n" for path in paths))
    for name, artifact in (("softmax", softmax), ("sigmoid", sigmoid)):
        output = tmp_path / name
        job = label(output, "--input", listed, module=str(directory / name))
        assert job.code == 0
        by_command = [(row["uri"], row["class_ids"], rounded(row["scores"])) for row in job.rows]
        load = LoadOptions(FetchOptions(), derive(artifact).decode)
        options = PredictOptions(str(artifact.path), artifact.sha256)
        module = directory / name
        steps = {
            "public": LoadImages((8, 8)) | "P" >> Predict(module, top_k=5),
            "options": LoadImages((8, 8)) | "O" >> Predict.with_options(options),
            "label": ToReferences(ElementOptions()) | Label(load, derive(artifact, top_k=5).predict),
        }
        with beam.Pipeline(runner=FnApiRunner()) as p:
            uris = p | beam.Create(list(map(str, paths)))
            whole = (uris | LabelImages(module)).predictions
            shown = whole | beam.Map(lambda row: (row.uri, row.class_ids, rounded(row.scores)))
            assert_that(shown, equal_to(by_command), label="LabelImages")
            for way, step in steps.items():
                found = uris | way >> step | f"Shown {way}" >> beam.Map(shown_as)
                assert_that(found, equal_to(by_command), label=way)
        assert {len(ids) for _, ids, _ in by_command} == {artifact.spec.num_classes}
        assert all(abs(sum(scores) - 1) < 1e-4 for _, _, scores in by_command) == (name == "softmax")


def rounded(scores):
    return [round(float(score), 4) for score in scores]


def shown_as(prediction):
    return prediction.ref.uri, prediction.class_ids.tolist(), rounded(prediction.scores)


def test_what_is_derived(softmax, features):
    derived = derive(softmax, crop=0.5, class_names=["a", "b", "c"])
    assert (derived.decode.height, derived.decode.width, derived.decode.crop) == (8, 8, 0.5)
    assert (derived.predict.top_k, derived.predict.scores, derived.predict.embeddings) == (3, "none", False)
    assert derived.predict.class_names == ("a", "b", "c")
    assert derive(softmax, top_k=2, scores="sigmoid").predict.scores == "sigmoid"
    assert derive(softmax, class_names="none").predict.class_names is None
    assert fitted(derived.predict, softmax.spec) == derived.predict
    only = derive(features).predict
    assert (only.top_k, only.embeddings) == (0, True)


@pytest.mark.parametrize(
    ("name", "wishes", "argument"),
    [
        ("softmax", {"top_k": 4}, "top_k"),
        ("softmax", {"class_names": ["a", "b"]}, "class_names"),
        ("softmax", {"normalize_embeddings": True}, "normalize_embeddings"),
        ("sigmoid", {"scores": "softmax"}, "scores"),
        ("percent", {}, "scores"),
        ("features", {"top_k": 3}, "top_k"),
        ("features", {"embeddings": False}, "embeddings"),
        ("features", {"class_names": ["a", "b", "c"]}, "class_names"),
    ],
)
def test_impossible_wishes_are_refused_at_once(request, name, wishes, argument):
    artifact = request.getfixturevalue(name)
    with pytest.raises(WishError, match=argument) as caught:
        derive(artifact, **wishes)
    assert caught.value.argument == argument
    for transform in (LabelImages, Predict, ModelHandler):
        with pytest.raises(WishError, match=argument):
            transform(artifact.path, **wishes)


def test_imagenets_names_are_everybodys(directory):
    weights = np.random.default_rng(0).normal(0, 3, (3, 1001)).astype(np.float32)
    artifact = artifact_of(directory, "many", lambda images: {"logits": colours(images) @ weights})
    derived = derive(artifact).predict
    assert derived.class_names[0] == "background" and len(derived.class_names) == 1001
    (image,) = [np.zeros((8, 8, 3), np.uint8)]
    handler = ModelHandler(artifact.path)
    (result,) = handler.run_inference([image], handler.load_model())
    assert result.inference["labels"] == tuple(derived.class_names[i] for i in result.inference["class_ids"])


def test_unclear_scores_are_the_users_to_say(percent, directory, tmp_path, capsys):
    """The command names the option; with it, the run proceeds and records the finding in its metadata."""
    (path,) = photos(tmp_path, 1)
    (tmp_path / "list.txt").write_text(f"{path}\n")
    arguments = ("--input", tmp_path / "list.txt")
    refused = label(tmp_path / "refused", *arguments, module=str(directory / "percent"))
    assert refused.code == 2 and "--scores: it is not clear" in capsys.readouterr().err
    job = label(tmp_path / "said", *arguments, "--scores", "none", module=str(directory / "percent"))
    assert job.code == 0
    (row,) = job.rows
    assert sum(row["scores"]) == pytest.approx(100, abs=1e-2)
    manifest = job.manifest
    assert manifest["module"]["score_kind"] == "unclear" and manifest["module"]["scores"] is None
    assert manifest["metadata"]["beamlabel.scores"] == "none"
    assert manifest["metadata"]["beamlabel.scores_reason"].startswith("unclear: ")
