"""Earlier rows with the features that this run would compute, also from versions without a features id."""

import json

import pytest

from beamlabel.pipeline.earlier.chosen_outputs import ChosenOutputs
from beamlabel.pipeline.earlier.features import WantedFeatures
from beamlabel.transforms.output_spec import features_id_of
from beamlabel.transforms.rows import metadata_keys

BASE = "f" * 64
DEFAULT = f"{BASE}:image_feature_vector:default"
PREPROCESSING = {"height": 32, "width": 32, "crop": None, "scores": "softmax", "precision": "float32"}


def wanted(of=DEFAULT, dimension=8, **preprocessing):
    return WantedFeatures(features_id_of({**PREPROCESSING, **preprocessing}, of), of, dimension)


def metadata(told=None, **changes):
    made = {
        metadata_keys.SCHEMA_VERSION: "2",
        metadata_keys.MODULE_FINGERPRINT: BASE,
        metadata_keys.EMBEDDING_DIM: "8",
        metadata_keys.PREPROCESSING: json.dumps(PREPROCESSING, sort_keys=True),
        **changes,
    }
    return made if told is None else {**made, metadata_keys.FEATURES_ID: told}


def manifest(kind="tf1_hub", **options):
    return {"module": {"kind": kind}, "options": options}


def test_the_metadata_tell():
    assert wanted().are_of(metadata(wanted().features_id), None)
    assert not wanted().are_of(metadata("0" * 64), manifest())
    assert not wanted(dimension=9).are_of(metadata(wanted().features_id), manifest())
    assert not wanted().are_of(
        metadata(wanted().features_id, **{metadata_keys.SCHEMA_VERSION: "1"}), manifest()
    )


def test_scores_decide_no_features_and_all_else_does():
    assert wanted(scores="none").are_of(metadata(), manifest())
    for change in ({"crop": 0.875}, {"precision": "bfloat16"}, {"normalize_embeddings": True}):
        assert not wanted(**change).are_of(metadata(), manifest())


@pytest.mark.parametrize(
    ("name", "told", "kind", "is_sure"),
    [
        ("image_feature_vector:default", None, "tf1_hub", True),
        ("image_feature_vector:default", "image_feature_vector", "tf1_hub", True),
        ("image_feature_vector:default", "image_feature_vector:default", "tf1_hub", True),
        ("image_feature_vector:default", "default", "tf1_hub", False),
        ("image_feature_vector:default", "image_feature_vector:MobilenetV2/Logits", "tf1_hub", False),
        ("image_feature_vector:default", None, "tf2_saved_model", False),
        ("image_feature_vector:other", None, "tf1_hub", False),
        ("serving_default:features", "serving_default:features", "tf2_saved_model", True),
        ("serving_default:features", "features", "tf2_saved_model", False),
        ("serving_default:features", None, "tf2_saved_model", False),
    ],
)
def test_of_earlier_versions_only_what_is_sure(name, told, kind, is_sure):
    one = wanted(of=f"{BASE}:{name}")
    assert one.are_of(metadata(), manifest(kind, features_output=told)) is is_sure


def test_without_a_manifest_nothing_is_sure_of_earlier_versions():
    assert not wanted().are_of(metadata(), None)
    assert not wanted().are_of(metadata(**{metadata_keys.MODULE_FINGERPRINT: "e" * 64}), manifest())
    assert not wanted().are_of(metadata(**{metadata_keys.PREPROCESSING: "{"}), manifest())


@pytest.mark.parametrize(
    ("one", "other", "classes", "embeddings"),
    [
        (ChosenOutputs(), ChosenOutputs(), True, True),
        (ChosenOutputs("a"), ChosenOutputs("b"), False, True),
        (ChosenOutputs("a"), ChosenOutputs(), False, True),
        (ChosenOutputs(None, "a"), ChosenOutputs(None, "b"), True, False),
        (ChosenOutputs(None, "a", "1"), ChosenOutputs(None, "b", "1"), True, True),
        (ChosenOutputs(None, "a", "1"), ChosenOutputs(None, "a", "2"), True, False),
        (ChosenOutputs(None, "a", "1"), ChosenOutputs(None, "a"), True, True),
        (ChosenOutputs(None, "a", "1"), ChosenOutputs(None, "b"), True, False),
    ],
)
def test_rows_by_the_same_outputs(one, other, classes, embeddings):
    for first, second in ((one, other), (other, one)):
        assert first.agree(second, classes=True, embeddings=False) is classes
        assert first.agree(second, classes=False, embeddings=True) is embeddings
        assert first.agree(second, classes=True, embeddings=True) is (classes and embeddings)
        assert first.agree(second, classes=False, embeddings=False)
