"""What TensorFlow writes otherwise each time, taken out of a SavedModel, so that its fingerprint tells its content."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from beamlabel.transforms.hub.files import SAVED_MODEL
from beamlabel.transforms.inference.lazy_tensorflow import tensorflow

# Holds a random number and a checksum of the graph; loaders do without it.
_FINGERPRINT = "fingerprint.pb"
# An attribute of what a function takes.
_GIVEN_NAME = "_user_specified_name"
# TensorFlow numbers the functions of a process as they are made.
_NUMBERED = re.compile(r"(.*?)_?(\d+)$", re.DOTALL)


def make_canonical(folder: Path) -> None:
    """Rewrites the SavedModel in a folder.

    Functions are named by their order and not by the process's counter, ``fingerprint.pb`` goes, and maps are
    written in the order of their keys.
    """
    tensorflow()
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    path = folder / SAVED_MODEL
    model = SavedModel.FromString(path.read_bytes())
    for meta_graph in model.meta_graphs:
        library = meta_graph.graph_def.library
        names = _names([function.signature.name for function in library.function])
        _rename(meta_graph, names)
        for function in library.function:
            for arguments in function.arg_attr.values():
                _drop_number(arguments.attr)
            for node in function.node_def:
                _drop_number(node.attr)
                # Where inlined nodes came from, by names of functions that are no more.
                node.ClearField("experimental_debug_info")
        ordered = sorted(library.function, key=lambda function: function.signature.name)
        copies = [type(function).FromString(function.SerializeToString()) for function in ordered]
        del library.function[:]
        library.function.extend(copies)
    path.write_bytes(model.SerializeToString(deterministic=True))
    (folder / _FINGERPRINT).unlink(missing_ok=True)


def _names(functions: list[str]) -> dict[str, str]:
    """A name for each, by the order in which the process made them."""

    def made(name: str) -> tuple[int, str]:
        match = _NUMBERED.match(name)
        return (int(match[2]), match[1]) if match else (-1, name)

    found = {}
    for place, name in enumerate(sorted(functions, key=made)):
        match = _NUMBERED.match(name)
        found[name] = f"{match[1] if match else name}_{place}"
    return found


def _drop_number(attributes: Any) -> None:
    """Removes the name that nobody gave: a number of the process."""
    if _GIVEN_NAME in attributes and attributes[_GIVEN_NAME].s.isdigit():
        del attributes[_GIVEN_NAME]


def _rename(message: Any, names: dict[str, str]) -> None:
    """Replaces names of functions wherever they stand in a message."""
    for field, value in list(message.ListFields()):
        if field.type == field.TYPE_MESSAGE:
            if field.message_type.GetOptions().map_entry:
                _rename_map(field, value, names)
            else:
                for one in _each(field, value):
                    _rename(one, names)
        elif field.type == field.TYPE_STRING:
            if _is_repeated(field, value):
                value[:] = [names.get(one, one) for one in value]
            elif value in names:
                setattr(message, field.name, names[value])


def _rename_map(field: Any, value: Any, names: dict[str, str]) -> None:
    kind = field.message_type.fields_by_name["value"]
    for key in list(value):
        if kind.type == kind.TYPE_MESSAGE:
            _rename(value[key], names)
        if key in names:
            if kind.type == kind.TYPE_MESSAGE:
                value[names[key]].CopyFrom(value[key])
            else:
                value[names[key]] = value[key]
            del value[key]


def _each(field: Any, value: Any) -> Iterator[Any]:
    yield from value if _is_repeated(field, value) else [value]


def _is_repeated(field: Any, value: Any) -> bool:
    return not isinstance(value, str) and hasattr(value, "append")
