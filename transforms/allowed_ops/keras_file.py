"""Finds parts in a ``.keras`` file's layer description that are not Keras's own, read files or run code."""

from __future__ import annotations

import json
import lzma
import re
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from beamlabel.transforms.allowed_ops.operations import Finding

_CONFIG = "config.json"
# https://keras.io/api/models/model_saving_apis/serialization_utils/: each object names its module and its class. Other
# parts of Keras, such as keras.utils, have functions that fetch and unpack files.
_MODULES = re.compile(
    r"keras(\.src)?(\.(layers|models|initializers|regularizers|constraints|activations|dtype_policies|quantizers|losses|"
    r"metrics|optimizers|ops|random|applications|backend)(\.\w+)*)?|builtins"
)
# Modules whose classes are parts of a model, but whose functions fetch and load models.
_LOADERS = re.compile(r"keras(\.src)?\.(models|applications|layers)(\.\w+)*|keras(\.src)?")
# Layers that run code from the file, or load a SavedModel or a pickle from another file.
_CLASSES = frozenset({"Lambda", "__lambda__", "TFSMLayer", "TorchModuleWrapper", "JaxLayer", "FlaxLayer"})
# Settings in which a string instead of a list names a file.
_FILES = ("vocabulary", "idf_weights")


def unsafe_in_keras_file(path: Path) -> list[Finding]:
    """The unsafe parts of a ``.keras`` file; empty for a damaged file, which Keras refuses."""
    try:
        with zipfile.ZipFile(path) as archive:
            config = json.loads(archive.read(_CONFIG))
    except (
        OSError,
        ValueError,
        KeyError,
        RecursionError,
        NotImplementedError,
        RuntimeError,
        EOFError,
        zlib.error,
        lzma.LZMAError,
        zipfile.BadZipFile,
    ):
        return []
    return [finding for one in _objects(config) for finding in _findings(one)]


def _objects(config: Any) -> Iterator[dict[str, Any]]:
    waiting = [config]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            if "class_name" in value:
                yield value
            waiting += reversed(value.values())
        elif isinstance(value, list):
            waiting += reversed(value)


def _findings(one: dict[str, Any]) -> Iterator[Finding]:
    config = one.get("config")
    inner = config if isinstance(config, dict) else {}
    name, module = str(one["class_name"]), one.get("module")
    place = f"layer {inner['name']!r}" if isinstance(inner.get("name"), str) else _CONFIG
    if module is not None and not _MODULES.fullmatch(str(module)):
        yield Finding(f"{module}.{name}", place, "it is not a part of Keras that models consist of")
    elif name in _CLASSES:
        yield Finding(name, place, "it runs code or loads another file")
    elif name == "function" and (not re.fullmatch(r"\w+", str(config)) or _LOADERS.fullmatch(str(module))):
        yield Finding(str(config), place, "it is not a Keras function that layers compute with")
    for key in _FILES:
        if isinstance(inner.get(key), str):
            yield Finding(name, place, f"its {key} is read from another file")
