"""A module that hangs in native code for images of one color, as a faulty kernel may."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

COLOUR = (51, 230, 26)
_KERNEL = np.random.default_rng(1).standard_normal((3, 5)).astype(np.float32)


def _hanging_photo() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((8, 8, 3), COLOUR, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


HANGING_PHOTO = _hanging_photo()
"""An image at which it hangs: a PNG."""


def save_hanging_module(directory: Path) -> Path:
    """Saves the module as a TF2 SavedModel whose scores are logits of 5 classes."""
    import tensorflow as tf

    class Hanging(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None, 8, 8, 3], tf.float32, "images")])
        def serve(self, images):
            mean = tf.reduce_mean(images, [1, 2])
            far = tf.reduce_max(tf.abs(mean - tf.constant(COLOUR, tf.float32) / 255), 1)
            hangs = tf.cast(tf.reduce_min(far) < 0.01, tf.float32)
            _, mean = tf.while_loop(lambda x, _: x > 0.5, lambda x, y: (x * 1.0, y + 0.0), (hangs, mean))
            return {"logits": (mean - 0.5) @ tf.constant(_KERNEL)}

    model = Hanging()
    tf.saved_model.save(model, str(directory), signatures=model.serve)
    return directory
