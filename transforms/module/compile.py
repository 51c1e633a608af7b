"""Compiles a ``HubModule`` to an artifact, one self-contained file that every worker opens: the launcher's side."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from beamlabel.transforms.hub.files import fingerprint, scan
from beamlabel.transforms.hub.partial import write_file
from beamlabel.transforms.hub.resolve import ResolvedModule
from beamlabel.transforms.inference import openvino_engine
from beamlabel.transforms.inference.artifact import (
    BFLOAT16,
    FEATURES,
    FLOAT32,
    INT8,
    LITERT,
    LOGITS,
    OPENVINO,
    PIXELS,
    PRECISIONS,
    TENSORFLOW,
    Artifact,
    ModelSpec,
    ModuleError,
    pack,
    unpack,
)
from beamlabel.transforms.inference.engines import open_payload
from beamlabel.transforms.inference.lazy_tensorflow import tensorflow
from beamlabel.transforms.inference.probe import PROBE_IMAGES, check_outputs, extreme_batch, probe_batch
from beamlabel.transforms.module.freeze import all_nodes, draws, freeze, to_float, traced_graph
from beamlabel.transforms.module.hub_module import HubModule
from beamlabel.transforms.module.load import inspect_module
from beamlabel.transforms.module.score_kind import LOGITS as LOGITS_KIND
from beamlabel.transforms.module.score_kind import ScoreKind, coarsest_float, score_kind
from beamlabel.transforms.module.steadiness import check_steady
from beamlabel.transforms.secrets.logs import get_logger

_LOGGER = get_logger(__name__)

AUTO = "auto"
ENGINES = (AUTO, LITERT, OPENVINO, TENSORFLOW)

# Raise this if the same module and options would now compile to another artifact.
_COMPILE_VERSION = 6
_SUFFIX = ".beamlabel"


@dataclass(frozen=True)
class CompileOptions:
    """The user's options for the module.

    Attributes:
      logits_output, features_output, image_size, input_range: as for ``inspect_module``.
      engine: ``litert``, ``openvino``, ``tensorflow``, or ``auto``: LiteRT, or TensorFlow if LiteRT cannot express the
        module or answers differently; for bfloat16, OpenVINO.
      precision: ``float32``, or ``bfloat16``, which only OpenVINO has.

    Raises:
      ValueError: an unknown engine or precision, or an engine without that precision.
    """

    logits_output: str | None = None
    features_output: str | None = None
    image_size: tuple[int, int] | None = None
    input_range: tuple[float, float] | None = None
    engine: str = AUTO
    precision: str = FLOAT32

    def __post_init__(self) -> None:
        if self.engine not in ENGINES:
            raise ValueError(f"engine must be one of {', '.join(ENGINES)}, not {self.engine!r}")
        if self.precision == INT8:
            raise ValueError(
                f"precision {INT8!r} needs images to calibrate with; only the command beamlabel can take them, "
                "from --input"
            )
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, not {self.precision!r}")
        if self.precision == BFLOAT16 and self.engine not in (AUTO, OPENVINO):
            raise ValueError(f"precision {BFLOAT16!r} is not supported by the engine {self.engine!r}")


def compiled(
    resolved: ResolvedModule, options: CompileOptions, cache_dir: str | os.PathLike[str]
) -> Artifact:
    """The artifact of a module, from the cache if it was compiled before.

    TensorFlow is imported only if the module must be compiled. A damaged file in the cache is replaced.

    Raises:
      ModuleError: the options do not suit the module, or compilation changes its results.
    """
    artifact = read_artifact(artifact_path(resolved, options, cache_dir))
    return tell(artifact or make_artifact(resolved, options, cache_dir), options)


def tell(artifact: Artifact, options: CompileOptions) -> Artifact:
    """Logs facts about a compiled module that users should see, and returns it."""
    if options.precision == BFLOAT16:
        # If the launcher's CPU lacks the instructions, this logs so and continues: the workers' CPUs may have them.
        openvino_engine.has_units()
    for note in artifact.spec.notes():
        _LOGGER.info("Module %s %s", artifact.spec.handle, note)
    if artifact.spec.fallback is not None:
        _LOGGER.warning("Module %s runs on TensorFlow: %s", artifact.spec.handle, artifact.spec.fallback)
    return artifact


def make_artifact(
    resolved: ResolvedModule, options: CompileOptions, cache_dir: str | os.PathLike[str]
) -> Artifact:
    """Loads a module and compiles it into the cache; imports TensorFlow.

    Raises:
      ModuleError: see ``compiled``.
    """
    module = inspect_module(resolved, **_keywords(options))
    if fingerprint(scan(resolved.path)) != resolved.fingerprint:
        raise ModuleError(f"module {resolved.handle}: its files changed while they were read; run it again")
    path = artifact_path(resolved, options, cache_dir)
    return compile_module(module, path, options.engine, options.precision)


def compile_module(module: HubModule, path: Path, engine: str = AUTO, precision: str = FLOAT32) -> Artifact:
    """Compiles a module for an engine, checks the result against the module, and writes the artifact.

    The check runs both on a fixed batch of images, the artifact through the engine that workers use.

    Args:
      module: the module to compile.
      path: the file to write, atomically.
      engine, precision: see ``CompileOptions``.

    Raises:
      ModuleError: the module cannot be compiled, or the two differ by more than 1e-3 or in the best class; in bfloat16,
        by more than ``openvino_engine`` allows, if this CPU can compare them.
    """
    pixels = probe_batch(module.height, module.width)
    try:
        expected = _steady_answers(module, pixels)
        graph = freeze(module)
        spec = _spec(module, _score_kind(module, graph))
        # If the graph differs from the module, no engine can be right.
        _check(spec, graph, pixels, expected)
        payload = graph
        if engine != TENSORFLOW:
            spec, payload = _for_litert(spec, graph, pixels, expected, required=engine in (LITERT, OPENVINO))
        if engine == OPENVINO or precision == BFLOAT16:
            spec = _for_openvino(spec, payload, precision)
    except Exception as error:
        # TensorFlow raises many exceptions for graphs that cannot be frozen, and the user can do the same about all.
        if isinstance(error, ModuleError):
            raise ModuleError(f"module {module.resolved.handle}: {error}") from error
        raise ModuleError(
            f"module {module.resolved.handle}: it cannot be compiled ({type(error).__name__}: {error})"
        ) from error
    data = pack(spec, payload)
    write_artifact(path, data)
    return Artifact(str(path), hashlib.sha256(data).hexdigest(), spec)


def _answers(module: HubModule, pixels: np.ndarray) -> list[np.ndarray | None]:
    """The module's own logits and features for uint8[N, height, width, 3], float32[N, D] or None."""
    results = module.function(to_float(pixels, module.input_range))
    return [None if result is None else result.numpy() for result in results]


