"""Finds the parts of a SavedModel's protocol buffer that are not allowed to run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from beamlabel.transforms.allowed_ops.assets import FROM_TEXT, asset_findings
from beamlabel.transforms.allowed_ops.meta_graph import MetaGraph
from beamlabel.transforms.allowed_ops.operations import Finding, is_allowed, placed_nodes
from beamlabel.transforms.allowed_ops.saver_part import RESTORING, SAVING, saver_findings

_OF_THEIR_OWN = SAVING | RESTORING | FROM_TEXT


def unsafe_in_saved_model(saved_model: Any) -> list[Finding]:
    """The parts of a SavedModel that are not allowed, in all its meta graphs, including those that are never loaded.

    Every node of the graph and of every function in its library counts, called or not: the bodies of loops and branches
    are such functions. A saver's nodes, and lookup tables read from the module's assets, are exempt under the
    conditions of ``saver_part`` and ``assets``.

    Args:
      saved_model: a ``SavedModel``.
    """
    found: dict[Finding, None] = {}
    for proto in saved_model.meta_graphs:
        found |= dict.fromkeys(_meta_graph(MetaGraph(proto)))
    return list(found)


def _meta_graph(graph: MetaGraph) -> Iterator[Finding]:
    for node, place in placed_nodes(graph.proto.graph_def, graph.name):
        if node.op not in _OF_THEIR_OWN and not is_allowed(node.op, graph.functions):
            yield Finding(node.op, place)
    yield from saver_findings(graph)
    yield from asset_findings(graph)
