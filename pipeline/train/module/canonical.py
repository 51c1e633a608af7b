"""Removes random parts from a SavedModel, so that its fingerprint depends on its content alone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from beamlabel.transforms.hub.files import SAVED_MODEL
from beamlabel.transforms.inference.lazy_tensorflow import tensorflow

# Holds a random number and a checksum of the graph; loaders do not need it.
_FINGERPRINT = "fingerprint.pb"
# An attribute of a function's arguments; TensorFlow fills in a number if there is no name.
_GIVEN_NAME = "_user_specified_name"
# TensorFlow numbers the functions of a process in order of creation.
_NUMBERED = re.compile(r"(.*?)_?(\d+)$", re.DOTALL)


def make_canonical(directory: Path) -> None:
    """Rewrites the SavedModel in a directory.

    Names functions by their order instead of the process's counter, removes ``fingerprint.pb`` and writes maps in
    the order of their keys.
    """
    tensorflow()
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    path = directory / SAVED_MODEL
    model = SavedModel.FromString(path.read_bytes())
    for meta_graph in model.meta_graphs:
        library = meta_graph.graph_def.library
        names = _names([function.signature.name for function in library.function])
        _rename(meta_graph, _Renamer(names))
        for function in library.function:
            for arguments in function.arg_attr.values():
                arguments.attr.pop(_GIVEN_NAME, None)
            for node in function.node_def:
                node.attr.pop(_GIVEN_NAME, None)
                # The origin of inlined nodes, which names functions that no longer exist.
                node.ClearField("experimental_debug_info")
        ordered = sorted(library.function, key=lambda function: function.signature.name)
        copies = [type(function).FromString(function.SerializeToString()) for function in ordered]
        del library.function[:]
        library.function.extend(copies)
    path.write_bytes(model.SerializeToString(deterministic=True))
    (directory / _FINGERPRINT).unlink(missing_ok=True)


def _names(functions: list[str]) -> dict[str, str]:
    """A new name for each function, in order of creation."""

    def made(name: str) -> tuple[int, str]:
        match = _NUMBERED.match(name)
        return (int(match[2]), match[1]) if match else (-1, name)

    found = {}
    for place, name in enumerate(sorted(functions, key=made)):
        match = _NUMBERED.match(name)
        found[name] = f"{match[1] if match else name}_{place}"
    return found


class _Renamer:
    """Replaces names of functions, also inside argument names, which loops derive from them."""

    def __init__(self, names: dict[str, str]) -> None:
        self._names = names
        # Match the longest name first, and never a part of a number.
        texts = sorted(map(re.escape, names), key=len, reverse=True)
        self._any = re.compile(f"(?:{'|'.join(texts)})(?![0-9])") if names else None

    def __call__(self, text: str) -> str:
        return text if self._any is None else self._any.sub(lambda match: self._names[match[0]], text)


def _rename(message: Any, renamed: _Renamer) -> None:
    """Replaces names of functions everywhere in a message."""
    for field, value in list(message.ListFields()):
        if field.type == field.TYPE_MESSAGE:
            if field.message_type.GetOptions().map_entry:
                _rename_map(field, value, renamed)
            else:
                for one in _each(field, value):
                    _rename(one, renamed)
        elif field.type == field.TYPE_STRING:
            if _is_repeated(field, value):
                value[:] = [renamed(one) for one in value]
            elif renamed(value) != value:
                setattr(message, field.name, renamed(value))


def _rename_map(field: Any, value: Any, renamed: _Renamer) -> None:
    kind = field.message_type.fields_by_name["value"]
    for key in list(value):
        if kind.type == kind.TYPE_MESSAGE:
            _rename(value[key], renamed)
        elif kind.type == kind.TYPE_STRING:
            value[key] = renamed(value[key])
        other = renamed(key) if isinstance(key, str) else key
        if other != key:
            if kind.type == kind.TYPE_MESSAGE:
                value[other].CopyFrom(value[key])
            else:
                value[other] = value[key]
            del value[key]


def _each(field: Any, value: Any) -> Iterator[Any]:
    yield from value if _is_repeated(field, value) else [value]


def _is_repeated(field: Any, value: Any) -> bool:
    return not isinstance(value, str) and hasattr(value, "append")
