"""Writes base and head as a SavedModel with reproducible files."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from beamlabel.pipeline.train.module.canonical import make_canonical
from beamlabel.pipeline.train.module.export_base import ExportBase
from beamlabel.transforms.inference.artifact import ModuleError
from beamlabel.transforms.inference.lazy_tensorflow import tensorflow
from beamlabel.transforms.module.freeze import InferencePart, inference_part, node_name, rename
from beamlabel.transforms.own_module.description import (
    CLASSIFICATION,
    FEATURE_VECTOR,
    FEATURES_KEY,
    HEAD,
    HEAD_BIAS,
    HEAD_KERNEL,
    LOGITS_KEY,
    SERVING,
)
from beamlabel.transforms.own_module.head import Head


def write_saved_model(base: ExportBase, head: Head, directory: Path) -> bool:
    """Writes the SavedModel into a directory.

    Its root has the signatures of an own module (see ``description``), ``head_kernel`` and ``head_bias``, and the
    members of TensorFlow Hub's reusable SavedModels: ``__call__`` (images → logits), ``variables`` and
    ``trainable_variables``; see https://www.tensorflow.org/hub/reusable_saved_models.

    Returns:
      Whether the base has trainable variables.

    Raises:
      ModuleError: the base depends on something that cannot be saved.
    """
    tf = tensorflow()
    part = _part(base)
    copies = _copies(part)
    images = tf.TensorSpec([None, base.height, base.width, 3], tf.float32, name="images")
    vectors = tf.TensorSpec([None, base.embedding_dim], tf.float32, name="features")
    root = tf.__internal__.tracking.AutoTrackable()
    kernel = tf.Variable(head.kernel, name=HEAD_KERNEL)
    bias = tf.Variable(head.bias, name=HEAD_BIAS)
    base_variables = [one for one in copies.values() if isinstance(one, tf.Variable)]
    for name, value in (
        (HEAD_KERNEL, kernel),
        (HEAD_BIAS, bias),
        ("variables", [*base_variables, kernel, bias]),
    ):
        setattr(root, name, value)
    root.trainable_variables = [one for one in root.variables if one.trainable]

    def network(images: Any) -> Any:
        return _vectors(part, images, copies, base)

    # All signatures share this function, so that the file holds the network once.
    features = _traced(_any_number(network, base), images).get_concrete_function()

    def both(images: Any) -> dict[str, Any]:
        found = features(images)
        return {LOGITS_KEY: _logits(head, found, kernel, bias), FEATURES_KEY: found}

    def call(images: Any) -> Any:
        return both(images)[LOGITS_KEY]

    def feature_vector(images: Any) -> dict[str, Any]:
        return {FEATURES_KEY: features(images)}

    def head_alone(features: Any) -> dict[str, Any]:
        return {LOGITS_KEY: _logits(head, features, kernel, bias)}

    serve = _traced(both, images)
    root.__call__ = _traced(call, images)
    signatures = {
        SERVING: serve,
        CLASSIFICATION: serve,
        FEATURE_VECTOR: _traced(feature_vector, images),
        HEAD: _traced(head_alone, vectors),
    }
    tf.saved_model.save(root, str(directory), signatures=signatures)
    make_canonical(directory)
    return any(one.trainable for one in base_variables)


def _part(base: ExportBase) -> InferencePart:
    """The base's network, with names that do not depend on the history of the process.

    Keras numbers its layers and models. Placeholders of fed tensors are removed, since their names may be numbers.
    """
    shape = [base.batch, base.height, base.width, 3]
    part = inference_part(lambda images: [base.features(images)], shape, tensorflow().float32)
    names = {node_name(one): node_name(one) for one in (part.image, *part.captures)}
    fed = set(names)
    graph_def = rename(part.graph_def, names)
    kept = [node for node in graph_def.node if node.name not in fed]
    del graph_def.node[:]
    graph_def.node.extend(kept)
    outputs = tuple(f"{names[node_name(one)]}:{one.partition(':')[2]}" for one in part.outputs)
    return dataclasses.replace(part, graph_def=graph_def, outputs=outputs)


def _logits(head: Head, vectors: Any, kernel: Any, bias: Any) -> Any:
    """``Head.logits``, by TensorFlow."""
    tf = tensorflow()
    if head.normalizes:
        lengths = tf.sqrt(tf.reduce_sum(tf.square(vectors), axis=1, keepdims=True))
        vectors = vectors / tf.where(lengths > 0, lengths, tf.ones_like(lengths))
    return tf.matmul(vectors, kernel) + bias


def _traced(function: Callable[[Any], Any], spec: Any) -> Any:
    return tensorflow().function(function, input_signature=[spec], autograph=False)


def _copies(part: InferencePart) -> dict[str, Any]:
    """The module's own variables, with the base's values, names and dtypes; other tensors become constants."""
    tf = tensorflow()
    copies: dict[str, Any] = {}
    for name, one in part.captures.items():
        if hasattr(one, "handle"):
            title = one.name.partition(":")[0]
            copies[name] = tf.Variable(one.read_value(), trainable=one.trainable, name=title, dtype=one.dtype)
        elif tf.is_tensor(one) and hasattr(one, "numpy"):
            copies[name] = tf.constant(one.numpy())
        else:
            raise ModuleError(f"its features depend on {one}, which cannot be saved")
    return copies


def _vectors(part: InferencePart, images: Any, captures: dict[str, Any], base: ExportBase) -> Any:
    """The features of a batch of images of the base's batch size: float32[N, D]."""
    tf = tensorflow()
    graph = tf.compat.v1.get_default_graph()
    feeds = {part.image: images}
    for place, (name, one) in enumerate(captures.items()):
        if isinstance(one, tf.Variable):
            graph.watch_variable(one)
        # Without a name, TensorFlow would number them by a counter of the process.
        feeds[name] = graph.capture(getattr(one, "handle", one), name=f"weights_{place}")
    (found,) = tf.graph_util.import_graph_def(
        part.graph_def, input_map=feeds, return_elements=list(part.outputs), name=""
    )
    return tf.ensure_shape(found, [base.batch, base.embedding_dim])


def _any_number(function: Callable[[Any], Any], base: ExportBase) -> Callable[[Any], Any]:
    """A function of any number of images, from one of a fixed batch size: splits and pads the images."""
    tf = tensorflow()
    size = base.batch
    if size is None:
        return function

    def run(images: Any) -> Any:
        count = tf.shape(images)[0]
        filling = tf.math.floormod(-count, size)
        whole = tf.concat([images, tf.repeat(images[-1:], filling, axis=0)], 0)
        parts = tf.reshape(whole, [-1, size, base.height, base.width, 3])
        spec = tf.TensorSpec([size, base.embedding_dim], tf.float32)
        found = tf.map_fn(function, parts, fn_output_signature=spec, parallel_iterations=1)
        return tf.reshape(found, [-1, base.embedding_dim])[:count]

    return run