def _steady_answers(module: HubModule, pixels: np.ndarray) -> list[np.ndarray | None]:
    """The answers for the probe images; raises ``ModuleError`` unless they are the same each time."""
    answers = _answers(module, pixels)
    check_outputs(answers, answers)
    graph = traced_graph(module)
    check_steady(
        lambda images: _answers(module, images),
        pixels,
        answers,
        precision=coarsest_float(graph),
        random_ops=sorted({node.op for node in all_nodes(graph) if draws(node.op)}),
    )
    return answers


def _score_kind(module: HubModule, graph: bytes) -> ScoreKind | None:
    if module.logits is None:
        return None
    if module.description is not None:
        return ScoreKind(
            LOGITS_KIND,
            module.description.scores,
            "the head of beamlabel train, as the module's description says",
        )
    # Many kinds of images, since a few values may lie in [0, 1] by chance.
    size = (module.height, module.width)
    try:
        logits, _ = _answers(module, np.concatenate([probe_batch(*size), extreme_batch(*size)]))
    except tensorflow().errors.OpError:
        logits = None  # the module may refuse a black or a white image by an assertion
    if logits is None or not np.all(np.isfinite(logits[PROBE_IMAGES:])):
        logits, _ = _answers(module, probe_batch(*size))
    graph_def = tensorflow().compat.v1.GraphDef.FromString(graph)
    return score_kind(np.asarray(logits), module.logits.key, graph_def, LOGITS)


def _for_litert(
    spec: ModelSpec,
    graph: bytes,
    pixels: np.ndarray,
    expected: Sequence[np.ndarray | None],
    *,
    required: bool,
) -> tuple[ModelSpec, bytes]:
    """Spec and payload for LiteRT, or, unless LiteRT is required, for TensorFlow if LiteRT fails."""
    names = [name for name in (spec.logits_tensor, spec.features_tensor) if name is not None]
    litert = dataclasses.replace(spec, engine=LITERT)
    try:
        payload = _to_litert(graph, spec.input_tensor, names)
        _check(litert, payload, pixels, expected)
    except ModuleError as error:
        if required:
            raise
        return dataclasses.replace(spec, fallback=str(error)), graph
    return litert, payload


