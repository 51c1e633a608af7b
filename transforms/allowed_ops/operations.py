"""The operations that a graph may contain, and a search for others in a graph."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any


@dataclass(frozen=True)
class Finding:
    """A part of a module that is not allowed.

    Attributes:
      what: the operation, or a file's name.
      place: the graph or function, and the node.
      why: the problem; empty for an operation that is never allowed.
    """

    what: str
    place: str
    why: str = ""

    def __str__(self) -> str:
        return f"{self.what} ({self.place})" + (f": {self.why}" if self.why else "")


@cache
def allowed_operations() -> frozenset[str]:
    """The names in ``operations.txt``, which also explains how they were chosen."""
    text = resources.files(__package__).joinpath("operations.txt").read_text(encoding="utf-8")
    return frozenset(line for line in text.splitlines() if line and not line.startswith("#"))


def unsafe_in_graph(graph_def: Any) -> list[Finding]:
    """The operations in a ``GraphDef`` and its functions that are not allowed, for a graph that restores nothing."""
    calls = {function.signature.name for function in graph_def.library.function}
    return [
        Finding(node.op, place)
        for node, place in placed_nodes(graph_def, "graph")
        if not is_allowed(node.op, calls)
    ]


def is_allowed(op: str, calls: Collection[str]) -> bool:
    """Whether an operation is allowed, or calls a function by its name.

    Args:
      op: the operation of a node.
      calls: the names of the graph's functions. TensorFlow's operations begin with a capital; a function with the name
        of an operation would be mistaken for it.
    """
    return op in allowed_operations() or (op in calls and not op[:1].isupper())


def placed_nodes(graph_def: Any, graph: str) -> Iterator[tuple[Any, str]]:
    """Every node of a graph and of all its functions, called or not, with its place."""
    for node in graph_def.node:
        yield node, f"{graph}, node {node.name!r}"
    for function in graph_def.library.function:
        for node in function.node_def:
            yield node, f"function {function.signature.name!r}, node {node.name!r}"


def called(node: Any, names: Collection[str]) -> set[str]:
    """The functions among ``names`` that a node calls or names in any attribute."""
    found = {node.op} if node.op in names else set()
    for value in node.attr.values():
        texts: Iterable[str] = (
            value.func.name,
            *(one.name for one in value.list.func),
            value.s.decode("utf-8", "replace"),
            *(one.decode("utf-8", "replace") for one in value.list.s),
        )
        found.update(text for text in texts if text in names)
    return found


def passed_on(nodes: Mapping[str, Any], name: str) -> str:
    """The origin of an input, traced through nodes that pass the same tensor on."""
    seen = set()
    while name not in seen:
        seen.add(name)
        node = nodes.get(node_of(name))
        if node is not None and node.op == "Identity" and node.input:
            name = node.input[0]
    return name


def node_of(name: str) -> str:
    """The node in the name of a tensor or an input: ``^a/b``, ``a/b:1`` and, in functions, ``a/b:out:1``."""
    return name.removeprefix("^").partition(":")[0]
