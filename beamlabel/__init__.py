"""Batch image labeling with TensorFlow Hub modules on Apache Beam."""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

# The public names and their modules. They are imported when they are first asked for, so that ``import beamlabel``
# and ``beamlabel --help`` import neither Beam nor TensorFlow.
_PUBLIC = {
    "FailedImage": "beamlabel.transforms.elements.result_types",
    "LabelImages": "beamlabel.transforms.label_images",
    "LabeledImage": "beamlabel.transforms.elements.result_types",
    "LabeledImages": "beamlabel.transforms.elements.split_outcomes",
    "LoadImages": "beamlabel.transforms.load_images",
    "ModelHandler": "beamlabel.transforms.model_handler",
    "Predict": "beamlabel.transforms.predict",
    "SplitOutcomes": "beamlabel.transforms.elements.split_outcomes",
    "WriteLabels": "beamlabel.transforms.write_labels",
}

__all__ = [
    "FailedImage",
    "LabelImages",
    "LabeledImage",
    "LabeledImages",
    "LoadImages",
    "ModelHandler",
    "Predict",
    "SplitOutcomes",
    "WriteLabels",
    "__version__",
]


def __getattr__(name: str) -> Any:
    try:
        module = _PUBLIC[name]
    except KeyError:
        raise AttributeError(f"module 'beamlabel' has no attribute {name!r}") from None
    value = getattr(importlib.import_module(module), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
