"""TF2 SavedModels and Keras models: their functions, over their own variables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from beamlabel.pipeline.fine_tune.network import MODULE, Images, Network
from beamlabel.transforms.inference.artifact import ModuleError
from beamlabel.transforms.inference.lazy_tensorflow import tensorflow
from beamlabel.transforms.inference.probe import probe_batch
from beamlabel.transforms.module.checked_files import CheckedSavedModel
from beamlabel.transforms.module.freeze import inference_part, to_float
from beamlabel.transforms.module.hub_module import HubModule
from beamlabel.transforms.module.keras_file import KerasFileSource
from beamlabel.transforms.module.tf2_saved_model import CALL

_RANDOM = ("Random", "Multinomial", "TruncatedNormal")
_TOLERANCE = 1e-3


def open_saved_model(saved_model: CheckedSavedModel, module: HubModule, tags: set[str]) -> Network:
    """The network of a TF2 SavedModel; trains its function for ``training=True`` if it has one.

    Raises:
      ModuleError: its features do not depend on variables.
    """
    loaded = saved_model.load(tags)
    infer = _inference(loaded, module)
    part = inference_part(lambda images: [infer(images)], _shape(module), tensorflow().float32)
    variables = _unique(part.variables)
    _check(variables)
    training = _training(loaded, module, infer)
    statistics = [one for one in variables if not one.trainable and one.dtype.is_floating]
    is_random = training is not None and _is_random(training, module)
    return Network(
        source="function for training" if training is not None else "function for inference",
        variables=variables,
        names=_names(variables),
        trainable=[one.trainable and one.dtype.is_floating for one in variables],
        statistics=statistics,
        infer=infer,
        train={} if training is None else {MODULE: training},
        is_repeatable=not is_random,
        keeper=loaded,
    )


def open_keras_file(module: HubModule) -> Network:
    """The network of a ``.keras`` file.

    Raises:
      ModuleError: it has no variables.
    """
    tf = tensorflow()
    assert module.features is not None
    model = KerasFileSource(module.resolved).model_of([module.features])

    def function(training: bool) -> Images:
        @tf.function(autograph=False)
        def run(images: Any) -> Any:
            return _vectors(model(images, training=training))

        return run

    variables = [one.value for one in model.variables]
    trained = {id(one) for one in model.trainable_variables}
    trainable = [id(one) in trained and one.value.dtype.is_floating for one in model.variables]
    _check([variable for variable, is_trained in zip(variables, trainable, strict=True) if is_trained])
    return Network(
        source="Keras model",
        variables=variables,
        names=[one.path for one in model.variables],
        trainable=trainable,
        statistics=[one.value for one in model.non_trainable_variables if one.value.dtype.is_floating],
        infer=function(False),
        train={MODULE: function(True)},
        keeper=model,
    )


def _inference(loaded: Any, module: HubModule) -> Images:
    """The features of a loaded SavedModel, called in the way that ``inspect_module`` found."""
    tf = tensorflow()
    output = module.features
    assert output is not None
    key = module.signatures[output.signature].image_input().key
    name = output.signature.partition("#")[0]
    is_signature = output.signature in loaded.signatures
    function = loaded.signatures[output.signature] if is_signature else None
    traces = None if is_signature else getattr(loaded, CALL if name == CALL else name)

    @tf.function(autograph=False)
    def run(images: Any) -> Any:
        images = tf.transpose(images, [0, 3, 1, 2]) if module.channels_first else images
        found = function(**{key: images}) if function is not None else _called(traces, images, training=False)
        return _vectors(_picked(found, output.key))

    return run


def _training(loaded: Any, module: HubModule, infer: Images) -> Images | None:
    """The object's function for training that gives the same features; None if there is none.

    Batch statistics and dropout make its results differ from those of inference even with the same weights.
    Therefore the object's own function for inference is compared with ``infer``.
    """
    tf = tensorflow()
    call = getattr(loaded, CALL, None)
    assert module.features is not None
    if call is None or not any(_is_for_training(one) for one in getattr(call, "concrete_functions", ())):
        return None
    images = to_float(probe_batch(module.height, module.width), module.input_range)
    images = tf.transpose(images, [0, 3, 1, 2]) if module.channels_first else images
    expected = infer(to_float(probe_batch(module.height, module.width), module.input_range)).numpy()
    try:
        results = _flat(_called(call, images, training=False))
    except (TypeError, ValueError):
        return None
    for name, result in results.items():
        vectors = _vectors(result).numpy() if len(result.shape) > 1 else None
        if vectors is None or vectors.shape != expected.shape:
            continue
        if np.abs(vectors - expected).max() <= _TOLERANCE * max(1.0, float(np.abs(expected).max())):
            return _run_training(call, name, module)
    return None


def _run_training(call: Any, name: str, module: HubModule) -> Images:
    tf = tensorflow()

    @tf.function(autograph=False)
    def run(images: Any) -> Any:
        images = tf.transpose(images, [0, 3, 1, 2]) if module.channels_first else images
        return _vectors(_flat(_called(call, images, training=True))[name])

    return run


def _called(function: Any, images: Any, *, training: bool) -> Any:
    """Calls a saved function by a trace for training, or for inference, that takes these images."""
    error: Exception | None = None
    for trace in function.concrete_functions:
        if _is_for_training(trace) != training:
            continue
        (_, *others), keywords = trace.structured_input_signature
        specs = tensorflow().TypeSpec
        if any(isinstance(one, specs) for one in (*others, *keywords.values())):
            continue
        try:
            return function(images, *others, **keywords)
        except (TypeError, ValueError) as mismatch:
            error = mismatch
    raise error or ValueError("there is no such trace")


def _is_for_training(trace: Any) -> bool:
    positional, keywords = trace.structured_input_signature
    return any(one is True for one in (*positional[1:], *keywords.values()))


def _flat(results: Any) -> dict[str, Any]:
    if isinstance(results, dict):
        return {name: one for name, one in results.items() if hasattr(one, "shape")}
    if isinstance(results, (list, tuple)):
        return {f"output_{place}": one for place, one in enumerate(results) if hasattr(one, "shape")}
    return {"output_0": results}


def _picked(results: Any, key: str) -> Any:
    return _flat(results)[key]


def _vectors(result: Any) -> Any:
    tf = tensorflow()
    one = result[0] if isinstance(result, (list, tuple)) else result
    return tf.cast(tf.reshape(one, [tf.shape(one)[0], int(np.prod(one.shape[1:]))]), tf.float32)


def _shape(module: HubModule) -> tuple[int | None, ...]:
    return None, module.height, module.width, 3


def _unique(variables: Sequence[Any]) -> list[Any]:
    return list({id(one): one for one in variables}.values())


def _names(variables: Sequence[Any]) -> list[str]:
    return [one.name.partition(":")[0] for one in variables]


def _check(variables: Sequence[Any]) -> None:
    if not any(one.trainable and one.dtype.is_floating for one in variables):
        raise ModuleError(
            "its features depend on no trainable variable: the weights are constants, as in a frozen graph"
        )


def _is_random(function: Images, module: HubModule) -> bool:
    tf = tensorflow()
    spec = tf.TensorSpec(_shape(module), tf.float32)
    graph_def = function.get_concrete_function(spec).graph.as_graph_def()  # type: ignore[attr-defined]
    return any(node.op.startswith(_RANDOM) for node in _nodes(graph_def))


def _nodes(graph_def: Any) -> Iterator[Any]:
    yield from graph_def.node
    for function in graph_def.library.function:
        yield from function.node_def
