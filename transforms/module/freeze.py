"""Freezes a ``HubModule`` to one graph without variables, the payload of the "tensorflow" engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from beamlabel.transforms.inference.artifact import FEATURES, LOGITS, PIXELS, ModuleError
from beamlabel.transforms.inference.lazy_tensorflow import tensorflow
from beamlabel.transforms.module.hub_module import HubModule

# The size limit of a protocol buffer, and so of a GraphDef with its weights.
MAX_GRAPH_BYTES = 2**31 - 1
# TensorFlow 1's control flow: its constants have a control input that decides which branch runs.
_V1_CONTROL_FLOW = frozenset(
    f"{ref}{op}" for ref in ("", "Ref") for op in ("Switch", "Merge", "Enter", "Exit", "NextIteration")
) | {"LoopCond"}
INFERENCE_ONLY = (
    "export the model for inference (training=False), without dropout and augmentation; for a Keras model, use its "
    ".keras file"
)
_RANDOM = frozenset(("Multinomial", "TruncatedNormal", "ParameterizedTruncatedNormal"))
_ASSIGNS = frozenset(
    {"AssignVariableOp", "AssignAddVariableOp", "AssignSubVariableOp", "RngReadAndSkip", "RngSkip"}
)


def freeze(module: HubModule) -> bytes:
    """A serialized ``GraphDef`` from ``pixels`` uint8[N, H, W, 3] to ``logits`` and ``features``, if it has them.

    N is open, unless the module takes batches of one size only. The graph is pruned to these outputs: it has no tables,
    counters and generators that serve others. The same module yields the same bytes in any process, unless its graph
    has functions of its own, such as those of ``tf.map_fn``, which TensorFlow numbers with a counter.

    Raises:
      ModuleError: the outputs depend on a changing state or on a table, or the graph is too large.
    """
    names = [name for name, output in ((LOGITS, module.logits), (FEATURES, module.features)) if output]
    graph_def = freeze_function(_serve(module), _shape(module), names)
    data: bytes = graph_def.SerializeToString(deterministic=True)
    return data


def traced_graph(module: HubModule) -> Any:
    """The ``GraphDef`` of a call of the module, with all its variables, functions and side effects."""
    return _traced(_serve(module), _shape(module), tensorflow().uint8).graph.as_graph_def()


def _serve(module: HubModule) -> Callable[[Any], list[Any]]:
    def serve(pixels: Any) -> list[Any]:
        results = module.function(to_float(pixels, module.input_range))
        return [result for result in results if result is not None]

    return serve


def _shape(module: HubModule) -> tuple[int | None, ...]:
    return module.batch, module.height, module.width, 3


def _traced(serve: Callable[[Any], list[Any]], shape: Sequence[int | None], dtype: Any) -> Any:
    tf = tensorflow()
    spec = tf.TensorSpec(shape, dtype, name=PIXELS)
    return tf.function(serve, input_signature=[spec], autograph=False).get_concrete_function()


def to_float(pixels: Any, input_range: tuple[float, float]) -> Any:
    """Scales a tensor uint8[...] so that 0 and 255 become the ends of ``input_range``: float32[...]."""
    tf = tensorflow()
    low, high = input_range
    images = tf.cast(pixels, tf.float32)
    if high - low != 255:
        images *= (high - low) / 255
    return images + low if low else images


def freeze_function(
    serve: Callable[[Any], list[Any]], shape: Sequence[int | None], names: Sequence[str]
) -> Any:
    """The ``GraphDef`` of a function of ``pixels`` uint8[shape] that returns the tensors ``names``."""
    tf = tensorflow()
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    part = inference_part(serve, shape, tf.uint8)
    frozen = convert_variables_to_constants_v2(_pruned(part, shape), aggressive_inlining=part.aggressive)
    ends = {tensor.op.name: name for tensor, name in zip(frozen.outputs, names, strict=True)}
    (start,) = frozen.inputs
    return rename(frozen.graph.as_graph_def(), {start.op.name: PIXELS, **ends})


def _inlined(traced: Any) -> tuple[Any, bool]:
    """The graph of a concrete function with its calls inlined, and whether that had to be forced.

    TensorFlow does not inline calls whose side effects it cannot keep in order, such as those of graphs with TensorFlow
    1's control flow. That order does not matter here.
    """
    # No public function inlines: a pruned function keeps its calls whole, `tf.config.optimizer` affects running
    # functions and returns no graph, and `extract_sub_graph` of `tf.compat.v1.graph_util` ignores functions.
    from tensorflow.python.framework.convert_to_constants import _run_inline_graph_optimization

    for aggressive in (False, True):
        graph_def = _run_inline_graph_optimization(
            traced, lower_control_flow=False, aggressive_inlining=aggressive
        )
        if not any(node.op in ("PartitionedCall", "StatefulPartitionedCall") for node in graph_def.node):
            break
    return graph_def, aggressive


@dataclass(frozen=True, eq=False)
class InferencePart:
    """The graph that computes a function's outputs, without side effects; its variables are fed.

    Attributes:
      graph_def: its ``GraphDef``; calls are inlined.
      image: the name of the image tensor.
      outputs: the names of the output tensors.
      captures: other fed values by the name of their tensor: a ``tf.Variable``, or a tensor.
      aggressive: whether inlining had to be forced.
    """

    graph_def: Any
    image: str
    outputs: tuple[str, ...]
    captures: Mapping[str, Any]
    aggressive: bool

    @property
    def variables(self) -> list[Any]:
        """The variables among the fed values."""
        return [one for one in self.captures.values() if hasattr(one, "handle")]


def inference_part(
    serve: Callable[[Any], list[Any]], shape: Sequence[int | None], dtype: Any
) -> InferencePart:
    """The part of a function of images that its outputs depend on.

    Args:
      serve: returns the outputs.
      shape, dtype: shape and dtype of the images.

    Raises:
      ModuleError: the outputs depend on a changing state or on a table, or the graph is too large.
    """
    return _part(_traced(serve, shape, dtype))


def _part(traced: Any) -> InferencePart:
    """The part of a concrete function that its outputs depend on.

    Calls are inlined, since a call stays in the graph whole or not at all. The order of side effects is dropped too: it
    would keep a counter alive whose value is never read.
    """
    graph_def, aggressive = _inlined(traced)
    outputs = tuple(tensor.name for tensor in traced.outputs)
    changed = _assigned(graph_def)
    graph_def = _ancestors(graph_def, [node_name(name) for name in outputs])
    present = {node.name for node in graph_def.node}
    variables = {id(variable.handle): variable for variable in traced.graph.variables}
    captures = {
        inner.name: variables.get(id(outer), outer)
        for outer, inner in traced.graph.captures
        if node_name(inner.name) in present
    }
    (pixels,) = (tensor for tensor in traced.inputs if node_name(tensor.name) == PIXELS)
    part = InferencePart(graph_def, pixels.name, outputs, captures, aggressive)
    changed &= {node_name(name) for name in captures}
    tensors = [one for one in captures.values() if not hasattr(one, "handle")]
    _check_state(graph_def, changed, tensors, part.variables)
    return part


def _pruned(part: InferencePart, shape: Sequence[int | None]) -> Any:
    """A concrete function of images uint8[shape] that computes only this part."""
    tf = tensorflow()
    imported = tf.compat.v1.wrap_function(lambda: tf.graph_util.import_graph_def(part.graph_def, name=""), [])
    function = imported.prune([part.image, *part.captures], part.outputs)

    def serve(images: Any) -> list[Any]:
        for variable in part.variables:
            # The graph must own the variables to turn them into constants.
            tf.compat.v1.get_default_graph().watch_variable(variable)
        results = function(images, *(getattr(one, "handle", one) for one in part.captures.values()))
        return list(results) if isinstance(results, (list, tuple)) else [results]

    return _traced(serve, shape, tf.uint8)


def _check_state(graph_def: Any, changed: set[str], tables: Sequence[Any], variables: Sequence[Any]) -> None:
    """Raises ``ModuleError`` if constants cannot replace everything in a graph."""
    if changed or any(node.op in _ASSIGNS for node in all_nodes(graph_def)):
        raise ModuleError(
            "its outputs depend on a state that each call changes, such as a random generator or a counter, so "
            f"answers may change from call to call; {INFERENCE_ONLY}"
        )
    if drawn := _random(graph_def):
        raise ModuleError(
            f"its outputs depend on random numbers ({', '.join(drawn)}), so answers may change from call to call; "
            f"{INFERENCE_ONLY}"
        )
    if any(tensor.dtype == tensorflow().resource for tensor in tables):
        raise ModuleError(
            "its outputs depend on a lookup table or another resource that constants cannot replace"
        )
    size = sum(variable.shape.num_elements() * variable.dtype.size for variable in variables)
    if size > MAX_GRAPH_BYTES:
        raise ModuleError(f"it has {size / 1e9:.1f} GB of weights, but a graph can only hold 2 GB")


def _assigned(graph_def: Any) -> set[str]:
    """The inputs of a graph to which it assigns values."""
    nodes = {node.name: node for node in graph_def.node}
    found = set()
    for node in graph_def.node:
        if node.op in _ASSIGNS:
            name = node_name(node.input[0])
            while nodes[name].op == "Identity":
                name = node_name(nodes[name].input[0])
            found.add(name)
    return found


def draws(op: str) -> bool:
    """Whether an op draws random numbers: new ones each time, or from a seed, which may change each time."""
    return op in _RANDOM or op.startswith(("Random", "StatelessRandom"))


def _random(graph_def: Any) -> list[str]:
    """The ops of a graph that draw random numbers each time, except in a branch that may never run."""
    nodes = {node.name: node for node in graph_def.node}
    return sorted(
        {
            node.op
            for node in graph_def.node
            if draws(node.op) and not node.op.startswith("Stateless") and not _in_branch(nodes, node.name)
        }
    )


def _in_branch(nodes: Mapping[str, Any], name: str) -> bool:
    """Whether TensorFlow 1's control flow decides if a node runs."""
    waiting = [name]
    seen: set[str] = set()
    while waiting:
        node = nodes[waiting.pop()]
        if node.op in _V1_CONTROL_FLOW:
            return True
        fresh = {node_name(one) for one in node.input} - seen
        seen |= fresh
        waiting += fresh
    return False


