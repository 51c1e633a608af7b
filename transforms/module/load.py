"""Turns a module's files into a ``HubModule``: finds its format, input size, outputs, and the function to call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from beamlabel.transforms.hub.resolve import ResolvedModule
from beamlabel.transforms.inference.artifact import INPUT_RANGES, ModuleError
from beamlabel.transforms.inference.lazy_tensorflow import tensorflow
from beamlabel.transforms.module import keras_file, tf1_hub, tf2_saved_model
from beamlabel.transforms.module.checked_files import CheckedSavedModel
from beamlabel.transforms.module.choose import Choice, choose_outputs
from beamlabel.transforms.module.hub_module import Function, HubModule
from beamlabel.transforms.module.outputs import (
    ImageInput,
    ModuleSource,
    OptionError,
    Output,
    format_shape,
)
from beamlabel.transforms.module.trial import ModuleTrial, adapted
from beamlabel.transforms.own_module import check as own_module
from beamlabel.transforms.own_module.description import read_description

# Publishers whose modules follow the hub's convention for images, values in [0, 1], even if Keras saved them:
# https://www.tensorflow.org/hub/common_signatures/images
_HUB_PUBLISHERS = ("https://tfhub.dev/google/", "https://www.kaggle.com/models/google/")
_KERAS_KINDS = (keras_file.KIND, tf2_saved_model.KERAS_KIND)


def inspect_module(
    resolved: ResolvedModule,
    *,
    logits_output: str | None = None,
    features_output: str | None = None,
    image_size: tuple[int, int] | int | None = None,
    input_range: tuple[float, float] | None = None,
) -> HubModule:
    """Loads a module and determines its input and outputs; imports TensorFlow.

    Args:
      resolved: the module's files.
      logits_output, features_output: ``SIGNATURE:KEY``, ``SIGNATURE`` or ``KEY``; ``"none"`` to leave it out; None to
        find it by the rules of ``choose``.
      image_size: (height, width) or the side of a square, for a module that takes images of any size.
      input_range: the module's input values for black and white; None means (0, 1), the hub's convention. Required for
        Keras models, which have no convention.

    Raises:
      ModuleError: the module cannot be used with these options; the message names its outputs and sizes.
    """
    try:
        return _inspect(resolved, logits_output, features_output, image_size, input_range)
    except ModuleError as error:
        raise ModuleError(f"module {resolved.handle}: {error}") from error


def _inspect(
    resolved: ResolvedModule,
    logits_output: str | None,
    features_output: str | None,
    image_size: tuple[int, int] | int | None,
    input_range: tuple[float, float] | None,
) -> HubModule:
    source = open_source(resolved)
    if not source.signatures:
        raise ModuleError("it has no signatures and cannot be called with a batch of images")
    own = read_description(resolved.path)
    if own is None:
        scale = _input_range(source.kind, resolved.origin, input_range)
    else:
        scale = own_module.input_range(own, input_range)
    asked = (image_size, image_size) if isinstance(image_size, int) else image_size
    trial = ModuleTrial(source, lambda one: _image_size(one, asked), scale)
    choice = choose_outputs(
        source,
        handle=resolved.origin,
        logits_output=logits_output,
        features_output=features_output,
        image_size=asked,
        trial=trial,
    )
    image_input = trial.image_input(choice.outputs)
    height, width = _image_size(image_input, asked)
    values = trial.values(choice.outputs)
    sizes = {output: one.shape[1] for output, one in zip(choice.outputs, values, strict=True)}
    if own is not None:
        by_key = {output.key: one for output, one in zip(choice.outputs, values, strict=True)}
        own_module.check(resolved.path, own, (height, width), by_key)
    return HubModule(
        resolved=resolved,
        kind=source.kind,
        height=height,
        width=width,
        input_range=scale,
        logits=choice.logits,
        features=choice.features,
        num_classes=None if choice.logits is None else sizes[choice.logits],
        embedding_dim=None if choice.features is None else sizes[choice.features],
        signatures=source.signatures,
        function=_function(source, choice, image_input, sizes),
        batch=image_input.batch,
        channels_first=image_input.channels_first,
        description=own,
    )


def open_source(resolved: ResolvedModule) -> ModuleSource:
    """Detects a module's format from its content, and loads it.

    A ``.keras`` file is recognized by its name. A SavedModel with an untagged meta graph is a TF1 Hub module, with or
    without ``tfhub_module.pb``. One tagged ``serve`` is a SavedModel of TF2 or TensorFlow 1.

    Raises:
      ModuleError: the format is unknown, an operation is not allowed, or TensorFlow cannot load it.
    """
    if resolved.path.is_file():
        return keras_file.KerasFileSource(resolved)
    saved_model = CheckedSavedModel(resolved)
    by_tags = {frozenset(graph.meta_info_def.tags): graph for graph in saved_model.meta_graphs}
    # {serve} before {serve, tpu} and {serve, gpu}.
    by_tags = dict(sorted(by_tags.items(), key=lambda item: len(item[0])))
    try:
        if frozenset() in by_tags:
            return tf1_hub.Tf1HubSource(saved_model, by_tags[frozenset()])
        for tags, graph in by_tags.items():
            if tf2_saved_model.SERVE in tags:
                return tf2_saved_model.Tf2Source(saved_model, graph)
    except Exception as error:
        # Loading raises TensorFlow's own errors, and KeyError or ValueError for unknown parts.
        raise ModuleError(f"TensorFlow cannot load it ({type(error).__name__}: {error})") from error
    found = ", ".join("{" + ", ".join(sorted(tags)) + "}" for tags in by_tags) or "no meta graph"
    raise ModuleError(
        f"it has {found}; expected the tags {{}} of a TF1 Hub module or {{serve}} of a TF2 SavedModel"
    )


def _input_range(kind: str, handle: str, given: tuple[float, float] | None) -> tuple[float, float]:
    if given is not None:
        if tuple(given) not in INPUT_RANGES:
            raise ModuleError(f"--input_range {given}: expected one of {', '.join(map(str, INPUT_RANGES))}")
        return float(given[0]), float(given[1])
    if kind in _KERAS_KINDS and not handle.startswith(_HUB_PUBLISHERS):
        raise ModuleError(
            "it is a Keras model, which does not state the pixel values it was trained with; use --input_range "
            "0,1 or -1,1 or 0,255 (0,255 if the model scales by itself, like the newer keras.applications)"
        )
    return INPUT_RANGES[0]


def _image_size(image_input: ImageInput, asked: tuple[int, int] | None) -> tuple[int, int]:
    fixed = image_input.height, image_input.width
    height, width = (have or want for have, want in zip(fixed, asked or (None, None), strict=True))
    if height is None or width is None:
        channels = (None, 3) if image_input.channels_first else (None,)
        shape = format_shape((*channels, *fixed, *(() if image_input.channels_first else (3,))))
        raise OptionError(f"it takes images of any size, {shape}; use --image_size N or HEIGHTxWIDTH")
    if asked is not None and asked != (height, width):
        raise OptionError(
            f"it only takes images of {height}x{width} (height x width), but --image_size is {asked[0]}x{asked[1]}"
        )
    return height, width


def _function(
    source: ModuleSource, choice: Choice, image_input: ImageInput, sizes: Mapping[Output, int]
) -> Function:
    tf = tensorflow()
    function = adapted(source.function_of(choice.outputs), image_input)

    def run(images: Any) -> tuple[Any | None, Any | None]:
        vectors = {
            output: tf.cast(tf.reshape(result, [-1, sizes[output]]), tf.float32)
            for output, result in zip(choice.outputs, function(images), strict=True)
        }
        logits = None if choice.logits is None else vectors[choice.logits]
        features = None if choice.features is None else vectors[choice.features]
        return logits, features

    return run
