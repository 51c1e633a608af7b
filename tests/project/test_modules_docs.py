"""docs/modules.md agrees with the code; tests/transforms tests the behavior itself."""

import itertools
import re

import numpy as np
import pytest

from beamlabel.pipeline.options.declare import declared
from beamlabel.pipeline.options.job_options import ModuleOptions
from beamlabel.pipeline.options.parser import parse
from beamlabel.transforms.inference.artifact import ModuleError
from beamlabel.transforms.inference.probe import probe_batch
from beamlabel.transforms.module import score_kind
from beamlabel.transforms.module.steadiness import check_steady
from beamlabel.transforms.own_module.description import (
    ASSETS,
    CLASSIFICATION,
    DESCRIPTION,
    FEATURE_VECTOR,
    FEATURES_KEY,
    HEAD,
    HEAD_BIAS,
    HEAD_KERNEL,
    LABELS,
    LOGITS_KEY,
    SERVING,
)
from beamlabel.transforms.rows import metadata_keys
from support.paths import ROOT

TEXT = (ROOT / "docs" / "modules.md").read_text()
TEXT, OWN = TEXT.split("## Modules of your own classes")
TOLERANCES = re.findall(r"\b\de-\d\b", TEXT)


def test_the_kinds_of_scores():
    rows = re.findall(r"^\| `(\w+)` \| .* \| (?:`(\w+)`|refused.*) \|$", TEXT, re.MULTILINE)
    assert [kind for kind, _ in rows] == list(score_kind.KINDS)
    assert {kind for kind, auto in rows if auto == "softmax"} == {"logits", "log_probabilities"}
    assert [kind for kind, auto in rows if not auto] == ["unclear"]


def test_the_options_are_options():
    named = set(re.findall(r"--\w+", TEXT))
    assert named == {
        "--input_range",
        "--image_size",
        "--logits_output",
        "--features_output",
        "--scores",
        "--module",
        "--module_deadline",
        "--module_memory",
        "--module_fingerprint",
        "--allow_unsafe_ops",
    }
    words = ["--module", "m", "--input", "i", "--output", "o", "--image_size", "8", "--scores", "sigmoid"]
    words += ["--module_deadline", "20m", "--module_memory", "8G", "--module_fingerprint", "0" * 64]
    words += ["--allow_unsafe_ops"]
    parse([*words, "--input_range", "0,255", "--logits_output", "none", "--features_output", "none"])


def test_the_options_of_own_modules_are_options():
    named = set(re.findall(r"--\w+", OWN))
    assert named <= {f"--{one.name}" for one in declared(ModuleOptions)} and named


def test_the_parts_of_own_modules_are_those_that_are_written():
    told = set(re.findall(r"`([^`]+)`", OWN))
    parts = {SERVING, CLASSIFICATION, FEATURE_VECTOR, HEAD, LOGITS_KEY, FEATURES_KEY, HEAD_KERNEL, HEAD_BIAS}
    assert parts | {f"{ASSETS}/{LABELS}", f"{ASSETS}/{DESCRIPTION}", metadata_keys.FEATURES_ID} <= told


@pytest.mark.parametrize(
    ("number", "precision"), zip(TOLERANCES, ("float32", "float16", "bfloat16"), strict=True)
)
def test_answers_may_differ_by_as_much_as_the_page_says(number, precision):
    """The differences are relative to the largest value, in the order of the page."""
    pixels = probe_batch(8, 8)

    def ask(images, more=0.0):
        return np.array([[1.0, 0.2]], np.float32).repeat(len(images), 0) + np.float32(more), None

    def check(difference):
        calls = itertools.count()
        check_steady(
            lambda images: ask(images, difference * (next(calls) % 2)),
            pixels,
            ask(pixels),
            precision=precision,
        )

    check(0.9 * float(number))
    with pytest.raises(ModuleError):
        check(1.1 * float(number) + 1e-6)
