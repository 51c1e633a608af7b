"""The engine "tensorflow": runs a frozen graph; the reference, and the engine for GPUs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from beamlabel.transforms.allowed_ops.operations import unsafe_in_graph
from beamlabel.transforms.inference.artifact import FLOAT32, TENSORFLOW, ModelSpec, ModuleError
from beamlabel.transforms.inference.engines import EngineSession, Images, Outputs
from beamlabel.transforms.inference.interpreter_pool import padded
from beamlabel.transforms.inference.lazy_tensorflow import tensorflow
from beamlabel.transforms.secrets.logs import get_logger

_LOGGER = get_logger(__name__)


def open_payload(
    spec: ModelSpec, payload: memoryview, threads: int | None = None, path: Path | None = None
) -> EngineSession:
    """Opens a serialized ``GraphDef`` as a function of its input tensor.

    Raises:
      ModuleError: TensorFlow is not installed, or the graph has operations that are not allowed.
    """
    tf = tensorflow()
    if threads is not None:
        _limit_threads(tf, threads)
    graph_def = tf.compat.v1.GraphDef.FromString(bytes(payload))
    # Checked here too, since an artifact may come from an unknown source.
    if not spec.allows_unsafe_ops and (found := unsafe_in_graph(graph_def)):
        raise ModuleError(
            f"the compiled model has operations that are not allowed: {'; '.join(map(str, found))}"
        )
    wrapped = tf.compat.v1.wrap_function(lambda: tf.graph_util.import_graph_def(graph_def, name=""), [])
    names = [f"{name}:0" for name in (spec.logits_tensor, spec.features_tensor) if name is not None]
    function = wrapped.prune([f"{spec.input_tensor}:0"], names)

    def run(images: Images) -> Outputs:
        pixels = np.asarray(images)
        if spec.batch is None:
            arrays = [result.numpy() for result in function(tf.constant(pixels))]
        else:
            parts = [
                [result.numpy()[:count] for result in function(tf.constant(part))]
                for part, count in padded(pixels, spec.batch)
            ]
            arrays = [np.concatenate(ones) for ones in zip(*parts, strict=True)]
        results = iter(arrays)
        logits = None if spec.logits_tensor is None else next(results)
        features = None if spec.features_tensor is None else next(results)
        return logits, features

    return EngineSession(run, TENSORFLOW, FLOAT32)


def _limit_threads(tf: Any, threads: int) -> None:
    """Limits TensorFlow's own threads, by default one per core of the host; a process can set this only once."""
    try:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)
    except RuntimeError:  # TensorFlow has started to compute
        _LOGGER.warning("TensorFlow is already running, so its threads cannot be limited")
