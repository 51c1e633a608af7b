"""``--module`` and what belongs to it → a module on this machine, and its artifact. Does not import Beam."""

from __future__ import annotations

import dataclasses
import importlib.util

from beamlabel.pipeline.errors import UsageError
from beamlabel.pipeline.options.job_options import (
    INT8,
    INT8_OR_FLOAT32,
    InferenceOptions,
    ModuleOptions,
)
from beamlabel.transforms.hub.resolve import ResolvedModule, resolve_module
from beamlabel.transforms.inference.artifact import BFLOAT16, FLOAT32, OPENVINO, Artifact
from beamlabel.transforms.module.compile import AUTO, CompileOptions, compiled
from beamlabel.transforms.storage.host_cache import cache_dir


def resolve(
    handle: str,
    *,
    option: str = "--module",
    fingerprint: str | None = None,
    allow_unsafe_ops: bool = False,
) -> ResolvedModule:
    """Finds a module and has it on this machine; ``demo`` is the embedded one.

    Args:
      handle: the module's.
      option: by which it was named.
      fingerprint, allow_unsafe_ops: ``--module_fingerprint`` and ``--allow_unsafe_ops``, see ``resolve_module``.

    Raises:
      UsageError: it cannot be had, or has another fingerprint; names ``option``.
    """
    cache = cache_dir()
    try:
        path = handle
        if handle == "demo":
            from beamlabel.pipeline.demo.module import demo_module

            path = str(demo_module(cache / "modules"))
        resolved = resolve_module(
            path, cache, expected_fingerprint=fingerprint, allow_unsafe_ops=allow_unsafe_ops
        )
    except (ValueError, RuntimeError) as error:
        raise UsageError(f"{option}: {error}") from error
    return dataclasses.replace(resolved, handle=handle, origin=handle) if handle == "demo" else resolved


def resolve_chosen(module: ModuleOptions, *, option: str = "--module") -> ResolvedModule:
    """``resolve``, for a module as the options say.

    Raises:
      UsageError: it cannot be had, or has another fingerprint; names ``option``.
    """
    return resolve(
        module.module,
        option=option,
        fingerprint=module.module_fingerprint,
        allow_unsafe_ops=module.allow_unsafe_ops,
    )


def compile_options(module: ModuleOptions, inference: InferenceOptions) -> CompileOptions:
    """The options that decide how the module is compiled; int8 is made of what is compiled for float32."""
    quantizes = inference.precision in (INT8, INT8_OR_FLOAT32)
    return CompileOptions(
        logits_output=module.logits_output,
        features_output=module.features_output,
        image_size=module.image_size,
        input_range=module.input_range,
        engine=AUTO if quantizes else inference.engine,
        precision=FLOAT32 if quantizes else inference.precision,
    )


def prepare_artifact(
    module: ModuleOptions,
    inference: InferenceOptions,
    *,
    option: str = "--module",
    resolved: ResolvedModule | None = None,
) -> Artifact:
    """Resolves, checks and compiles the module; it is not resolved again if ``resolved`` is given.

    Raises:
      UsageError: the module cannot be had, or the options do not fit it; names ``option``.
    """
    wants_openvino = inference.engine == OPENVINO or inference.precision == BFLOAT16
    if wants_openvino and importlib.util.find_spec("openvino") is None:
        asked = "--engine openvino" if inference.engine == OPENVINO else "--precision bfloat16"
        raise UsageError(f"{asked} needs OpenVINO: pip install 'beamlabel[openvino]'")
    resolved = resolved or resolve_chosen(module, option=option)
    try:
        return compiled(resolved, compile_options(module, inference), cache_dir())
    except (ValueError, ModuleNotFoundError, RuntimeError) as error:
        raise UsageError(f"{option}: {error}") from error
