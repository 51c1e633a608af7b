"""A module's files → ``HubModule``: its format, input size, outputs, and the function to call."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from beamlabel.transforms.inference.artifact import INPUT_RANGES, ModuleError
from beamlabel.transforms.inference.lazy_tensorflow import tensorflow
from beamlabel.transforms.inference.probe import looks_like_probabilities, probe_batch
from beamlabel.transforms.module import keras_file, tf1_hub, tf2_saved_model
from beamlabel.transforms.module.files import SAVED_MODEL
from beamlabel.transforms.module.outputs import (
    Choice,
    Input,
    ModuleSource,
    Output,
    Signature,
    choose_outputs,
    format_shape,
)
from beamlabel.transforms.module.resolve import ResolvedModule

# Publishers whose modules keep to the hub's convention for images, values in [0, 1], also where Keras saved
# them: https://www.tensorflow.org/hub/common_signatures/images
_HUB_PUBLISHERS = ("https://tfhub.dev/google/", "https://www.kaggle.com/models/google/")
_KERAS_KINDS = (keras_file.KIND, tf2_saved_model.KERAS_KIND)

Function = Callable[[Any], "tuple[Any | None, Any | None]"]


@dataclass(frozen=True, eq=False)
class HubModule:
    """A module that is loaded and understood.

    Attributes:
      resolved: where its files are.
      kind: ``tf1_hub``, ``tf2_saved_model``, ``keras_saved_model`` or ``keras_file``.
      height, width: pixels of its input.
      input_range: the values that it expects for black and white.
      logits, features: which outputs they are; None where it gives none.
      num_classes, embedding_dim: their sizes.
      signatures: all that it has, by name.
      function: float32[N, height, width, 3] in ``input_range`` → (float32[N, num_classes] or None,
        float32[N, embedding_dim] or None), TensorFlow tensors, in one pass over the network.
    """

    resolved: ResolvedModule
    kind: str
    height: int
    width: int
    input_range: tuple[float, float]
    logits: Output | None
    features: Output | None
    num_classes: int | None
    embedding_dim: int | None
    signatures: Mapping[str, Signature] = field(repr=False)
    function: Function = field(repr=False)


def inspect_module(
    resolved: ResolvedModule,
    *,
    logits_output: str | None = None,
    features_output: str | None = None,
    image_size: tuple[int, int] | int | None = None,
    input_range: tuple[float, float] | None = None,
) -> HubModule:
    """Loads a module and finds out what it takes and gives; imports TensorFlow.

    Args:
      resolved: the module's files.
      logits_output, features_output: ``SIGNATURE:KEY``, ``SIGNATURE`` or ``KEY``; ``"none"`` to leave it
        out; None to find it by the rules of ``outputs.py``.
      image_size: (height, width) or the side of a square, for a module that takes images of any size.
      input_range: the values that the module expects for black and white; None means (0, 1), the hub's
        convention, and is refused for Keras models, which have none.

    Raises:
      ModuleError: what is there is no module that can be used so; with its names and sizes.
    """
    try:
        return _inspect(resolved, logits_output, features_output, image_size, input_range)
    except ModuleError as error:
        raise ModuleError(f"module {resolved.handle}: {error}") from error


def to_float(pixels: Any, input_range: tuple[float, float]) -> Any:
    """Scales a tensor uint8[...] so that 0 and 255 become the ends of ``input_range``: float32[...]."""
    tf = tensorflow()
    low, high = input_range
    images = tf.cast(pixels, tf.float32)
    if high - low != 255:
        images *= (high - low) / 255
    return images + low if low else images


def _inspect(
    resolved: ResolvedModule,
    logits_output: str | None,
    features_output: str | None,
    image_size: tuple[int, int] | int | None,
    input_range: tuple[float, float] | None,
) -> HubModule:
    source = open_source(resolved.path)
    if not source.signatures:
        raise ModuleError("it has no signatures, and cannot be called with a batch of images")
    scale = _input_range(source.kind, resolved.origin, input_range)

    def is_probabilities(output: Output) -> bool:
        (values,) = _try(source, [output], image_size, scale)
        return looks_like_probabilities(values)

    choice = choose_outputs(
        source,
        handle=resolved.origin,
        logits_output=logits_output,
        features_output=features_output,
        is_probabilities=is_probabilities,
    )
    height, width = _image_size(_image_input(source, choice.outputs), image_size)
    results = _try(source, choice.outputs, (height, width), scale)
    sizes = [
        _vector_size(output, values.shape) for output, values in zip(choice.outputs, results, strict=True)
    ]
    by_output = dict(zip(choice.outputs, sizes, strict=True))
    return HubModule(
        resolved=resolved,
        kind=source.kind,
        height=height,
        width=width,
        input_range=scale,
        logits=choice.logits,
        features=choice.features,
        num_classes=None if choice.logits is None else by_output[choice.logits],
        embedding_dim=None if choice.features is None else by_output[choice.features],
        signatures=source.signatures,
        function=_function(source, choice, sizes),
    )


def open_source(path: Path) -> ModuleSource:
    """Recognises a module by its content, and loads it.

    A ``.keras`` file is one by its name. A SavedModel with a meta graph of no tags is a TF1 Hub module, with
    ``tfhub_module.pb`` or without; one tagged ``serve`` is a TF2 SavedModel, or TensorFlow 1's.

    Raises:
      ModuleError: it is none of these, or TensorFlow cannot load it.
    """
    if path.is_file():
        return keras_file.KerasFileSource(path)
    tensorflow()
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    try:
        meta_graphs = SavedModel.FromString((path / SAVED_MODEL).read_bytes()).meta_graphs
    except DecodeError as error:
        raise ModuleError(f"{path / SAVED_MODEL} is damaged, or no SavedModel: {error}") from error
    by_tags = {frozenset(graph.meta_info_def.tags): graph for graph in meta_graphs}
    try:
        if frozenset() in by_tags:
            return tf1_hub.Tf1HubSource(path, by_tags[frozenset()])
        for tags, graph in by_tags.items():
            if tf2_saved_model.SERVE in tags:
                return tf2_saved_model.Tf2Source(path, graph)
    except Exception as error:
        # Loading raises errors of TensorFlow's own, and KeyError or ValueError for what it does not know.
        raise ModuleError(f"TensorFlow cannot load it ({type(error).__name__}: {error})") from error
    found = ", ".join("{" + ", ".join(sorted(tags)) + "}" for tags in by_tags) or "no meta graph"
    raise ModuleError(f"it has {found}; a TF1 Hub module has the tags {{}}, a TF2 SavedModel {{serve}}")


def _input_range(kind: str, handle: str, given: tuple[float, float] | None) -> tuple[float, float]:
    if given is not None:
        if tuple(given) not in INPUT_RANGES:
            raise ModuleError(f"input range {given}: expected one of {', '.join(map(str, INPUT_RANGES))}")
        return float(given[0]), float(given[1])
    if kind in _KERAS_KINDS and not handle.startswith(_HUB_PUBLISHERS):
        raise ModuleError(
            "it is a Keras model, and does not say which pixel values it was trained with: give --input_range "
            "0,1 or -1,1 or 0,255 (0,255 where the model scales by itself, as keras.applications' newer ones)"
        )
    return INPUT_RANGES[0]


def _image_input(source: ModuleSource, outputs: Sequence[Output]) -> Input:
    inputs = [source.signatures[output.signature].image_input() for output in outputs]
    if len({(one.shape, one.dtype) for one in inputs}) > 1:
        shapes = " and ".join(format_shape(one.shape) for one in inputs)
        raise ModuleError(f"its logits and features take images of different shapes: {shapes}")
    return inputs[0]


def _image_size(image_input: Input, given: tuple[int, int] | int | None) -> tuple[int, int]:
    asked = (given, given) if isinstance(given, int) else given
    fixed = (None, None) if image_input.shape is None else image_input.shape[1:3]
    height, width = (have or want for have, want in zip(fixed, asked or (None, None), strict=True))
    if height is None or width is None:
        shape = format_shape(image_input.shape)
        raise ModuleError(f"it takes images of any size, {shape}: give --image_size N or HEIGHTxWIDTH")
    if asked is not None and asked != (height, width):
        raise ModuleError(
            f"it takes images of {height}x{width} (height x width) only, --image_size says {asked[0]}x{asked[1]}"
        )
    return height, width


def _try(
    source: ModuleSource,
    outputs: Sequence[Output],
    image_size: tuple[int, int] | int | None,
    input_range: tuple[float, float],
) -> list[np.ndarray]:
    """The outputs for the probe batch."""
    image_input = _image_input(source, outputs)
    height, width = _image_size(image_input, image_size)
    images = to_float(probe_batch(height, width), input_range)
    images = _cast(images, image_input, input_range)
    try:
        results = source.fetch(outputs)(images)
        return [result.numpy() for result in results]
    except Exception as error:
        # Whatever the network raises is the module's, not ours.
        raise ModuleError(
            f"it fails on a batch of {height}x{width} images ({type(error).__name__}: {error})"
        ) from error


def _cast(images: Any, image_input: Input, input_range: tuple[float, float]) -> Any:
    dtype = tensorflow().dtypes.as_dtype(image_input.dtype)
    if dtype.is_integer and input_range != (0, 255):
        raise ModuleError(f"it takes {dtype.name} images: give --input_range 0,255")
    return tensorflow().cast(images, dtype)


def _vector_size(output: Output, shape: tuple[int, ...]) -> int:
    """D of a result [N, D] or [N, 1, 1, D]."""
    if len(shape) == 2 or (len(shape) == 4 and shape[1] == shape[2] == 1):
        return shape[-1]
    listing = format_shape((None, *shape[1:]))
    if len(shape) == 4:
        raise ModuleError(
            f"{output.name} is a feature map {listing}, not a vector: name a pooled output, or export the module "
            "with global average pooling"
        )
    raise ModuleError(
        f"{output.name} is {listing}; expected [?, D]: name another, or leave it out with 'none'"
    )


def _function(source: ModuleSource, choice: Choice, sizes: Sequence[int]) -> Function:
    tf = tensorflow()
    fetch = source.fetch(choice.outputs)
    dtype = tf.dtypes.as_dtype(_image_input(source, choice.outputs).dtype)

    def run(images: Any) -> tuple[Any | None, Any | None]:
        results = fetch(tf.cast(images, dtype))
        vectors = [
            tf.cast(tf.reshape(result, [-1, size]), tf.float32)
            for result, size in zip(results, sizes, strict=True)
        ]
        by_output = dict(zip(choice.outputs, vectors, strict=True))
        logits = None if choice.logits is None else by_output[choice.logits]
        features = None if choice.features is None else by_output[choice.features]
        return logits, features

    return run
