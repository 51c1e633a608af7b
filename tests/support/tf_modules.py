"""Small TF2 and Keras SavedModels; tests import this file only if they need TensorFlow."""

import tensorflow as tf

CLASSES, FEATURES = 5, 7


class TwoOutputs(tf.Module):
    """A module for any image size with the given names and shapes."""

    def __init__(self, logits="logits", features="feature_vector", size=None, maps=False):
        super().__init__()
        self.kernel = tf.Variable(tf.random.stateless_normal([3, FEATURES], seed=[1, 2]))
        self.head = tf.Variable(tf.random.stateless_normal([FEATURES, CLASSES], seed=[3, 4]))
        self.names_of = (logits, features)
        self.maps = maps
        self.serve = tf.function(
            self.run, input_signature=[tf.TensorSpec([None, size, size, 3], tf.float32, "images")]
        )

    def run(self, images):
        features = tf.nn.relu(images @ self.kernel)
        pooled = tf.reduce_mean(features, [1, 2], keepdims=True)
        logits = tf.reshape(pooled, [-1, FEATURES]) @ self.head
        results = (logits, features if self.maps else pooled)
        return {name: result for name, result in zip(self.names_of, results, strict=True) if name}


def save_two_outputs(path, **options):
    """Saves a TF2 SavedModel with a ``serving_default`` signature; returns the path as a string."""
    module = TwoOutputs(**options)
    tf.saved_model.save(module, str(path), signatures=module.serve)
    return str(path)


class Colours(tf.Module):
    """Classifies by mean color, so that different images get different classes."""

    def __init__(self, classes):
        super().__init__()
        self.head = tf.Variable(10 * tf.random.stateless_normal([3, classes], seed=[7, 8]))

    @tf.function(input_signature=[tf.TensorSpec([None, 8, 8, 3], tf.float32, "images")])
    def serve(self, images):
        return {"logits": (tf.reduce_mean(images, [1, 2]) - 0.5) @ self.head}


def save_colours(path, classes):
    """Saves ``Colours`` as a TF2 SavedModel; returns the path as a string."""
    module = Colours(classes)
    tf.saved_model.save(module, str(path), signatures=module.serve)
    return str(path)


class Callable(tf.Module):
    """A callable object with traces for training and inference, like TF Hub's TF2 image modules."""

    def __init__(self, width):
        super().__init__()
        self.kernel = tf.Variable(tf.random.stateless_normal([3, width], seed=[5, 6]))

    @tf.function
    def __call__(self, inputs, training=False, batch_norm_momentum=0.99):
        return tf.reduce_mean(inputs, [1, 2]) @ self.kernel + (1000.0 if training else 0.0)


def save_callable(path, width, size=16):
    """Saves a TF2 SavedModel without signatures; returns the path as a string."""
    module = Callable(width)
    images = tf.TensorSpec([None, size, size, 3], tf.float32, name="inputs")
    for training in (True, False):
        module.__call__.get_concrete_function(images, training=training)
    tf.saved_model.save(module, str(path))
    return str(path)


def keras_classifier(activation="softmax", height=16, width=20):
    """Convolution, batch norm, dropout, pooling (layer ``pooled``), classes (layer ``head``)."""
    layers = tf.keras.layers
    tf.keras.utils.set_random_seed(1)
    images = layers.Input((height, width, 3))
    net = layers.Conv2D(FEATURES, 3, activation="relu")(images)
    net = layers.BatchNormalization()(net)
    net = layers.Dropout(0.5)(net)
    net = layers.GlobalAveragePooling2D(name="pooled")(net)
    return tf.keras.Model(images, layers.Dense(CLASSES, activation=activation, name="head")(net))


def save_constants(path):
    """Saves a TensorFlow 1 SavedModel for serving: tag ``serve``, no object graph."""
    v1 = tf.compat.v1
    with v1.Graph().as_default(), v1.Session() as session:
        images = v1.placeholder(tf.float32, [None, 8, 8, 3])
        logits = tf.reduce_mean(images, [1, 2]) * 2
        v1.saved_model.simple_save(session, str(path), {"images": images}, {"logits": logits})
    return str(path)


class Holder(tf.Module):
    """An object for functions and variables; ``weights`` are normal numbers [3, CLASSES]."""

    def __init__(self):
        super().__init__()
        self.weights = tf.Variable(tf.random.stateless_normal([3, CLASSES], seed=[9, 1]))

    def logits(self, images):
        """Logits [N, CLASSES] from the mean color of images [N, height, width, 3]."""
        return (tf.reduce_mean(images, [1, 2]) - 0.5) @ self.weights


class Called(tf.Module):
    """A callable object."""

    def __init__(self, holder, function):
        super().__init__()
        self.holder = holder
        self.function = function

    @tf.function(input_signature=[tf.TensorSpec([None, 8, 8, 3], tf.float32, "images")])
    def __call__(self, images):
        return self.function(images)


def images_spec(*shape, dtype=tf.float32):
    """The input spec of a signature; [None, 8, 8, 3] by default."""
    return tf.TensorSpec(shape or [None, 8, 8, 3], dtype, name="images")


def save_functions(path, holder, specs=None, **functions):
    """Saves a TF2 SavedModel with a signature for each function of images; ``call`` becomes ``__call__``.

    Args:
      path: The target directory.
      holder: The owner of the variables.
      specs: The input spec by signature name if it is not ``images_spec()``.
      functions: The functions by signature name.
    """
    traced = {
        name: tf.function(function, input_signature=[(specs or {}).get(name, images_spec())])
        for name, function in functions.items()
    }
    if "call" in traced:
        traced.pop("call")
        holder = Called(holder, functions["call"])
    tf.saved_model.save(holder, str(path), signatures=traced)
    return str(path)
