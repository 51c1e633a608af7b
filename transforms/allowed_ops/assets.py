"""Checks the files that a module's graph names: they must be the module's own assets."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

from beamlabel.transforms.allowed_ops.meta_graph import MetaGraph
from beamlabel.transforms.allowed_ops.operations import Finding, called, node_of, passed_on, placed_nodes
from beamlabel.transforms.allowed_ops.saver_part import argument_of

FROM_TEXT = frozenset({"InitializeTableFromTextFile", "InitializeTableFromTextFileV2"})
_CALLS = frozenset({"PartitionedCall", "StatefulPartitionedCall"})
_OPEN = frozenset({"Const", "Placeholder", "PlaceholderWithDefault"})
# The nodes that a loader runs after it feeds the names of the assets.
_INITIALIZERS = frozenset({"saved_model_main_op", "legacy_init_op", "table_initializer"})
_INIT_SIGNATURE = "__saved_model_init_op"
_COLLECTION = "saved_model_assets"
_WHY = "a lookup table may only be read from an asset of the module"


def asset_findings(graph: MetaGraph) -> Iterator[Finding]:
    """Finds assets outside the module, and lookup tables that are read from files other than assets."""
    for asset in _assets(graph):
        path = PurePosixPath(asset.filename)
        if not asset.filename or path.is_absolute() or ".." in path.parts or "\\" in asset.filename:
            yield Finding(
                asset.filename or "an asset without a name",
                graph.name,
                "an asset must lie in the directory assets/",
            )
    yield from _tables(graph)


def _assets(graph: MetaGraph) -> Iterator[Any]:
    proto = graph.proto
    yield from proto.asset_file_def
    if _COLLECTION in proto.collection_def:
        kind = type(type(proto)().asset_file_def.add())
        for one in proto.collection_def[_COLLECTION].any_list.value:
            yield kind.FromString(one.value)


def _tables(graph: MetaGraph) -> Iterator[Finding]:
    fed = {node_of(one.tensor_info.name) for one in _assets(graph)}
    fed = {name for name in fed if name in graph.nodes and graph.nodes[name].op in _OPEN}
    for node in graph.proto.graph_def.node:
        if node.op in FROM_TEXT and not _is_asset(graph, node.input[1:2], fed):
            yield Finding(node.op, f"{graph.name}, node {node.name!r}", _WHY)
        elif node.op in FROM_TEXT:
            asking = graph.asked_for(graph.after([node.name])).values()
            by = [one for one in asking if not _is_initializer(one)]
            if by:
                yield Finding(
                    node.op,
                    f"{graph.name}, node {node.name!r}",
                    f"{by[0]} would run it before a loader feeds the asset's name",
                )
    for function in graph.proto.graph_def.library.function:
        arguments = [one.name for one in function.signature.input_arg]
        inner = {one.name: one for one in function.node_def}
        for node in function.node_def:
            if node.op not in FROM_TEXT:
                continue
            place = argument_of(inner, arguments, node.input[1]) if len(node.input) > 1 else None
            if place is None or not _Callers(graph, fed).give_assets(function.signature.name, place):
                yield Finding(node.op, f"function {function.signature.name!r}, node {node.name!r}", _WHY)


def _is_initializer(by: str) -> bool:
    return by in {f"the collection {name!r}" for name in _INITIALIZERS} | {
        f"the signature {_INIT_SIGNATURE!r}"
    }


def _is_asset(graph: MetaGraph, names: Any, fed: set[str]) -> bool:
    """Whether the input is a tensor that a loader feeds with an asset's name, or passes such a tensor on."""
    for name in names:
        origin = node_of(passed_on(graph.nodes, name))
        node = graph.nodes.get(origin)
        if node is not None and node.op == "ReadVariableOp" and node.input:
            return _holds_asset(graph, node_of(node.input[0]), fed)
        return origin in fed
    return False


def _holds_asset(graph: MetaGraph, variable: str, fed: set[str]) -> bool:
    """Whether a variable only ever holds an asset's name; TensorFlow 2 stores the names in variables.

    Only this graph may refer to the variable, and it may assign only such a name to it.
    """
    node = graph.nodes.get(variable)
    if node is None or node.op != "VarHandleOp" or not node.attr["shared_name"].s:
        return False
    handles = [one for one, _ in placed_nodes(graph.proto.graph_def, "") if one.op == "VarHandleOp"]
    name = node.attr["shared_name"].s
    if sum(name in (one.attr["shared_name"].s, one.name.encode()) for one in handles) != 1:
        return False
    users = [
        one
        for one in graph.proto.graph_def.node
        if any(node_of(given) == variable for given in one.input if not given.startswith("^"))
    ]
    return all(
        user.op in ("VarIsInitializedOp", "ReadVariableOp")
        or (
            user.op == "AssignVariableOp"
            and node_of(user.input[0]) == variable
            and node_of(passed_on(graph.nodes, user.input[1])) in fed
        )
        for user in users
    )


class _Callers:
    """All callers of a function, to check whether each of them passes it an asset."""

    def __init__(self, graph: MetaGraph, fed: set[str]) -> None:
        self._graph = graph
        self._fed = fed
        self._asked: set[tuple[str, int]] = set()

    def give_assets(self, name: str, place: int) -> bool:
        """Whether a function's argument at a place is always an asset; there must be at least one caller."""
        if (name, place) in self._asked:
            return False
        self._asked.add((name, place))
        found = [*self._objects(name, place), *self._nodes(name, place)]
        return bool(found) and all(found)

    def _objects(self, name: str, place: int) -> Iterator[bool]:
        objects = self._graph.proto.object_graph_def
        if name not in objects.concrete_functions:
            return
        bound = objects.concrete_functions[name].bound_inputs
        count = next(
            len(one.signature.input_arg)
            for one in self._graph.proto.graph_def.library.function
            if one.signature.name == name
        )
        # Captured inputs follow a function's other arguments.
        number = place - (count - len(bound))
        yield (
            number >= 0
            and 0 <= bound[number] < len(objects.nodes)
            and objects.nodes[bound[number]].WhichOneof("kind") == "asset"
        )

    def _nodes(self, name: str, place: int) -> Iterator[bool]:
        for node in self._graph.proto.graph_def.node:
            if called(node, {name}):
                is_call = node.op in _CALLS or node.op == name
                yield is_call and _is_asset(self._graph, node.input[place : place + 1], self._fed)
        for function in self._graph.proto.graph_def.library.function:
            arguments = [one.name for one in function.signature.input_arg]
            inner = {one.name: one for one in function.node_def}
            for node in function.node_def:
                if not called(node, {name}):
                    continue
                is_call = (node.op in _CALLS or node.op == name) and place < len(node.input)
                outer = argument_of(inner, arguments, node.input[place]) if is_call else None
                yield outer is not None and self.give_assets(function.signature.name, outer)
