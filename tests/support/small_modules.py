"""A small base module, and own modules on it as ``beamlabel train`` writes them; imported if TensorFlow is needed."""

import json

import numpy as np
import tensorflow as tf

from beamlabel.transforms.hub.resolve import resolve_module
from beamlabel.transforms.module.load import inspect_module
from beamlabel.transforms.own_module.description import (
    ASSETS,
    CLASSIFICATION,
    DESCRIPTION,
    FEATURE_VECTOR,
    FEATURES_KEY,
    HEAD,
    HEAD_BIAS,
    HEAD_KERNEL,
    LABELS,
    LOGITS_KEY,
    SERVING,
    Description,
)

SIZE, FEATURES = 8, 6
NAMES = ("ant", "bee", "cat")


class Network(tf.Module):
    """Images of 8 × 8 → 6 features, none below zero, as those of most networks."""

    def __init__(self, seed=1):
        super().__init__()
        self.kernel = tf.Variable(3 * tf.random.stateless_normal([3, FEATURES], seed=[seed, 2]))

    def features(self, images):
        return tf.reduce_mean(tf.nn.relu((images - 0.5) @ self.kernel), [1, 2])


def _images():
    return tf.TensorSpec([None, SIZE, SIZE, 3], tf.float32, name="images")


def save_base(path, seed=1):
    """A module that gives features alone; the path as a string."""
    network = Network(seed)

    @tf.function(input_signature=[_images()])
    def features(images):
        return {FEATURES_KEY: network.features(images)}

    network.serve = features
    tf.saved_model.save(network, str(path), signatures={FEATURE_VECTOR: features})
    return str(path)


def save_own(path, base, *, seed=1, names=NAMES, normalizes=False, wrong_head=False, cache):
    """An own module on ``save_base(base, seed)``, with weights of its own; the path as a string."""
    network = Network(seed)
    random = np.random.default_rng(len(names))
    kernel = random.standard_normal((FEATURES, len(names))).astype(np.float32) * 4
    bias = random.standard_normal(len(names)).astype(np.float32)
    for name, weight in ((HEAD_KERNEL, kernel), (HEAD_BIAS, bias)):
        setattr(network, name, tf.Variable(weight))

    def logits(features):
        vectors = tf.math.l2_normalize(features, axis=1) if normalizes else features
        return vectors @ kernel + bias

    @tf.function(input_signature=[_images()])
    def both(images):
        features = network.features(images)
        return {LOGITS_KEY: logits(features), FEATURES_KEY: features}

    @tf.function(input_signature=[_images()])
    def features(images):
        return {FEATURES_KEY: network.features(images)}

    @tf.function(input_signature=[tf.TensorSpec([None, FEATURES], tf.float32, name="features")])
    def head(features):
        return {LOGITS_KEY: logits(features) * (2.0 if wrong_head else 1.0)}

    signatures = {SERVING: both, CLASSIFICATION: both, FEATURE_VECTOR: features, HEAD: head}
    network.signed = list(signatures.values())
    tf.saved_model.save(network, str(path), signatures=signatures)
    resolved = resolve_module(str(base), cache)
    description = Description(
        class_names=tuple(names),
        scores="softmax",
        normalizes=normalizes,
        height=SIZE,
        width=SIZE,
        input_range=(0.0, 1.0),
        features_of=inspect_module(resolved).features_of,
        base=str(base),
        base_fingerprint=resolved.fingerprint,
        decoding={"crop": None, "color_profile": "convert"},
    )
    assets = path / ASSETS
    assets.mkdir(exist_ok=True)
    (assets / DESCRIPTION).write_text(description.to_json())
    (assets / LABELS).write_text("".join(f"{name}\n" for name in names))
    (path / "_TRAINING.json").write_text(json.dumps({}))
    return str(path)