def all_nodes(graph_def: Any) -> Iterator[Any]:
    """The nodes of a graph, and those of the functions that it calls."""
    yield from graph_def.node
    library = {function.signature.name: function for function in graph_def.library.function}
    waiting, seen = list(graph_def.node), set()
    while waiting:
        node = waiting.pop()
        for value in node.attr.values():
            for name in (value.func.name, *(one.name for one in value.list.func)):
                if name in library and name not in seen:
                    seen.add(name)
                    yield from library[name].node_def
                    waiting += library[name].node_def


def _ancestors(graph_def: Any, ends: Sequence[str]) -> Any:
    """The part of a graph that some nodes depend on.

    It keeps control inputs of TensorFlow 1's control flow, and assertions: an image that the module refuses must not
    get a row.
    """
    nodes = {node.name: node for node in graph_def.node}
    assertions = _assertions(graph_def)
    kept, waiting = set(), list(ends)
    while waiting:
        name = waiting.pop()
        if name in kept:
            continue
        kept.add(name)
        node = nodes[name]
        node.input[:] = [
            one
            for one in node.input
            if not one.startswith("^") or _decides(nodes, one) or _asserts(nodes, assertions, one)
        ]
        waiting += [node_name(one) for one in node.input]
    part = type(graph_def)()
    part.versions.CopyFrom(graph_def.versions)
    part.library.CopyFrom(graph_def.library)
    part.node.extend(node for node in graph_def.node if node.name in kept)
    return part


