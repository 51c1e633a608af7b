"""Small TF2 and Keras models, saved for real; imported by tests only after they need TensorFlow."""

import tensorflow as tf

CLASSES, FEATURES = 5, 7


class TwoOutputs(tf.Module):
    """A module of any image size; its names and shapes are those given."""

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
    """A TF2 SavedModel with a ``serving_default`` signature; the path as a string."""
    module = TwoOutputs(**options)
    tf.saved_model.save(module, str(path), signatures=module.serve)
    return str(path)


class Colours(tf.Module):
    """Classes by the mean colour, so that unlike images are of unlike classes."""

    def __init__(self, classes):
        super().__init__()
        self.head = tf.Variable(10 * tf.random.stateless_normal([3, classes], seed=[7, 8]))

    @tf.function(input_signature=[tf.TensorSpec([None, 8, 8, 3], tf.float32, "images")])
    def serve(self, images):
        return {"logits": (tf.reduce_mean(images, [1, 2]) - 0.5) @ self.head}


def save_colours(path, classes):
    """A TF2 SavedModel of ``Colours``; the path as a string."""
    module = Colours(classes)
    tf.saved_model.save(module, str(path), signatures=module.serve)
    return str(path)


class Callable(tf.Module):
    """What TF Hub's TF2 image modules are: an object to call, with traces for training and inference."""

    def __init__(self, width):
        super().__init__()
        self.kernel = tf.Variable(tf.random.stateless_normal([3, width], seed=[5, 6]))

    @tf.function
    def __call__(self, inputs, training=False, batch_norm_momentum=0.99):
        return tf.reduce_mean(inputs, [1, 2]) @ self.kernel + (1000.0 if training else 0.0)


def save_callable(path, width, size=16):
    """A TF2 SavedModel without signatures; the path as a string."""
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
    """A SavedModel as TensorFlow 1 wrote them for serving: tag ``serve``, no object graph."""
    v1 = tf.compat.v1
    with v1.Graph().as_default(), v1.Session() as session:
        images = v1.placeholder(tf.float32, [None, 8, 8, 3])
        logits = tf.reduce_mean(images, [1, 2]) * 2
        v1.saved_model.simple_save(session, str(path), {"images": images}, {"logits": logits})
    return str(path)


class Holder(tf.Module):
    """An object to hang functions and variables on; ``weights`` are normal numbers [3, CLASSES]."""

    def __init__(self):
        super().__init__()
        self.weights = tf.Variable(tf.random.stateless_normal([3, CLASSES], seed=[9, 1]))

    def logits(self, images):
        """[N, CLASSES] of the mean colour of images [N, height, width, 3]."""
        return (tf.reduce_mean(images, [1, 2]) - 0.5) @ self.weights


class Called(tf.Module):
    """An object to call."""

    def __init__(self, holder, function):
        super().__init__()
        self.holder = holder
        self.function = function

    @tf.function(input_signature=[tf.TensorSpec([None, 8, 8, 3], tf.float32, "images")])
    def __call__(self, images):
        return self.function(images)


def images_spec(*shape, dtype=tf.float32):
    """What a signature takes; [None, 8, 8, 3] unless said."""
    return tf.TensorSpec(shape or [None, 8, 8, 3], dtype, name="images")


def save_functions(path, holder, specs=None, **functions):
    """A TF2 SavedModel with a signature for each function of images; ``call`` becomes ``__call__``.

    Args:
      path: where to.
      holder: what owns the variables.
      specs: the signature's input by its name, where it is not ``images_spec()``.
      functions: by the signature's name.
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
