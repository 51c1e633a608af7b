"""Loads ``.keras`` files with Keras 3."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from beamlabel.transforms.hub.files import WAY_OUT
from beamlabel.transforms.hub.resolve import ResolvedModule
from beamlabel.transforms.inference.artifact import ModuleError
from beamlabel.transforms.inference.lazy_tensorflow import tensorflow
from beamlabel.transforms.module.checked_files import checked_keras_file
from beamlabel.transforms.module.outputs import Input, Output, Shape, Signature

KIND = "keras_file"
_MODEL, _LAYERS = "model", "layers"


class KerasFileSource:
    """A ``ModuleSource`` for ``.keras`` files.

    The model's own outputs are the signature ``model``. Vector outputs of its layers are listed as the signature
    ``layers``, for a classifier whose pooled features are wanted too.
    """

    kind = KIND
    one_graph = True
    # Layers are examined only if the user names one.
    groups: Sequence[Sequence[str]] = ((_MODEL,),)

    def __init__(self, resolved: ResolvedModule) -> None:
        """Loads the file; this class and Keras both refuse code in it (lambdas, custom classes).

        Raises:
          ModuleError: it has parts that are not allowed, Keras cannot load it, or it is not a graph with one input.
        """
        path = checked_keras_file(resolved)
        self._keras = tensorflow().keras
        if self._keras.backend.backend() != "tensorflow":
            raise ModuleError("a .keras file needs Keras on TensorFlow; set KERAS_BACKEND=tensorflow")
        try:
            self._model = self._keras.models.load_model(path, compile=False)
        except Exception as error:
            raise ModuleError(f"Keras cannot load it: {_why(error)}; {WAY_OUT}") from error
        if not getattr(self._model, "inputs", None):
            raise ModuleError(f"the Keras model has no fixed inputs; {WAY_OUT}")
        inputs = tuple(Input(one.name, tuple(one.shape), str(one.dtype)) for one in self._model.inputs)
        self._tensors = {
            _MODEL: _model_outputs(self._keras, self._model),
            _LAYERS: _layer_outputs(self._model),
        }
        self.signatures: Mapping[str, Signature] = {
            name: Signature(
                name,
                inputs,
                tuple(Output(name, key, _shape(one), str(one.dtype)) for key, one in tensors.items()),
            )
            for name, tensors in self._tensors.items()
            if tensors
        }

    def function_of(self, outputs: Sequence[Output]) -> Callable[[Any], Sequence[Any]]:
        """Returns one model for all the outputs, in inference mode."""
        model = self.model_of(outputs)

        def run(images: Any) -> Sequence[Any]:
            results = model(images, training=False)
            return results if isinstance(results, (list, tuple)) else [results]

        return run

    def model_of(self, outputs: Sequence[Output]) -> Any:
        """A Keras model of the same layers that returns a list of the outputs."""
        tensors = [self._tensors[output.signature][output.key] for output in outputs]
        return self._keras.Model(self._model.inputs, tensors)


def _why(error: Exception) -> str:
    """The problem that Keras met, without its advice to run any code in the file."""
    text = " ".join(str(error).split())
    if "Lambda" in text or "lambda" in text:
        return "it has a Lambda layer, whose code is not run"
    return f"{type(error).__name__}: {text}"


def _model_outputs(keras: Any, model: Any) -> dict[str, Any]:
    names = list(getattr(model, "output_names", ()))
    structure = model.compute_output_spec(model.inputs)
    if isinstance(structure, dict) and all(hasattr(one, "shape") for one in structure.values()):
        return dict(keras.tree.pack_sequence_as(structure, model.outputs))
    if len(names) != len(model.outputs):
        names = [f"output_{index}" for index in range(len(model.outputs))]
    return dict(zip(names, model.outputs, strict=True))


def _layer_outputs(model: Any) -> dict[str, Any]:
    outputs = {}
    for layer in model.layers:
        try:
            tensor = layer.output
        except (AttributeError, ValueError):  # never used, or more than once
            continue
        if hasattr(tensor, "shape") and len(tensor.shape) == 2:
            outputs[layer.name] = tensor
    return outputs


def _shape(tensor: Any) -> Shape:
    return tuple(tensor.shape)
