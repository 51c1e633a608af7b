"""TensorFlow, imported when it is first needed: it takes seconds and a gigabyte that most steps do without."""

from __future__ import annotations

import os
from typing import Any

from beamlabel.transforms.inference.artifact import ModuleError


def tensorflow() -> Any:
    """The ``tensorflow`` package, its C++ log quieted unless the environment says otherwise.

    Raises:
      ModuleError: it is not installed.
    """
    # 3, and not 2: where there is no GPU, TensorFlow calls that an error. Errors of ours to see are exceptions.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        import tensorflow as tf
    except ImportError as error:
        raise ModuleError(
            f"TensorFlow cannot be imported ({error}): pip install 'beamlabel[launcher]'"
        ) from error
    return tf
