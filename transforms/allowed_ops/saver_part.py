"""Checks the part of a graph that saves and restores variables: only a loader's restore may run it.

TensorFlow writes it into every module: `SaveV2`, `MergeV2Checkpoints` and `RestoreV2` in the graph itself, or in the
functions `traced_save` and `traced_restore` that the graph calls
(tensorflow/python/training/saver.py, tensorflow/python/checkpoint/functional_saver.py). A `SaverDef` names the ends:
a loader feeds the tensor `filename_tensor_name` with the module's own checkpoint and runs `restore_op_name`. Nothing
runs `save_tensor_name`. Anything else that runs one of these nodes would write files, or read files of others.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from beamlabel.transforms.allowed_ops.meta_graph import MetaGraph
from beamlabel.transforms.allowed_ops.operations import Finding, called, node_of, passed_on

SAVING = frozenset({"SaveV2", "MergeV2Checkpoints"})
RESTORING = frozenset({"RestoreV2"})
_FED = frozenset({"Const", "Placeholder", "PlaceholderWithDefault"})
# Default file names in savers of TensorFlow 1 before a loader feeds one, and parts of the name of a shard.
_UNTOLD = re.compile(rb"model|_temp_[0-9a-f]{32}/part|_temp|/?part|")
_NOT_ITS_OWN = "only the restore of the module's own checkpoint may read files"


def saver_findings(graph: MetaGraph) -> Iterator[Finding]:
    """Finds nodes that save or restore outside a saver, or that something other than a loader runs."""
    functions = {kind: graph.holding(kind) for kind in (SAVING, RESTORING)}
    yield from _named_functions(graph, functions[SAVING] | functions[RESTORING])
    saving, restoring = (
        {node.name for node in graph.proto.graph_def.node if node.op in kind or called(node, functions[kind])}
        for kind in (SAVING, RESTORING)
    )
    if not (saving or restoring):
        return
    for name in sorted(saving | restoring):
        after = graph.after([name])
        for by in sorted(set(graph.asked_for(after).values())):
            yield _finding(graph, name, f"{by} would run it")
    yield from _savers(graph, saving, restoring)


def _savers(graph: MetaGraph, saving: set[str], restoring: set[str]) -> Iterator[Finding]:
    savers = list(_saver_defs(graph))
    saved = graph.made_of(node_of(one.save_tensor_name) for one in savers)
    for name in sorted(saving - saved):
        if not (graph.nodes[name].op in SAVING and _is_untold(graph, name)):
            yield _finding(graph, name, "it belongs to no saver of the module")
    restored: set[str] = set()
    for saver in savers:
        parts = graph.made_of([node_of(saver.restore_op_name)])
        for name in sorted(parts & saving):
            yield _finding(graph, name, "the restore of the checkpoint would run it")
        for name in sorted(parts & restoring):
            restored.add(name)
            if not _reads_checkpoint(graph, name, node_of(saver.filename_tensor_name)):
                yield _finding(graph, name, _NOT_ITS_OWN)
    for name in sorted(restoring - restored):
        is_left_over = _is_untold(graph, name) or _would_begin(graph, name)
        if not (graph.nodes[name].op in RESTORING and is_left_over):
            yield _finding(graph, name, _NOT_ITS_OWN)


def _named_functions(graph: MetaGraph, functions: set[str]) -> Iterator[Finding]:
    """Finds functions that save or restore and that something other than a node of the graph may call."""
    proto = graph.proto
    objects = proto.object_graph_def.SerializeToString() if functions else b""
    by_graph: set[str] = set()
    for node in proto.graph_def.node:
        by_graph |= called(node, functions)
    for nodes in graph.functions.values():
        for node in nodes:
            by_graph |= called(node, functions)
    gradients = {
        name for one in proto.graph_def.library.gradient for name in (one.function_name, one.gradient_func)
    }
    for function in proto.graph_def.library.function:
        name = function.signature.name
        if name not in functions:
            continue
        why = ""
        if name.encode() in objects:
            why = "an object of the module can call it"
        elif name in gradients or "api_implements" in function.attr:
            why = "TensorFlow can substitute it for another function"
        elif name not in by_graph:
            why = "no saver calls it"
        if why:
            # Of two functions with one name, the other may be the one that saves.
            node = next((one for one in function.node_def if _is_saver(one, functions)), None)
            if node is not None:
                yield Finding(node.op, f"function {name!r}, node {node.name!r}", why)


def _is_saver(node: Any, functions: set[str]) -> bool:
    return node.op in SAVING | RESTORING or bool(called(node, functions))


@dataclass(frozen=True)
class _Saver:
    save_tensor_name: str
    restore_op_name: str
    filename_tensor_name: str


def _saver_defs(graph: MetaGraph) -> Iterator[_Saver]:
    proto = graph.proto
    kind = type(proto.saver_def)
    left = proto.collection_def["savers"].bytes_list.value if "savers" in proto.collection_def else ()
    for one in (proto.saver_def, *(kind.FromString(text) for text in left)):
        if one.restore_op_name:
            yield _Saver(one.save_tensor_name, one.restore_op_name, one.filename_tensor_name)


def _reads_checkpoint(graph: MetaGraph, name: str, filename: str) -> bool:
    """Whether a restoring node reads the file whose name a loader feeds."""
    if filename not in graph.nodes or graph.nodes[filename].op not in _FED:
        return False
    node = graph.nodes[name]
    if node.op in RESTORING:
        return bool(node.input) and _is_fed(graph, node.input[0], filename)
    places = set()
    for function in graph.proto.graph_def.library.function:
        if not called(node, {function.signature.name}):
            continue
        arguments = [one.name for one in function.signature.input_arg]
        inner = {one.name: one for one in function.node_def}
        for one in function.node_def:
            if one.op in RESTORING:
                place = argument_of(inner, arguments, one.input[0])
                places.add(place)
            elif called(one, graph.holding(RESTORING)):
                places.add(None)
    return bool(places) and all(
        place is not None and place < len(node.input) and _is_fed(graph, node.input[place], filename)
        for place in places
    )


def _is_fed(graph: MetaGraph, name: str, filename: str) -> bool:
    """Whether an input is the fed tensor itself, not one computed from it."""
    return filename in (node_of(name), node_of(passed_on(graph.nodes, name)))


def argument_of(nodes: dict[str, Any], arguments: list[str], name: str) -> int | None:
    """The index of the function argument that an inner input passes on; None if the input is computed."""
    name = passed_on(nodes, name)
    return arguments.index(name) if name in arguments else None


def _would_begin(graph: MetaGraph, name: str) -> bool:
    """Whether a node is part of the initialization of TensorFlow 1's variables, which no loader runs."""
    after = [one.encode() for one in graph.after([name])]
    return any(
        one in text
        for key in ("variables", "trainable_variables", "model_variables")
        if key in graph.proto.collection_def
        for text in graph.proto.collection_def[key].bytes_list.value
        for one in after
    )


def _is_untold(graph: MetaGraph, name: str) -> bool:
    """Whether the file name of a node is a saver's default, which no loader has replaced."""
    node = graph.nodes[name]
    parts = graph.made_of([node_of(node.input[0])]) if node.input else set()
    texts = [
        text
        for part in parts
        if part in graph.nodes and graph.nodes[part].op == "Const"
        for text in graph.nodes[part].attr["value"].tensor.string_val
    ]
    return all(_UNTOLD.fullmatch(text) for text in texts)


def _finding(graph: MetaGraph, name: str, why: str) -> Finding:
    return Finding(graph.nodes[name].op, f"{graph.name}, node {name!r}", why)
