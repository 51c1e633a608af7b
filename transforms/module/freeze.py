"""``HubModule`` → one graph without variables, the payload of the "tensorflow" engine."""

from __future__ import annotations

from typing import Any

from beamlabel.transforms.inference.artifact import FEATURES, LOGITS, PIXELS
from beamlabel.transforms.inference.lazy_tensorflow import tensorflow
from beamlabel.transforms.module.load import HubModule, to_float


def freeze(module: HubModule) -> bytes:
    """A ``GraphDef``, serialized: ``pixels`` uint8[N, H, W, 3] → ``logits`` and ``features``, as far as they are.

    The same module gives the same bytes in any process, unless its graph holds functions of its own, such as
    those of ``tf.map_fn``, which TensorFlow numbers as it goes.
    """
    tf = tensorflow()
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    @tf.function(
        input_signature=[tf.TensorSpec([None, module.height, module.width, 3], tf.uint8, name=PIXELS)],
        autograph=False,
    )
    def serve(pixels: Any) -> list[Any]:
        results = module.function(to_float(pixels, module.input_range))
        return [result for result in results if result is not None]

    frozen = convert_variables_to_constants_v2(serve.get_concrete_function())
    outputs = [name for name, output in ((LOGITS, module.logits), (FEATURES, module.features)) if output]
    ends = {tensor.op.name: name for tensor, name in zip(frozen.outputs, outputs, strict=True)}
    (start,) = frozen.inputs
    graph_def = rename(frozen.graph.as_graph_def(), {start.op.name: PIXELS, **ends})
    return graph_def.SerializeToString(deterministic=True)


def rename(graph_def: Any, names: dict[str, str]) -> Any:
    """The graph with these names for these nodes, and ``n0``, ``n1``, … for all others.

    Frozen variables are named by TensorFlow after a counter of the process.
    """
    renamed = type(graph_def)()
    renamed.CopyFrom(graph_def)
    for index, node in enumerate(renamed.node):
        names.setdefault(node.name, f"n{index}")
    for node in renamed.node:
        node.name = names[node.name]
        node.input[:] = [_renamed_input(one, names) for one in node.input]
        # Hints where to place nodes, by their old names.
        node.attr.pop("_class", None)
    return renamed


def _renamed_input(text: str, names: dict[str, str]) -> str:
    """``NAME``, ``NAME:INDEX`` or, as a control input, ``^NAME``."""
    control = "^" if text.startswith("^") else ""
    name, colon, index = text.removeprefix("^").partition(":")
    return f"{control}{names[name]}{colon}{index}"
