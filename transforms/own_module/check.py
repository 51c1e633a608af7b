"""Compares an own module's description with the module itself."""

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

# Largest difference between the module's logits and its head's, relative to the largest logit.
_TOLERANCE = 1e-3
# Relative to the terms of a logit's sum, since those of a head trained on standardized features cancel each other.
ROUNDING = 0.01
_SIGNATURE = "{}/.ATTRIBUTES/VARIABLE_VALUE"


def read_head(module: Path, description: Description) -> Head:
    """Reads the head of an own module; imports TensorFlow.

    Raises:
      ModuleError: the head is damaged, or does not match the description.
    """
    try:
        reader = tensorflow().train.load_checkpoint(str(module / "variables" / "variables"))
        kernel, bias = (reader.get_tensor(_SIGNATURE.format(name)) for name in (HEAD_KERNEL, HEAD_BIAS))
        head = Head(kernel, bias, description.scores, description.normalizes)
    except Exception as error:
        # TensorFlow raises exceptions of its own for damaged files and for missing names.
        raise ModuleError(f"its head is damaged ({type(error).__name__}: {error})") from error
    if len(description.class_names) != head.bias.shape[0]:
        raise ModuleError(
            f"the module is damaged: its assets name {len(description.class_names)} classes, but its head has "
            f"{head.bias.shape[0]}"
        )
    return head


def input_range(description: Description, given: tuple[float, float] | None) -> tuple[float, float]:
    """The only input range that an own module accepts.

    Raises:
      ModuleError: another range is given.
    """
    if given is not None and tuple(given) != description.input_range:
        low, high = description.input_range
        raise ModuleError(
            f"its head was trained with --input_range {low:g},{high:g}, but {given[0]:g},{given[1]:g} is given; leave "
            "the option out"
        )
    return description.input_range


def check(
    module: Path, description: Description, size: tuple[int, int], values: Mapping[str, np.ndarray]
) -> None:
    """Compares a description with the module's outputs for some images.

    Args:
      module: directory of the module.
      description: the module's description.
      size: height and width of the module's input.
      values: the module's outputs by key, float32[N, D].

    Raises:
      ModuleError: they do not match, or an output is neither the head's nor its features.
    """
    check_class_names(description.class_names, description.scores)
    head = read_head(module, description)
    if size != (description.height, description.width):
        raise ModuleError(
            f"it takes {size[0]}x{size[1]} pixels, but its description says {description.height}x{description.width}"
        )
    if others := values.keys() - {LOGITS_KEY, FEATURES_KEY}:
        raise ModuleError(
            f"{', '.join(sorted(others))}: neither the logits nor the features of a module written by beamlabel train"
        )
    logits, features = values.get(LOGITS_KEY), values.get(FEATURES_KEY)
    if logits is not None and features is not None:
        if features.shape[1] != head.kernel.shape[0]:
            raise ModuleError(
                f"it gives {features.shape[1]} features, but its head takes {head.kernel.shape[0]}"
            )
        expected = head.logits(features)
        largest = max(1.0, float(np.abs(expected).max()), ROUNDING * head.magnitude(features))
        if logits.shape != expected.shape or not np.allclose(
            logits, expected, rtol=0, atol=_TOLERANCE * largest
        ):
            raise ModuleError("its logits do not match its head; files of two modules are mixed")
