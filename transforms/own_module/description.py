"""An own module's description: ``assets/beamlabel.json`` and ``assets/labels.txt`` in its SavedModel."""

from __future__ import annotations

import dataclasses
import json
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from beamlabel.transforms.inference.artifact import ModuleError
from beamlabel.transforms.own_module.head import SOFTMAX
from beamlabel.transforms.shapes import COUNT, FLAG, NUMBER, TEXT, check, optional, parse

ASSETS = "assets"
DESCRIPTION = "beamlabel.json"
LABELS = "labels.txt"
FORMAT = 1

_SHAPE = {
    "scores": TEXT,
    "normalizes": FLAG,
    "height": COUNT,
    "width": COUNT,
    "input_range": [NUMBER],
    "features_of": TEXT,
    "base": TEXT,
    "base_fingerprint": TEXT,
    "decoding": {"crop?": optional(NUMBER), "color_profile?": optional(TEXT)},
    "trainable?": FLAG,
}
# Signatures and attributes of the SavedModel.
CLASSIFICATION, FEATURE_VECTOR, SERVING, HEAD = (
    "image_classification", "image_feature_vector", "serving_default", "head",
)  # fmt: skip
LOGITS_KEY, FEATURES_KEY = "logits", "feature_vector"
HEAD_KERNEL, HEAD_BIAS = "head_kernel", "head_bias"


@dataclass(frozen=True)
class Description:
    """The description of an own module.

    Attributes:
      class_names: in the order of the logits.
      scores: ``softmax`` or ``sigmoid``, see ``Head``.
      normalizes: see ``Head``.
      height, width: size of the module's input images, in pixels.
      input_range: the input values for black and white.
      features_of: the network whose output the features are, see ``ModelSpec.features_of``. Empty for a fine-tuned
        module, whose features are its own: its fingerprint covers this file, which so cannot contain it.
      base: the handle of the base module, without credentials.
      base_fingerprint: the fingerprint of the base module.
      decoding: how the head's training images were decoded: ``crop``, ``color_profile``.
      trainable: whether the base has trainable variables, so that the module can be fine-tuned; otherwise its weights
        are constants.
    """

    class_names: tuple[str, ...]
    scores: str
    normalizes: bool
    height: int
    width: int
    input_range: tuple[float, float]
    features_of: str
    base: str
    base_fingerprint: str
    decoding: dict[str, Any]
    trainable: bool = True

    def to_json(self) -> str:
        """The content of ``assets/beamlabel.json``; the class names are in ``assets/labels.txt``."""
        value = {"format": FORMAT, **dataclasses.asdict(self)}
        del value["class_names"]
        return json.dumps(value, indent=1, sort_keys=True)


def check_class_names(names: Sequence[str], scores: str) -> None:
    """Checks that a module can have classes with these names.

    Args:
      names: in the order of the logits.
      scores: see ``Head``.

    Raises:
      ModuleError: no class; one class, so its softmax would always be 1; two have the same name; or a
        name is empty, has a line break or another control character, or cannot be written in UTF-8.
    """
    if not names:
        raise ModuleError("a module needs at least two classes, and this one has none")
    if len(names) == 1 and scores == SOFTMAX:
        raise ModuleError(
            f"there is only one class, {names[0]!r}; softmax needs two, since one would always score 1"
        )
    for place, name in enumerate(names):
        if not name.strip():
            raise ModuleError(f"class {place} has the name {name!r}; every class needs a name")
        if any(unicodedata.category(one) in ("Cc", "Cs") for one in name):
            raise ModuleError(
                f"class {place} has the name {name!r}; names cannot have line breaks or control characters"
            )
    if len(set(names)) < len(names):
        twice = next(name for name, count in Counter(names).items() if count > 1)
        raise ModuleError(f"two classes have the name {twice!r}")


def read_description(module: Path) -> Description | None:
    """The description in a module's directory; None for a module that ``beamlabel train`` did not write.

    Raises:
      ModuleError: the description is damaged, or a later version of beamlabel wrote it.
    """
    path = module / ASSETS / DESCRIPTION
    if not path.is_file():
        return None
    try:
        value = parse(path.read_bytes())
        written = value.pop("format")
        if written != FORMAT:
            raise ModuleError(
                f"{path}: a later version of beamlabel wrote format {written}; update beamlabel"
            )
        check(value, _SHAPE)
        names = tuple((path.parent / LABELS).read_text(encoding="utf-8").removesuffix("\n").split("\n"))
        low, high = value["input_range"]
        return Description(class_names=names, **{**value, "input_range": (float(low), float(high))})
    except ModuleError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ModuleError(f"{path} is damaged: {type(error).__name__}: {error}") from error
