"""Loads TF1 Hub modules: SavedModels with an untagged meta graph, made by ``hub.create_module_spec``.

All signatures share one graph, so one pass can compute outputs of several.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from beamlabel.transforms.inference.lazy_tensorflow import tensorflow
from beamlabel.transforms.module.checked_files import CheckedSavedModel
from beamlabel.transforms.module.outputs import Input, Output, Shape, Signature

KIND = "tf1_hub"
# The signatures to search first for an output named by its key alone.
_ORDER = ("image_classification", "image_feature_vector", "default")


class Tf1HubSource:
    """A ``ModuleSource`` for TF1 Hub modules."""

    kind = KIND
    one_graph = True

    def __init__(self, saved_model: CheckedSavedModel, meta_graph: Any) -> None:
        """Loads the untagged meta graph, ``meta_graph``, of a SavedModel."""
        self._loaded = saved_model.load([])
        self._signature_def = meta_graph.signature_def
        names = [name for name in self._signature_def if self._signature_def[name].outputs]
        names.sort(key=lambda name: (_ORDER.index(name) if name in _ORDER else len(_ORDER), name))
        self.signatures: Mapping[str, Signature] = {
            name: _signature(name, self._signature_def[name]) for name in names
        }
        self.groups: Sequence[Sequence[str]] = [
            *([name] for name in names if name in _ORDER),
            [name for name in names if name not in _ORDER],
        ]

    def function_of(self, outputs: Sequence[Output]) -> Callable[[Any], Sequence[Any]]:
        """Returns one pruned function for all the tensors; each signature's own placeholder is fed."""
        feeds = sorted({self._feed(output) for output in outputs})
        fetches = [self._signature_def[one.signature].outputs[one.key].name for one in outputs]
        pruned = self._loaded.prune(feeds, fetches)

        def run(images: Any) -> Sequence[Any]:
            results = pruned(*[images] * len(feeds))
            return results if isinstance(results, (list, tuple)) else [results]

        return run

    def _feed(self, output: Output) -> str:
        key = self.signatures[output.signature].image_input().key
        return self._signature_def[output.signature].inputs[key].name


def _signature(name: str, definition: Any) -> Signature:
    """A ``SignatureDef`` as a ``Signature``, the output ``default`` first."""
    tf = tensorflow()
    inputs = (
        Input(key, _shape(info), tf.dtypes.as_dtype(info.dtype).name)
        for key, info in sorted(definition.inputs.items())
    )
    keys = sorted(definition.outputs, key=lambda key: (key != "default", key))
    outputs = (
        Output(name, key, _shape(info), tf.dtypes.as_dtype(info.dtype).name)
        for key, info in ((key, definition.outputs[key]) for key in keys)
    )
    return Signature(name, tuple(inputs), tuple(outputs))


def _shape(info: Any) -> Shape | None:
    """The shape in a ``TensorInfo``; -1 there means unknown."""
    if info.tensor_shape.unknown_rank:
        return None
    return tuple(None if dim.size < 0 else dim.size for dim in info.tensor_shape.dim)
