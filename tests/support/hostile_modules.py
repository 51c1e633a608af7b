"""Modules with side effects; tests import this file only if they need TensorFlow."""

import tarfile

import tensorflow as tf
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from support.paths import DATA
from support.tf_modules import Holder, images_spec

TINY = DATA / "tiny_classification_1.tar.gz"
# The places in a SavedModel of `save_hidden` that can hold the operation.
PLACES = ("signature", "while", "cond", "function", "map", "uncalled", "initializer", "gradient")


def save_hidden(path, place, act):
    """Saves a working TF2 SavedModel with the operation that ``act()`` returns; returns the path as a string.

    Args:
      path: The target directory.
      place: One of ``PLACES``.
      act: Called while the graph is built.
    """
    module = Holder()

    @tf.function
    def helper(values):
        with tf.control_dependencies([act()]):
            return tf.identity(values)

    def serve(images):
        logits = module.logits(images)
        if place == "signature":
            with tf.control_dependencies([act()]):
                logits = tf.identity(logits)
        elif place == "while":
            logits = tf.while_loop(lambda i, _: i < 1, lambda i, x: (i + 1, helper(x)), (0, logits))[1]
        elif place == "cond":
            logits = tf.cond(tf.reduce_sum(logits) > 1e9, lambda: helper(logits), lambda: logits)
        elif place == "function":
            logits = helper(logits)
        elif place == "map":
            logits = tf.map_fn(helper, logits)
        elif place == "gradient":
            logits = _with_gradient(logits, act)
        return {"logits": logits}

    if place == "uncalled":
        module.helper = helper
        helper.get_concrete_function(tf.TensorSpec([None], tf.float32))
    if place == "initializer":
        module.resource = _Initialized(act)
    signature = tf.function(serve, input_signature=[images_spec()])
    options = tf.saved_model.SaveOptions(experimental_custom_gradients=place == "gradient")
    tf.saved_model.save(module, str(path), signatures=signature, options=options)
    return str(path)


def _with_gradient(logits, act):
    @tf.custom_gradient
    def passed(values):
        def gradient(upstream):
            with tf.control_dependencies([act()]):
                return tf.identity(upstream)

        return tf.identity(values), gradient

    return passed(logits)


class _Initialized(tf.saved_model.experimental.TrackableResource):
    """A resource whose initializer acts; every load runs it."""

    def __init__(self, act):
        super().__init__()
        self._act = act
        self.resource_handle  # noqa: B018 (makes it)

    def _create_resource(self):
        return tf.constant(1.0)

    def _initialize(self):
        self._act()
        return tf.constant(1.0)


def save_with_saver(path, act=None, references=False):
    """Saves a TensorFlow 1 SavedModel with a saver's nodes; returns the path as a string.

    Args:
      path: The target directory.
      act: The action of ``main_op``; None for no ``main_op``.
      references: Whether the variable is of the kind before TensorFlow 1.11.
    """
    v1 = tf.compat.v1
    with v1.Graph().as_default(), v1.Session() as session:
        images = v1.placeholder(tf.float32, [None, 8, 8, 3])
        logits = tf.reduce_mean(images, [1, 2]) * v1.get_variable("scale", [], use_resource=not references)
        session.run(v1.global_variables_initializer())
        signature = v1.saved_model.predict_signature_def({"images": images}, {"logits": logits})
        builder = v1.saved_model.Builder(str(path))
        builder.add_meta_graph_and_variables(
            session, ["serve"], {"default": signature}, main_op=act() if act else None
        )
        builder.save()
    return str(path)


def genuine():
    """The ``SavedModel`` of a genuine TF1 Hub module with graphs for inference and training."""
    with tarfile.open(TINY) as tar:
        member = next(name for name in tar.getnames() if name.endswith("saved_model.pb"))
        return SavedModel.FromString(tar.extractfile(member).read())


def add_node(meta_graph, op, *inputs, name="hostile", text=None):
    """Adds a node to a meta graph's graph; ``text`` becomes a constant that is its first input."""
    graph_def = meta_graph.graph_def
    if text is not None:
        constant = graph_def.node.add(name=f"{name}/text", op="Const")
        constant.attr["dtype"].type = tf.string.as_datatype_enum
        constant.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(text))
        inputs = (constant.name, *inputs)
    return graph_def.node.add(name=name, op=op, input=inputs)
