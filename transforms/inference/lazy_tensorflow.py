"""Imports TensorFlow on first use, since it takes seconds and a gigabyte, and most steps do not need it."""

from __future__ import annotations

import os
import sys
import warnings
from contextlib import suppress
from typing import Any

from beamlabel.transforms.extras.install import install_extra
from beamlabel.transforms.inference.artifact import ModuleError
from beamlabel.transforms.worker.keras_extras import without_keras_extras
from beamlabel.transforms.worker.native_stderr import without_native_lines


def tensorflow() -> Any:
    """The ``tensorflow`` package, with its C++ log silenced unless the environment sets a level.

    Raises:
      ModuleError: TensorFlow is not installed.
    """
    # 3, not 2: TensorFlow logs a missing GPU as an error. Errors that matter here are exceptions.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if "tensorflow" not in sys.modules:
        with suppress(ImportError), without_native_lines(), without_keras_extras():
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
            # tensorflow_hub imports pkg_resources, which warns about its deprecation.
            warnings.simplefilter("ignore")
            import tensorflow_hub as hub
    except ImportError as error:
        raise ModuleError(
            f"tensorflow-hub cannot be imported ({error}): {install_extra('launcher')}"
        ) from error
    return hub
