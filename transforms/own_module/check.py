"""What an own module says of itself, compared with what it is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from beamlabel.transforms.inference.artifact import ModuleError
from beamlabel.transforms.inference.lazy_tensorflow import tensorflow
from beamlabel.transforms.own_module.description import (
    FEATURES_KEY,
    HEAD_BIAS,
    HEAD_KERNEL,
    LOGITS_KEY,
    Description,
    check_class_names,
)
from beamlabel.transforms.own_module.head import Head

# Largest difference of its logits from its head's, relative to the largest.
_TOLERANCE = 1e-3
# Of the terms that a logit is the sum of: those of a head that was trained on standardized features cancel each other.
ROUNDING = 0.01
_SIGNATURE = "{}/.ATTRIBUTES/VARIABLE_VALUE"


def read_head(module: Path, description: Description) -> Head:
    """The head of an own module; imports TensorFlow.

    Raises:
      ModuleError: it is damaged, or not what the description says.
    """
    try:
        reader = tensorflow().train.load_checkpoint(str(module / "variables" / "variables"))
        kernel, bias = (reader.get_tensor(_SIGNATURE.format(name)) for name in (HEAD_KERNEL, HEAD_BIAS))
        head = Head(kernel, bias, description.scores, description.normalizes)
    except Exception as error:
        # TensorFlow raises kinds of its own for files that are damaged, and for names that are not there.
        raise ModuleError(f"its head is damaged ({type(error).__name__}: {error})") from error
    if len(description.class_names) != head.bias.shape[0]:
        raise ModuleError(
            f"its assets name {len(description.class_names)} classes, and its head has {head.bias.shape[0]}: damaged"
        )
    return head


def input_range(description: Description, given: tuple[float, float] | None) -> tuple[float, float]:
    """The one range that an own module takes.

    Raises:
      ModuleError: another one is given.
    """
    if given is not None and tuple(given) != description.input_range:
        low, high = description.input_range
        raise ModuleError(
            f"its head was trained with --input_range {low:g},{high:g}, and {given[0]:g},{given[1]:g} is given: leave "
            "the option out"
        )
    return description.input_range


def check(
    module: Path, description: Description, size: tuple[int, int], values: Mapping[str, np.ndarray]
) -> None:
    """Compares a description with what the module gives for some images.

    Args:
      module: its folder.
      description: what it says.
      size: height and width that it takes.
      values: what it gives by the key of the output, float32[N, D].

    Raises:
      ModuleError: they do not fit, or an output is not one of the head or its features.
    """
    check_class_names(description.class_names, description.scores)
    head = read_head(module, description)
    if size != (description.height, description.width):
        raise ModuleError(
            f"it takes {size[0]}x{size[1]} pixels, and says {description.height}x{description.width}"
        )
    if others := values.keys() - {LOGITS_KEY, FEATURES_KEY}:
        raise ModuleError(
            f"{', '.join(sorted(others))}: neither the logits nor the features of a module of beamlabel train"
        )
    logits, features = values.get(LOGITS_KEY), values.get(FEATURES_KEY)
    if logits is not None and features is not None:
        if features.shape[1] != head.kernel.shape[0]:
            raise ModuleError(
                f"it gives {features.shape[1]} features, and its head takes {head.kernel.shape[0]}"
            )
        expected = head.logits(features)
        largest = max(1.0, float(np.abs(expected).max()), ROUNDING * head.magnitude(features))
        if logits.shape != expected.shape or not np.allclose(
            logits, expected, rtol=0, atol=_TOLERANCE * largest
        ):
            raise ModuleError("its logits are not its head's: files of two modules are mixed")
