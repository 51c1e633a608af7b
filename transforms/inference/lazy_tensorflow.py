"""TensorFlow, imported when it is first needed: it takes seconds and a gigabyte that most steps do without."""

from __future__ import annotations

import os
import sys
import warnings
from contextlib import suppress
from typing import Any

from beamlabel.transforms.extras.install import install_extra
from beamlabel.transforms.inference.artifact import ModuleError
from beamlabel.transforms.worker.native_stderr import without_native_lines


def tensorflow() -> Any:
    """The ``tensorflow`` package, its C++ log quieted unless the environment says otherwise.

    Raises:
      ModuleError: it is not installed.
    """
    # 3, and not 2: where there is no GPU, TensorFlow calls that an error. Errors of ours to see are exceptions.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if "tensorflow" not in sys.modules:
        with suppress(ImportError), without_native_lines():
            import tensorflow  # noqa: F401
    try:
        import tensorflow as tf
    except ImportError as error:
        raise ModuleError(f"TensorFlow cannot be imported ({error}): {install_extra('launcher')}") from error
    return tf


def tensorflow_hub() -> Any:
    """The ``tensorflow_hub`` package, which imports TensorFlow.

    Raises:
      ModuleError: one of the two is not installed.
    """
    tensorflow()
    try:
        with warnings.catch_warnings():
            # It imports pkg_resources, which warns of itself.
            warnings.simplefilter("ignore")
            import tensorflow_hub as hub
    except ImportError as error:
        raise ModuleError(
            f"tensorflow-hub cannot be imported ({error}): {install_extra('launcher')}"
        ) from error
    return hub
