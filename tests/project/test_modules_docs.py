"""docs/modules.md says what the code does; the behaviour itself is tested in tests/transforms."""

import re

from beamlabel.pipeline.options.parser import parse
from beamlabel.transforms.inference.options import DEFAULT_TOP_K
from beamlabel.transforms.inference.probe import PROBE_IMAGES, extreme_batch
from beamlabel.transforms.module import score_kind, steadiness
from beamlabel.transforms.module.freeze import MAX_GRAPH_BYTES
from support.paths import ROOT

TEXT = (ROOT / "docs" / "modules.md").read_text()


def test_the_kinds_of_scores():
    rows = re.findall(r"^\| `(\w+)` \| .* \| (?:`(\w+)`|refused.*) \|$", TEXT, re.MULTILINE)
    assert [kind for kind, _ in rows] == list(score_kind.KINDS)
    assert {kind for kind, auto in rows if auto == "softmax"} == {"logits", "log_probabilities"}
    assert [kind for kind, auto in rows if not auto] == ["unclear"]


def test_the_options_are_options():
    named = set(re.findall(r"--\w+", TEXT))
    assert named == {"--input_range", "--image_size", "--logits_output", "--features_output", "--scores"}
    words = ["--module", "m", "--input", "i", "--output", "o", "--image_size", "8", "--scores", "sigmoid"]
    parse([*words, "--input_range", "0,255", "--logits_output", "none", "--features_output", "none"])


def test_the_numbers():
    assert PROBE_IMAGES + len(extreme_batch(2, 2)) == 12 and "twelve unlike images" in TEXT
    assert f"`top_k` is {DEFAULT_TOP_K}, or all" in TEXT
    assert MAX_GRAPH_BYTES < 2 * 2**30
    assert [steadiness._TOLERANCES[name] for name in ("float32", "float16", "bfloat16")] == [1e-3, 4e-3, 3e-2]
    assert all(text in TEXT for text in ("by 1e-3 of the largest", "4e-3 in float16", "3e-2 in bfloat16"))
