"""Turns the module's handle into an artifact that the workers of a pipeline can open."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from beamlabel.transforms import storage
from beamlabel.transforms.derive import Derived, derive
from beamlabel.transforms.inference.artifact import Artifact, ModuleError, unpack
from beamlabel.transforms.inference.options import AUTO, WishError
from beamlabel.transforms.module_process.limits import DEADLINE_SECONDS, Limits
from beamlabel.transforms.storage.host_cache import cache_dir

if TYPE_CHECKING:
    import apache_beam as beam

ARTIFACT_SUFFIX = ".beamlabel"

# Artifacts are staged in this subdirectory of the given directory.
_DIRECTORY = "beamlabel"


def artifact_of(
    module: str | os.PathLike[str],
    *,
    logits_output: str | None = None,
    features_output: str | None = None,
    image_size: tuple[int, int] | None = None,
    input_range: tuple[float, float] | None = None,
    engine: str = AUTO,
    precision: str = "float32",
    module_fingerprint: str | None = None,
    allow_unsafe_ops: bool = False,
    module_deadline: float = DEADLINE_SECONDS,
    module_memory: int | None = None,
) -> Artifact:
    """Resolves and compiles a module once; the artifact stays in the cache.

    A separate process does the work; this process does not import TensorFlow.

    Args:
      module: a Hub handle, a local directory or ``.tar.gz``, a ``gs://`` path; or an artifact, see
        ``ModelHandler.save_artifact``, which is opened directly.
      logits_output, features_output, image_size, input_range, engine, precision: see ``CompileOptions``.
      module_fingerprint: the fingerprint that the module must have, in hex, as ``beamlabel inspect`` shows it; for an
        artifact the SHA-256 of the file. None: any.
      allow_unsafe_ops: whether the module's graph may have operations that do more than compute. It runs with the
        rights of this process and of the workers.
      module_deadline, module_memory: see ``Limits``.

    Raises:
      ModuleError: the module cannot be fetched or used with these options; the message begins with ``module``.
      ValueError: the engine or the precision is unknown.
    """
    limits = _limits(module_deadline, module_memory)
    handle = os.fspath(module)
    if not isinstance(handle, str) or not handle:
        raise ModuleError(f"module must be the handle of a module, not {module!r}")
    if handle.endswith(ARTIFACT_SUFFIX):
        return _read_artifact(handle, module_fingerprint, allow_unsafe_ops)
    # The launcher's side, which workers need not import.
    from beamlabel.transforms.module.compile import CompileOptions
    from beamlabel.transforms.module_process.prepare import compiled_artifact, resolved_module
    from beamlabel.transforms.module_process.process import ModuleProcess

    options = CompileOptions(logits_output, features_output, image_size, input_range, engine, precision)
    cache = cache_dir()
    try:
        with ModuleProcess(limits) as process:
            resolved = resolved_module(
                handle,
                cache,
                process,
                expected_fingerprint=module_fingerprint,
                allow_unsafe_ops=allow_unsafe_ops,
            )
            return compiled_artifact(resolved, options, cache, process)
    except (ValueError, RuntimeError, ModuleNotFoundError) as error:
        said = _for_python(str(error)).removeprefix(f"module {handle}: ")
        if not Path(handle).exists() and "://" not in handle:
            said += "; a module on the hub has a URL, such as https://tfhub.dev/google/imagenet/.../classification/1"
        raise ModuleError(f"module={handle!r}: {said}") from error


def _limits(module_deadline: float, module_memory: int | None) -> Limits:
    if not module_deadline > 0:
        raise WishError("module_deadline", f" must be above 0 seconds, not {module_deadline}")
    if module_memory is not None and module_memory <= 0:
        raise WishError("module_memory", f" must be above 0 bytes, not {module_memory}")
    return Limits(module_deadline, module_memory)


def derive_module(
    artifact: Artifact,
    *,
    top_k: int | None,
    scores: str,
    class_names: Sequence[str] | str | os.PathLike[str] | None,
    embeddings: bool,
    normalize_embeddings: bool,
    batch_size: int,
    worker_threads: int | None,
    crop: float | None = None,
    color_profile: str = AUTO,
    max_pixels: int = 100_000_000,
    decode_deadline: float = 20.0,
) -> Derived:
    """Runs ``derive`` with the public transforms' defaults: ``class_names=None`` means ``auto``, as for the command.

    Raises:
      WishError: the module does not allow a value; the error names the argument.
      ValueError: no module allows a value; the message names the argument.
    """
    if isinstance(class_names, os.PathLike):
        class_names = os.fspath(class_names)
    if top_k is not None and top_k < 1:
        raise WishError("top_k", f" must be at least 1, not {top_k}")
    try:
        return derive(
            artifact,
            top_k=top_k,
            scores=scores,
            class_names=AUTO if class_names is None else class_names,
            embeddings=embeddings,
            normalize_embeddings=normalize_embeddings,
            crop=crop,
            max_pixels=max_pixels,
            decode_deadline=decode_deadline,
            color_profile=color_profile,
            batch_size=batch_size,
            worker_threads=worker_threads,
        )
    except OSError as error:
        raise WishError(
            "class_names",
            f" {class_names!r}: {error}; give a list of names, a file with one name per line, or 'none'",
        ) from error


def staged(artifact: Artifact, pipeline: beam.Pipeline, directory: str | None) -> str:
    """The path from which a pipeline's workers open an artifact; copies the artifact if the workers are elsewhere.

    Args:
      artifact: an artifact on this machine.
      pipeline: its runner determines whether the workers are on this machine.
      directory: a directory that all workers can read; None: ``--temp_location``, if the workers are elsewhere.

    Raises:
      ValueError: the workers are elsewhere and neither directory is given, or the directory cannot be written, or the
        workers cannot read it.
    """
    if directory is None:
        if not storage.is_local(artifact.path) or has_local_workers(pipeline):
            return artifact.path
        directory = _temp_location(pipeline)
    if _is_dataflow(pipeline) and storage.is_local(directory):
        raise ValueError(
            f"artifact_dir {directory!r} is a local directory that Dataflow workers cannot reach; use a gs:// path"
        )
    return stage(artifact, directory)


def checked_directory(artifact_dir: str | os.PathLike[str] | None) -> str | None:
    """The directory as text; raises ``ValueError`` if it is empty."""
    if artifact_dir == "":
        raise ValueError("artifact_dir must name a directory, not ''")
    return None if artifact_dir is None else os.fspath(artifact_dir)


def stage(artifact: Artifact, directory: str) -> str:
    """Copies an artifact into a directory, unless it is already there; returns its path.

    Raises:
      ValueError: the directory cannot be written.
      OSError: the artifact cannot be read.
    """
    name = f"{artifact.sha256}{ARTIFACT_SUFFIX}"
    target = storage.join(storage.absolute(directory), _DIRECTORY, name)
    # The name is derived from the content, so a file of this name is the same.
    if not storage.exists(target):
        content = storage.read_bytes(artifact.path)
        try:
            storage.write_bytes(target, content)
        except OSError as error:
            raise ValueError(f"artifact_dir {directory!r} cannot be written: {error}") from error
    return target


def has_local_workers(pipeline: beam.Pipeline) -> bool:
    """Whether the workers of a pipeline are processes of this machine that see its files."""
    from apache_beam.options.pipeline_options import FlinkRunnerOptions, PortableOptions
    from apache_beam.runners.portability.flink_runner import MAGIC_HOST_NAMES, FlinkRunner
    from apache_beam.runners.portability.portable_runner import PortableRunner
    from apache_beam.runners.portability.prism_runner import PrismRunner

    runner = _runner(pipeline)
    if _is_dataflow(pipeline):
        return False
    if not isinstance(runner, PortableRunner):
        return True
    environment = (pipeline.options.view_as(PortableOptions).environment_type or "").upper()
    if environment:
        return environment == "LOOPBACK"
    if isinstance(runner, FlinkRunner):
        return pipeline.options.view_as(FlinkRunnerOptions).flink_master in MAGIC_HOST_NAMES
    return isinstance(runner, PrismRunner)


def _runner(pipeline: beam.Pipeline) -> Any:
    # Interactive Beam's runner hands the pipeline to another runner, and has no public name for it.
    return getattr(pipeline.runner, "_underlying_runner", pipeline.runner)


def _is_dataflow(pipeline: beam.Pipeline) -> bool:
    # Checked by name, because its module cannot be imported without the extra `dataflow`.
    return "Dataflow" in type(_runner(pipeline)).__name__


def _temp_location(pipeline: beam.Pipeline) -> str:
    from apache_beam.options.pipeline_options import GoogleCloudOptions

    location = pipeline.options.view_as(GoogleCloudOptions).temp_location
    if not location:
        raise ValueError(
            "the pipeline has neither temp_location nor artifact_dir, but its workers run elsewhere; "
            "set artifact_dir to a directory that they can read, to stage the compiled module in"
        )
    return str(location)


def _read_artifact(path: str, sha256: str | None, allow_unsafe_ops: bool) -> Artifact:
    try:
        data = storage.read_bytes(path)
        found = hashlib.sha256(data).hexdigest()
        if sha256 is not None and found != sha256.lower():
            raise ModuleError(f"its SHA-256 is {found}, but module_fingerprint is {sha256}")
        spec, _ = unpack(data)
        if spec.allows_unsafe_ops and not allow_unsafe_ops:
            raise ModuleError(
                "it was compiled with allow_unsafe_ops, so its graph may read, write or send anything; use "
                "allow_unsafe_ops=True only if you trust its author"
            )
    except (OSError, ModuleError) as error:
        raise ModuleError(f"module={path!r}: {error}") from error
    location = str(Path(path).absolute()) if storage.is_local(path) else path
    return Artifact(location, found, spec)


def _for_python(message: str) -> str:
    """Converts a message of the command to Python, where options are arguments."""
    return re.sub(r"--(?=[a-z]+_?[a-z])", "", message)


def with_artifact(derived: Derived, path: str) -> Derived:
    """The same options with the path from which workers open the artifact."""
    return dataclasses.replace(derived, predict=dataclasses.replace(derived.predict, artifact_path=path))
