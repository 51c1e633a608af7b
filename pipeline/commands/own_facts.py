"""The facts that ``beamlabel inspect`` shows of a module that ``beamlabel train`` wrote."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from beamlabel.transforms import storage
from beamlabel.transforms.hub.resolve import ResolvedModule
from beamlabel.transforms.own_module.description import read_description
from beamlabel.transforms.shapes import COUNT, NUMBER, each, optional, parse

TRAINING = "_TRAINING.json"
_SHOWN_NAMES = 5
# Keys of the training record; the others list images.
_TRAINING_FACTS = ("accuracy", "macro_f1", "facts")
_PROPORTION = {"value": optional(NUMBER), "low": optional(NUMBER), "high": optional(NUMBER), "images": COUNT}
_TRAINING_SHAPE = {"accuracy?": optional(each(_PROPORTION))}


def own_facts(module: ResolvedModule) -> dict[str, Any] | None:
    """The description of an own module, with its training record under ``training``; None for any other module.

    ``training`` is None if the record is missing or cannot be read, because it is not part of the module.
    """
    description = read_description(module.path)
    if description is None:
        return None
    return {**dataclasses.asdict(description), "training": _training(module)}


def _training(module: ResolvedModule) -> dict[str, Any] | None:
    # The cache does not hold the files beside a remote module.
    remote = not storage.is_local(module.handle)
    path = storage.join(module.handle.rstrip("/"), TRAINING) if remote else str(module.path / TRAINING)
    try:
        if "://" in path and not storage.exists(path):
            return None
        record = parse(storage.read_bytes(path) if remote else Path(path).read_bytes(), _TRAINING_SHAPE)
        return {name: record[name] for name in _TRAINING_FACTS if name in record}
    except (OSError, ValueError):
        return None


def own_lines(own: dict[str, Any]) -> list[tuple[str, str]]:
    """The facts as lines of a table."""
    decoding = own["decoding"]
    crop = "the whole image" if decoding.get("crop") is None else f"a crop of {decoding['crop']}"
    length = ", of length 1" if own["normalizes"] else ""
    trained = "its variables can be trained" if own["trainable"] else "its weights are constants"
    tuned = "" if own["features_of"] else ", fine-tuned"
    lines = [
        ("base", f"{own['base']}{tuned}; {trained}"),
        ("", f"fingerprint {own['base_fingerprint']}"),
        (
            "head",
            f"{own['scores']} of its features{length}; of {crop}, color_profile {decoding.get('color_profile')}",
        ),
    ]
    accuracies = ((own["training"] or {}).get("accuracy") or {}).items()
    for number, (split, found) in enumerate(accuracies):
        lines.append(("" if number else "training", f"{split}: {_proportion(found)}"))
    return lines


def named_by(own: dict[str, Any] | None) -> str:
    """The source of the class names if the user gives none, with the first names of an own module."""
    if own is None:
        return "ImageNet"
    names = own["class_names"]
    more = f", … ({len(names) - _SHOWN_NAMES} more)" if len(names) > _SHOWN_NAMES else ""
    return f"the module: {', '.join(names[:_SHOWN_NAMES])}{more}"


def _proportion(found: dict[str, Any]) -> str:
    if None in (found["value"], found["low"], found["high"]):
        return "no images"
    value, low, high = (f"{100 * found[name]:.1f}" for name in ("value", "low", "high"))
    return f"accuracy {value} % ({low} to {high}) of {found['images']} images"
