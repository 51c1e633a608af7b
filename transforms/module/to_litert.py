"""Frozen graph → LiteRT FlatBuffer, the payload of the "litert" engine; the launcher's side."""

from __future__ import annotations

from collections.abc import Sequence

from beamlabel.transforms.inference.artifact import ModuleError
from beamlabel.transforms.inference.lazy_tensorflow import tensorflow


def to_litert(graph_def: bytes, input_name: str, output_names: Sequence[str]) -> bytes:
    """Converts a serialized ``GraphDef``; its tensors keep their names, and the batch size stays open.

    Only operations that LiteRT has itself are allowed: those that need TensorFlow beside it would bring
    TensorFlow back to every worker.

    Raises:
      ModuleError: the graph has operations that LiteRT does not have.
    """
    tf = tensorflow()
    graph = tf.compat.v1.GraphDef.FromString(graph_def)
    wrapped = tf.compat.v1.wrap_function(lambda: tf.graph_util.import_graph_def(graph, name=""), [])
    function = wrapped.prune([f"{input_name}:0"], [f"{name}:0" for name in output_names])
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function], wrapped)
    try:
        model: bytes = converter.convert()
    except Exception as error:
        # The converter raises several kinds; the first line says what it met, the rest is MLIR.
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModuleError(f"LiteRT cannot express it ({reason})") from error
    return model
