"""Fetches ``--module`` to this machine and compiles its artifact. Does not import Beam."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from beamlabel.pipeline.errors import UsageError
from beamlabel.pipeline.options.job_options import (
    INT8,
    INT8_OR_FLOAT32,
    InferenceOptions,
    ModuleOptions,
)
from beamlabel.transforms.extras.install import install_extra
from beamlabel.transforms.hub.resolve import ResolvedModule
from beamlabel.transforms.inference.artifact import BFLOAT16, FLOAT32, OPENVINO, Artifact
from beamlabel.transforms.module.compile import AUTO, CompileOptions
from beamlabel.transforms.module.hub_module import HubModule
from beamlabel.transforms.module.load import inspect_module
from beamlabel.transforms.module_process.limits import Limits
from beamlabel.transforms.module_process.prepare import (
    check_loads,
    check_writable,
    compiled_artifact,
    resolved_module,
    subject_of,
)
from beamlabel.transforms.module_process.process import ModuleProcess
from beamlabel.transforms.module_process.waits import wait
from beamlabel.transforms.storage.host_cache import cache_dir


def module_process(module: ModuleOptions) -> ModuleProcess:
    """The process that loads the job's module, with the limits of the options."""
    return ModuleProcess(Limits(module.module_deadline, module.module_memory))


def resolve(
    handle: str,
    *,
    option: str = "--module",
    process: ModuleProcess | None = None,
    fingerprint: str | None = None,
    allow_unsafe_ops: bool = False,
) -> ResolvedModule:
    """Finds a module and fetches it to this machine; ``demo`` is the built-in module.

    Args:
      handle: the module's handle.
      option: the option that names it.
      process: fetches the module if necessary; None: a separate process with the default limits.
      fingerprint, allow_unsafe_ops: ``--module_fingerprint`` and ``--allow_unsafe_ops``, see ``resolve_module``.

    Raises:
      UsageError: it is not available or has another fingerprint; the message names ``option``.
    """
    cache = cache_dir()
    try:
        with _this_or_own(process) as here:
            path = _demo(cache / "modules", here) if handle == "demo" else handle
            resolved = resolved_module(
                path, cache, here, expected_fingerprint=fingerprint, allow_unsafe_ops=allow_unsafe_ops
            )
    except (ValueError, RuntimeError) as error:
        raise UsageError(f"{option}: {error}") from error
    return dataclasses.replace(resolved, handle=handle, origin=handle) if handle == "demo" else resolved


def resolve_chosen(
    module: ModuleOptions, *, option: str = "--module", process: ModuleProcess | None = None
) -> ResolvedModule:
    """Resolves the module that the options name; see ``resolve``.

    Raises:
      UsageError: it is not available or has another fingerprint; the message names ``option``.
    """
    return resolve(
        module.module,
        option=option,
        process=process,
        fingerprint=module.module_fingerprint,
        allow_unsafe_ops=module.allow_unsafe_ops,
    )


def load(resolved: ResolvedModule, process: ModuleProcess, **options: Any) -> HubModule:
    """Loads a module in this process for training; imports TensorFlow.

    Args:
      resolved: the module.
      process: loads and tries the module first, within its limits; then it is closed.
      options: options of ``inspect_module``.

    Raises:
      ModuleError: see ``inspect_module``; or the module could not be loaded in time.
    """
    check_loads(resolved, cache_dir(), process, **options)
    process.close()  # frees its memory
    return inspect_module(resolved, **options)


def _demo(directory: Path, process: ModuleProcess) -> str:
    # The demo module is made from a pickle of a package index, so a separate process reads it.
    from beamlabel.pipeline.demo import module as demo

    if not demo.is_written(directory):
        check_writable(directory.parent, subject_of("demo"), "does not hold it")
        with wait(f"Building the demo module (once; cached in {directory.parent})", "Built the demo module"):
            process.call(f"{demo.__name__}:write_demo", subject_of("demo"), cache_dir=str(directory))
    return str(demo.directory_of(directory))


@contextmanager
def _this_or_own(
    process: ModuleProcess | None, module: ModuleOptions | None = None
) -> Iterator[ModuleProcess]:
    if process is not None:
        yield process
        return
    with ModuleProcess() if module is None else module_process(module) as own:
        yield own


def compile_options(module: ModuleOptions, inference: InferenceOptions) -> CompileOptions:
    """The options that affect the compilation; int8 is quantized from the artifact for float32."""
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
    process: ModuleProcess | None = None,
) -> Artifact:
    """Resolves, checks and compiles the module; with ``resolved``, skips the first step.

    ``process`` does the steps whose results are not cached; see ``module_process``. None: a separate process.

    Raises:
      UsageError: the module is not available, or the options do not fit it; the message names ``option``.
    """
    wants_openvino = inference.engine == OPENVINO or inference.precision == BFLOAT16
    if wants_openvino and importlib.util.find_spec("openvino") is None:
        asked = "--engine openvino" if inference.engine == OPENVINO else "--precision bfloat16"
        raise UsageError(f"{asked} needs OpenVINO: {install_extra('openvino')}")
    with _this_or_own(process, module) as here:
        resolved = resolved or resolve_chosen(module, option=option, process=here)
        try:
            return compiled_artifact(resolved, compile_options(module, inference), cache_dir(), here)
        except (ValueError, ModuleNotFoundError, RuntimeError) as error:
            raise UsageError(f"{option}: {error}") from error
