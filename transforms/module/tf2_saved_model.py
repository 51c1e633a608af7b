"""TF2 SavedModels: objects with signatures, callable or not; also what Keras exports."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from beamlabel.transforms.inference.lazy_tensorflow import tensorflow
from beamlabel.transforms.module.outputs import Input, Output, Shape, Signature

KIND = "tf2_saved_model"
KERAS_KIND = "keras_saved_model"
SERVE = "serve"
# The name under which the object itself is listed among its signatures.
CALL = "__call__"
_ORDER = ("serving_default", "serve", CALL)
# Attributes that Keras 3 leaves on the root object: `Model.export()` the first, `tf.saved_model.save(model)`
# the other. Keras 2 names its classes in the graph of objects, or leaves `keras_metadata.pb`.
_KERAS3_CHILDREN = {"_misc_assets", "_losses_override"}


class Tf2Source:
    """A ``ModuleSource``; see there."""

    one_graph = False

    def __init__(self, path: Path, meta_graph: Any) -> None:
        """Loads the meta graph tagged ``serve``, ``meta_graph``, of the SavedModel at ``path``."""
        tf = tensorflow()
        self.kind = KERAS_KIND if is_keras(path, meta_graph) else KIND
        self._loaded = tf.saved_model.load(str(path), tags=list(meta_graph.meta_info_def.tags))
        functions: dict[str, tuple[Callable[..., Any], Signature]] = {
            name: (function, _signature(name, function)) for name, function in self._loaded.signatures.items()
        }
        if (call := _callable(self._loaded)) is not None:
            functions[CALL] = call
        names = sorted(
            functions, key=lambda name: (_ORDER.index(name) if name in _ORDER else len(_ORDER), name)
        )
        self._functions = {name: functions[name][0] for name in names}
        self.signatures: Mapping[str, Signature] = {name: functions[name][1] for name in names}

    def fetch(self, outputs: Sequence[Output]) -> Callable[[Any], Sequence[Any]]:
        """Calls the one signature that all the outputs are of."""
        (name,) = {output.signature for output in outputs}
        key = self.signatures[name].image_input().key

        def run(images: Any) -> Sequence[Any]:
            # Through `self`: a signature does not keep the object alive that owns its variables.
            function = self._functions[name]
            results = function(images) if name == CALL else function(**{key: images})
            by_key = _by_key(results)
            return [by_key[output.key] for output in outputs]

        return run


def is_keras(path: Path, meta_graph: Any) -> bool:
    """Whether a Keras model was saved or exported here, whose input range is its author's choice."""
    nodes = meta_graph.object_graph_def.nodes
    if not nodes:
        return False
    children = {child.local_name for child in nodes[0].children}
    return (
        bool(children & _KERAS3_CHILDREN)
        or nodes[0].user_object.identifier.startswith("_tf_keras_")
        or (path / "keras_metadata.pb").is_file()
    )


def _signature(name: str, function: Any) -> Signature:
    _, keywords = function.structured_input_signature
    inputs = tuple(_input(key, spec) for key, spec in keywords.items())
    return Signature(name, inputs, _outputs(name, function.structured_outputs))


def _callable(loaded: Any) -> tuple[Callable[..., Any], Signature] | None:
    """The object's own function for inference, where it takes one batch of images.

    A saved function is a set of traces, each for given tensors and given values of the other arguments
    (``training``, …). The first trace of one tensor is taken that was not made with ``training=True``,
    and is called with the values it was made with.
    """
    tf = tensorflow()
    traces = getattr(getattr(loaded, CALL, None), "concrete_functions", ())
    for trace in traces:
        (first, *others), keywords = _arguments(trace)
        values = [*others, *keywords.values()]
        if not isinstance(first, tf.TensorSpec) or any(isinstance(value, tf.TypeSpec) for value in values):
            continue
        if any(value is True for value in values):
            continue

        def run(images: Any, others: list[Any] = others, keywords: dict[str, Any] = keywords) -> Any:
            return loaded(images, *others, **keywords)

        inputs = (_input(first.name or "inputs", first),)
        return run, Signature(CALL, inputs, _outputs(CALL, trace.structured_outputs))
    return None


def _arguments(trace: Any) -> tuple[Sequence[Any], dict[str, Any]]:
    positional, keywords = trace.structured_input_signature
    return (positional or (None,)), dict(keywords)


def _outputs(name: str, structure: Any) -> tuple[Output, ...]:
    by_key = _by_key(structure)
    return tuple(
        Output(name, key, _shape(spec.shape), spec.dtype.name) for key, spec in sorted(by_key.items())
    )


def _by_key(results: Any) -> dict[str, Any]:
    """Results by name: a dict's keys, else ``output_0``, ``output_1``, … as ``tf.saved_model`` has it."""
    if isinstance(results, Mapping):
        flat = dict(results)
    elif isinstance(results, (list, tuple)):
        flat = {f"output_{index}": result for index, result in enumerate(results)}
    else:
        flat = {"output_0": results}
    return {key: value for key, value in flat.items() if hasattr(value, "shape")}


def _input(key: str, spec: Any) -> Input:
    return Input(key, _shape(spec.shape), spec.dtype.name)


def _shape(shape: Any) -> Shape | None:
    return None if shape.rank is None else tuple(shape.as_list())
