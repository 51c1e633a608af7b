"""Rewrites TensorFlow 1 graphs so that TensorFlow 2 can call them with other variables."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable
from typing import Any

from beamlabel.transforms.inference.artifact import ModuleError
from beamlabel.transforms.inference.lazy_tensorflow import tensorflow

HANDLE, REFERENCES = "VarHandleOp", ("Variable", "VariableV2")
SEED = "beamlabel_seed"
_ASSIGN = {
    "Assign": "AssignVariableOp",
    "AssignAdd": "AssignAddVariableOp",
    "AssignSub": "AssignSubVariableOp",
}
_STATELESS = {
    "RandomUniform": "StatelessRandomUniform",
    "RandomStandardNormal": "StatelessRandomNormal",
    "TruncatedNormal": "StatelessTruncatedNormal",
}
_OUTPUT = re.compile(r":\d+$")


def node_of(name: str) -> str:
    """The node of a tensor or input name: ``^a/b`` and ``a/b:1`` belong to ``a/b``."""
    return _OUTPUT.sub("", name.removeprefix("^"))


def part_of(graph_def: Any, tensors: Iterable[str]) -> Any:
    """The nodes of a graph that some tensors or nodes depend on, in order, with the graph's functions.

    Raises:
      ModuleError: the graph has no such node.
    """
    by_name = {node.name: node for node in graph_def.node}
    waiting = [node_of(name) for name in tensors]
    found: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        if name not in by_name:
            raise ModuleError(f"its graph refers to a missing node: {name}")
        found.add(name)
        waiting += [node_of(one) for one in by_name[name].input]
    part = type(graph_def)()
    part.versions.CopyFrom(graph_def.versions)
    part.library.CopyFrom(graph_def.library)
    part.node.extend(node for node in graph_def.node if node.name in found)
    return part


def with_resources(graph_def: Any) -> Any:
    """A copy with resources instead of the reference variables of TensorFlow before 1.11; drops placement hints.

    Raises:
      ModuleError: an op takes a reference and has no counterpart for resources.
    """
    from tensorflow.python.framework import op_def_registry

    references = {node.name: node for node in graph_def.node if node.op in REFERENCES}
    copy = type(graph_def)()
    copy.CopyFrom(graph_def)
    del copy.node[:]
    # Nodes that return a reference: variables and, in TensorFlow 1, assignments to them.
    given = dict.fromkeys(references, "")
    for node in graph_def.node:
        if node.op in _ASSIGN and node_of(node.input[0]) in references:
            given[node.name] = node.name
    for node in graph_def.node:
        new = copy.node.add()
        new.CopyFrom(node)
        new.attr.pop("_class", None)
        if node.name in references:
            _to_handle(new, copy)
            continue
        is_assignment = node.name in given
        if is_assignment:
            _to_assignment(new, copy, node_of(node.input[0]), references)
        definition = op_def_registry.get(node.op)
        for place, name in enumerate(node.input):
            if name.startswith("^") or node_of(name) not in given or (is_assignment and place == 0):
                continue
            if definition is not None and any(one.is_ref for one in definition.input_arg):
                raise ModuleError(
                    f"{node.op} changes a reference variable of TensorFlow 1 in an unsupported way"
                )
            new.input[place] = _read_name(node_of(name))
    return copy


def _to_handle(node: Any, graph_def: Any) -> None:
    dtype, shape = node.attr["dtype"].type, node.attr["shape"].shape
    node.op = HANDLE
    node.attr.clear()
    node.attr["dtype"].type = dtype
    node.attr["shape"].shape.CopyFrom(shape)
    node.attr["shared_name"].s = node.name.encode()
    _add_read(graph_def, node.name, node.name, dtype)


def _to_assignment(node: Any, graph_def: Any, variable: str, references: dict[str, Any]) -> None:
    dtype = references[variable].attr["dtype"].type
    node.op = _ASSIGN[node.op]
    node.attr.clear()
    node.attr["dtype"].type = dtype
    node.input[0] = variable
    _add_read(graph_def, node.name, variable, dtype, after=node.name)


def _add_read(graph_def: Any, of: str, variable: str, dtype: int, after: str | None = None) -> None:
    read = graph_def.node.add(name=_read_name(of), op="ReadVariableOp")
    read.input.extend([variable, *([f"^{after}"] if after else [])])
    read.attr["dtype"].type = dtype


def _read_name(of: str) -> str:
    return f"{of}/beamlabel_read"


def make_repeatable(graph_def: Any) -> list[str]:
    """Rewrites a graph in place so that its random numbers are a function of seeds that are fed.

    Returns:
      The tensors to feed, each with int64[2].
    """
    tf = tensorflow()
    fed = []
    for node in graph_def.node:
        if node.op not in _STATELESS:
            continue
        dtype, shape_type = node.attr["dtype"].type, node.attr["T"].type
        node.op = _STATELESS[node.op]
        node.attr.clear()
        node.attr["dtype"].type = dtype
        node.attr["T"].type = shape_type
        node.attr["Tseed"].type = tf.int64.as_datatype_enum
        fed.append(f"{SEED}/{node.name}:0")
        # Control inputs must stay last.
        node.input.insert(1, fed[-1])
    return fed


def salt(name: str) -> int:
    """A number that distinguishes one random op from another."""
    return zlib.crc32(name.encode())


def batch_norms(train: Any, infer: Any) -> list[tuple[str, str, str]]:
    """The fused batch normalizations of a graph in training mode.

    Args:
      train: the graph in training mode.
      infer: the same network's graph for inference, which reads the moving averages.

    Returns:
      For each: the name of its node in ``train`` and the variables of its moving mean and moving variance.
    """
    nodes = {node.name: node for node in infer.node}
    fused = [node for node in infer.node if node.op.startswith("FusedBatchNorm")]
    by_scale: dict[tuple[str | None, ...], Any] = {}
    for node in fused:
        by_scale.setdefault(tuple(_variable(nodes, name) for name in node.input[1:3]), node)
    train_nodes = {node.name: node for node in train.node}
    found = []
    for node in train.node:
        # An attribute may be left out if it has its default, which is true here.
        is_training = "is_training" not in node.attr or node.attr["is_training"].b
        if not node.op.startswith("FusedBatchNorm") or not is_training:
            continue
        same = nodes.get(node.name)
        if same is None or same.op != node.op:
            scale = tuple(_variable(train_nodes, name) for name in node.input[1:3])
            same = by_scale.get(scale) if any(scale) else None
        if same is None:
            continue
        mean, variance = (_variable(nodes, name) for name in same.input[3:5])
        if mean and variance:
            found.append((node.name, mean, variance))
    return found


def _variable(nodes: dict[str, Any], name: str) -> str | None:
    """The variable that a tensor is read from; None if there is none."""
    node = nodes.get(node_of(name))
    while node is not None and node.op in ("Identity", "ReadVariableOp") and node.input:
        node = nodes.get(node_of(node.input[0]))
    return node.name if node is not None and node.op in (HANDLE, *REFERENCES) else None
