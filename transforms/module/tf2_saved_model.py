"""Loads TF2 SavedModels: objects with signatures, callable or not, including those that Keras exports."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from beamlabel.transforms.inference.lazy_tensorflow import tensorflow
from beamlabel.transforms.module.checked_files import CheckedSavedModel
from beamlabel.transforms.module.outputs import ImageInput, Input, Output, Shape, Signature, fitting

KIND = "tf2_saved_model"
KERAS_KIND = "keras_saved_model"
SERVE = "serve"
# The name that lists the object itself among its signatures.
CALL = "__call__"
_ORDER = ("serving_default", "serve")
# Attributes that Keras 3 leaves on the root object: the first by `Model.export()`, the other by
# `tf.saved_model.save(model)`. Keras 2 names its classes in the object graph, or leaves `keras_metadata.pb`.
_KERAS3_CHILDREN = {"_misc_assets", "_losses_override"}
# Keras 2's functions besides the model's own; they also return losses.
_NOT_FOR_USERS = ("_", "call_and_return_")

_Function = tuple[Callable[..., Any], Signature]


class Tf2Source:
    """A ``ModuleSource`` for TF2 SavedModels.

    Its signatures are the SavedModel's own, the object itself as ``__call__``, and its other functions by name. A
    function has several traces, each for given tensors: the best has the function's name, the others are ``NAME#2``,
    ``NAME#3``, ….
    """

    one_graph = False

    def __init__(self, saved_model: CheckedSavedModel, meta_graph: Any) -> None:
        """Loads the meta graph tagged ``serve``, ``meta_graph``, of a SavedModel."""
        self.kind = KERAS_KIND if is_keras(saved_model.path, meta_graph) else KIND
        self._loaded = saved_model.load(meta_graph.meta_info_def.tags)
        signatures: dict[str, _Function] = {
            name: (function, _signature(name, function)) for name, function in self._loaded.signatures.items()
        }
        calls = dict(_traces(CALL, getattr(self._loaded, CALL, None)))
        others = dict(_other_functions(self._loaded, signatures))
        first = [name for name in _ORDER if name in signatures]
        rest = sorted(set(signatures) - set(first))
        self.groups: Sequence[Sequence[str]] = [*([name] for name in first), list(calls), rest, list(others)]
        functions = {**signatures, **calls, **others}
        names = [name for group in self.groups for name in group]
        self._functions = {name: functions[name][0] for name in names}
        self.signatures: Mapping[str, Signature] = {name: functions[name][1] for name in names}

    def function_of(self, outputs: Sequence[Output]) -> Callable[[Any], Sequence[Any]]:
        """Returns a call of the single signature that all the outputs belong to."""
        (name,) = {output.signature for output in outputs}
        key = self.signatures[name].image_input().key

        def run(images: Any) -> Sequence[Any]:
            # Through `self`, because a signature does not keep alive the object that owns its variables.
            function = self._functions[name]
            results = function(**{key: images}) if name in self._loaded.signatures else function(images)
            by_key = _by_key(results)
            return [by_key[output.key] for output in outputs]

        return run


def is_keras(path: Path, meta_graph: Any) -> bool:
    """Whether Keras saved or exported this model, so that its author chose the input range."""
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


def _traces(name: str, function: Any) -> Iterator[tuple[str, _Function]]:
    """Yields a saved function's traces for inference that take one tensor, the best first.

    A trace is made for given tensors and given values of the other arguments (``training``, …), and is called with
    those values. Traces with ``training=True`` are left out. Traces for images come first; among these, those for any
    batch size, then those for any image size.
    """
    found: list[_Function] = []
    for trace in getattr(function, "concrete_functions", ()):
        one = _trace(function, trace)
        if one is not None and _shapes(one[1]) not in [_shapes(other) for _, other in found]:
            found.append(one)
    found.sort(key=lambda one: _rank(one[1]))
    for number, (run, signature) in enumerate(found, start=1):
        shown = name if number == 1 else f"{name}#{number}"
        outputs = tuple(Output(shown, one.key, one.shape, one.dtype) for one in signature.outputs)
        yield shown, (run, Signature(shown, signature.inputs, outputs))


def _trace(function: Any, trace: Any) -> _Function | None:
    tf = tensorflow()
    (first, *others), keywords = _arguments(trace)
    values = [*others, *keywords.values()]
    if not isinstance(first, tf.TensorSpec) or any(isinstance(value, tf.TypeSpec) for value in values):
        return None
    if any(value is True for value in values):
        return None

    def run(images: Any) -> Any:
        return function(images, *others, **keywords)

    return run, Signature(
        "", (_input(first.name or "inputs", first),), _outputs("", trace.structured_outputs)
    )


def _rank(signature: Signature) -> tuple[bool, bool, bool]:
    usable = fitting({"": signature})
    one = usable[""].image_input() if usable else ImageInput("", "")
    return not usable, one.batch is not None, one.height is not None


def _other_functions(loaded: Any, signatures: Mapping[str, _Function]) -> Iterator[tuple[str, _Function]]:
    """Yields functions that are saved with the object but are not among its signatures."""
    known = [_shapes(signature) for _, signature in signatures.values()]
    for attribute, function in sorted(vars(loaded).items()):
        if attribute in signatures or attribute.startswith(_NOT_FOR_USERS):
            continue
        for name, found in _traces(attribute, function):
            if _shapes(found[1]) not in known:
                yield name, found


def _shapes(signature: Signature) -> object:
    """A key that is equal for two signatures that are one function under two names."""
    outputs = sorted((one.key, one.shape or (), one.dtype) for one in signature.outputs)
    return [(one.shape, one.dtype) for one in signature.inputs], str(outputs)


def _arguments(trace: Any) -> tuple[Sequence[Any], dict[str, Any]]:
    positional, keywords = trace.structured_input_signature
    return (positional or (None,)), dict(keywords)


def _outputs(name: str, structure: Any) -> tuple[Output, ...]:
    tf = tensorflow()
    # Ragged and sparse tensors are left out.
    dense = (tf.TensorSpec, tf.Tensor)
    by_key = {key: spec for key, spec in _by_key(structure).items() if isinstance(spec, dense)}
    return tuple(
        Output(name, key, _shape(spec.shape), spec.dtype.name) for key, spec in sorted(by_key.items())
    )


def _by_key(results: Any) -> dict[str, Any]:
    """Results by name: a dict's keys, or ``output_0``, ``output_1``, … as in ``tf.saved_model``."""
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