def _decides(nodes: Mapping[str, Any], control: str) -> bool:
    """Whether a control input decides the branch of TensorFlow 1's control flow that a node is in."""
    node = nodes[node_name(control)]
    if node.op in ("Identity", "RefIdentity", "NoOp"):
        sources = [nodes[node_name(one)].op for one in node.input]
        return any(op in _V1_CONTROL_FLOW for op in sources)
    return node.op in _V1_CONTROL_FLOW


def _assertions(graph_def: Any) -> set[str]:
    """The names of the nodes that assert, or call a function that does."""
    library = {function.signature.name: function for function in graph_def.library.function}

    def asserts(node: Any, seen: frozenset[str]) -> bool:
        if node.op == "Assert":
            return True
        called = {value.func.name for value in node.attr.values()} & library.keys() - seen
        return any(asserts(inner, seen | called) for name in called for inner in library[name].node_def)

    return {node.name for node in graph_def.node if asserts(node, frozenset())}


def _asserts(nodes: Mapping[str, Any], assertions: set[str], control: str) -> bool:
    """Whether a control input is an assertion, or groups some."""
    waiting, seen = [node_name(control)], set[str]()
    while waiting:
        name = waiting.pop()
        if name in assertions:
            return True
        if name not in seen and nodes[name].op in ("Identity", "NoOp"):
            waiting += [node_name(one) for one in nodes[name].input]
        seen.add(name)
    return False


def node_name(text: str) -> str:
    """The name of the node in ``NAME``, ``NAME:INDEX`` or ``^NAME``."""
    return text.removeprefix("^").partition(":")[0]


def rename(graph_def: Any, names: dict[str, str]) -> Any:
    """The graph with these names for these nodes, and ``n0``, ``n1``, … for all others.

    TensorFlow names frozen variables after a counter of the process.
    """
    renamed = type(graph_def)()
    renamed.CopyFrom(graph_def)
    for index, node in enumerate(renamed.node):
        names.setdefault(node.name, f"n{index}")
    for node in renamed.node:
        node.name = names[node.name]
        node.input[:] = [_renamed_input(one, names) for one in node.input]
        # Placement hints refer to nodes by their old names.
        node.attr.pop("_class", None)
    return renamed


def _renamed_input(text: str, names: dict[str, str]) -> str:
    """``NAME``, ``NAME:INDEX`` or, as a control input, ``^NAME``."""
    control = "^" if text.startswith("^") else ""
    name, colon, index = text.removeprefix("^").partition(":")
    return f"{control}{names[name]}{colon}{index}"
