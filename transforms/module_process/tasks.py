"""Tasks of the process that loads a module: functions on JSON values, see ``ModuleProcess.call``."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from beamlabel.transforms.hub.resolve import ResolvedModule, resolve_module
from beamlabel.transforms.inference.artifact import Quantization
from beamlabel.transforms.module.compile import CompileOptions, make_artifact, read_artifact
from beamlabel.transforms.module.head_artifact import head_artifact
from beamlabel.transforms.module.load import inspect_module
from beamlabel.transforms.module.outputs import Input, Output


def resolve(handle: str, cache: str, keywords: dict[str, Any]) -> dict[str, Any]:
    """See ``resolve_module``."""
    return packed(resolve_module(handle, cache, **keywords))


def compile_artifact(resolved: dict[str, Any], options: dict[str, Any], cache: str) -> None:
    """Writes the artifact to the cache; see ``make_artifact``."""
    make_artifact(unpacked(resolved), CompileOptions(**in_pairs(options)), cache)


def compile_head(resolved: dict[str, Any], artifact: str, cache: str, keywords: dict[str, Any]) -> str:
    """Returns the path of the artifact of a module's head; see ``head_artifact``."""
    whole = read_artifact(Path(artifact))
    assert whole is not None
    quantization = keywords.pop("quantization")
    if quantization is not None:
        quantization = Quantization.from_dict(quantization)
    return head_artifact(unpacked(resolved), whole, cache, quantization=quantization, **keywords).path


def look(resolved: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
    """Describes a loaded module: its outputs and all its signatures; see ``inspect_module``."""
    module = inspect_module(unpacked(resolved), **in_pairs(options))

    def tensor(one: Input | Output) -> dict[str, Any]:
        return {"key": one.key, "dtype": one.dtype, "shape": one.shape}

    return {
        "logits": None if module.logits is None else module.logits.name,
        "features": None if module.features is None else module.features.name,
        "signatures": [
            {"name": one.name, "inputs": [*map(tensor, one.inputs)], "outputs": [*map(tensor, one.outputs)]}
            for one in module.signatures.values()
        ],
    }


def packed(module: ResolvedModule) -> dict[str, Any]:
    """A resolved module as JSON values."""
    return {**dataclasses.asdict(module), "path": str(module.path)}


def unpacked(value: dict[str, Any]) -> ResolvedModule:
    """The inverse of ``packed``."""
    return ResolvedModule(**{**value, "path": Path(value["path"])})


def in_pairs(value: dict[str, Any]) -> dict[str, Any]:
    """Converts options from JSON values, in which a list stands for a pair."""
    return {name: tuple(one) if isinstance(one, list) else one for name, one in value.items()}
