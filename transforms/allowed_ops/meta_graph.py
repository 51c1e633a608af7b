"""A meta graph's nodes as a graph: the inputs and the consumers of a node, and references to nodes by name."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import Any

from beamlabel.transforms.allowed_ops.operations import called, node_of

# Collections with TensorFlow 1's descriptions of variables and savers. A loader only creates objects from them: it runs
# neither the nodes that initialize a variable nor those that save it. It does run those of `local_variables`.
_DESCRIBING = frozenset(
    {"variables", "trainable_variables", "model_variables", "moving_average_variables", "savers"}
)


class MetaGraph:
    """A ``MetaGraphDef``, with its functions by name.

    Attributes:
      proto: the ``MetaGraphDef``.
      name: the graph's name in messages.
      nodes: the graph's nodes, by name.
      functions: the nodes of each function in the library, by the function's name.
    """

    def __init__(self, proto: Any) -> None:
        self.proto = proto
        self.name = "graph {" + ", ".join(sorted(proto.meta_info_def.tags)) + "}"
        self.nodes: Mapping[str, Any] = {node.name: node for node in proto.graph_def.node}
        self.functions: dict[str, list[Any]] = defaultdict(list)
        for function in proto.graph_def.library.function:
            self.functions[function.signature.name] += function.node_def

    @cached_property
    def _consumers(self) -> Mapping[str, list[str]]:
        found = defaultdict(list)
        for node in self.proto.graph_def.node:
            for name in node.input:
                found[node_of(name)].append(node.name)
        return found

    def made_of(self, names: Iterable[str]) -> set[str]:
        """These nodes, and all nodes that must run before them."""
        return _closure(
            names,
            lambda name: [node_of(one) for one in self.nodes[name].input] if name in self.nodes else [],
        )

    def after(self, names: Iterable[str]) -> set[str]:
        """These nodes, and all nodes that depend on them."""
        return _closure(names, lambda name: self._consumers.get(name, []))

    def holding(self, operations: Iterable[str]) -> set[str]:
        """The functions that contain one of these operations, or call a function that does."""
        wanted = set(operations)
        found = {name for name, nodes in self.functions.items() if any(node.op in wanted for node in nodes)}
        grown = True
        while grown:
            more = {
                name
                for name, nodes in self.functions.items()
                if name not in found and any(called(node, found) for node in nodes)
            }
            grown = bool(more)
            found |= more
        return found

    def asked_for(self, names: set[str]) -> dict[str, str]:
        """Maps each of these nodes that something outside the graph may run to the name of that something.

        A saver's references to its own nodes do not count, see ``saver_part``.
        """
        proto = self.proto
        found: dict[str, str] = {}
        for key, signature in proto.signature_def.items():
            for name in _tensor_names(signature):
                found.setdefault(name, f"the signature {key!r}")
        for asset in proto.asset_file_def:
            found.setdefault(node_of(asset.tensor_info.name), "an asset")
        if proto.saver_def.filename_tensor_name:
            found.setdefault(node_of(proto.saver_def.filename_tensor_name), "the saver's file name")
        for key, collection in proto.collection_def.items():
            for name in collection.node_list.value:
                found.setdefault(node_of(name), f"the collection {key!r}")
            if key in _DESCRIBING:
                continue
            # Descriptions come in many kinds, so a node counts as named wherever its name occurs in the text.
            texts = [*collection.bytes_list.value, *(one.value for one in collection.any_list.value)]
            for name in names:
                if any(name.encode() in text for text in texts):
                    found.setdefault(name, f"the collection {key!r}")
        return {name: by for name, by in found.items() if name in names}


def _tensor_names(signature: Any) -> Iterator[str]:
    for info in (*signature.inputs.values(), *signature.outputs.values()):
        sparse, parts = info.coo_sparse, info.composite_tensor.components
        names = (
            info.name,
            sparse.values_tensor_name,
            sparse.indices_tensor_name,
            sparse.dense_shape_tensor_name,
            *(one.name for one in parts),
        )
        yield from (node_of(name) for name in names if name)


def _closure(names: Iterable[str], following: Any) -> set[str]:
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += following(name)
    return found