def _to_litert(graph_def: bytes, input_name: str, output_names: Sequence[str]) -> bytes:
    """A serialized ``GraphDef`` as a LiteRT FlatBuffer; its tensors keep their names, and the batch size stays open.

    Only LiteRT's own operations are allowed: those that need TensorFlow in addition would bring TensorFlow back to
    every worker.

    Raises:
      ModuleError: the graph has operations that LiteRT lacks.
    """
    tf = tensorflow()
    graph = tf.compat.v1.GraphDef.FromString(graph_def)
    wrapped = tf.compat.v1.wrap_function(lambda: tf.graph_util.import_graph_def(graph, name=""), [])
    function = wrapped.prune([f"{input_name}:0"], [f"{name}:0" for name in output_names])
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function], wrapped)
    try:
        model: bytes = converter.convert()
    except Exception as error:
        # The converter raises several exceptions; the first line states the problem, and the rest is MLIR.
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModuleError(f"LiteRT cannot express it ({reason})") from error
    return model


def _for_openvino(spec: ModelSpec, payload: bytes, precision: str) -> ModelSpec:
    """The spec for OpenVINO with LiteRT's payload, which is checked if this CPU can run it."""
    if spec.engine != LITERT:
        raise ModuleError(f"OpenVINO cannot compute this module in {precision}: {spec.fallback}")
    spec = dataclasses.replace(spec, engine=OPENVINO, precision=precision)
    if precision == FLOAT32 or openvino_engine.has_units():
        openvino_engine.open_checked(spec, memoryview(payload), precision)
    return spec


def _check(
    spec: ModelSpec, payload: bytes, pixels: np.ndarray, expected: Sequence[np.ndarray | None]
) -> None:
    """Runs a payload as a worker would; raises ``ModuleError`` if its results differ from the module's."""
    check_outputs(expected, open_payload(spec, memoryview(payload)).run(pixels))


def artifact_path(
    resolved: ResolvedModule, options: CompileOptions, cache_dir: str | os.PathLike[str]
) -> Path:
    """The path of a module's artifact in the cache, derived from everything that determines its content."""
    key = {
        "compile_version": _COMPILE_VERSION,
        "fingerprint": resolved.fingerprint,
        "handle": resolved.handle,
        "origin": resolved.origin,
        "allows_unsafe_ops": resolved.allows_unsafe_ops,
        "options": asdict(options),
    }
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    return Path(cache_dir).expanduser().absolute() / f"{digest[:32]}{_SUFFIX}"


def _spec(module: HubModule, kind: ScoreKind | None) -> ModelSpec:
    own = module.description
    decoding = {} if own is None else own.decoding
    return ModelSpec(
        engine=TENSORFLOW,
        height=module.height,
        width=module.width,
        num_classes=module.num_classes,
        embedding_dim=module.embedding_dim,
        fingerprint=module.resolved.fingerprint,
        handle=module.resolved.handle,
        kind=module.kind,
        input_range=module.input_range,
        score_kind=None if kind is None else kind.kind,
        scores=None if kind is None else kind.scores,
        scores_reason="" if kind is None else kind.reason,
        input_tensor=PIXELS,
        logits_tensor=None if module.logits is None else LOGITS,
        features_tensor=None if module.features is None else FEATURES,
        batch=module.batch,
        channels_first=module.channels_first,
        features_of=module.features_of,
        class_names=None if own is None or module.logits is None else own.class_names,
        crop=decoding.get("crop"),
        color_profile=decoding.get("color_profile"),
        allows_unsafe_ops=module.resolved.allows_unsafe_ops,
    )


def _keywords(options: CompileOptions) -> dict[str, Any]:
    return {name: value for name, value in asdict(options).items() if name not in ("engine", "precision")}


def read_artifact(path: Path) -> Artifact | None:
    """The artifact in the cache; None if there is none, or if it is damaged."""
    try:
        data = path.read_bytes()
        spec, _ = unpack(data)
    except (OSError, ModuleError):
        return None
    return Artifact(str(path), hashlib.sha256(data).hexdigest(), spec)


def write_artifact(path: Path, data: bytes) -> None:
    """Writes an artifact to the cache atomically."""
    write_file(path, data)
