"""Own modules for the tests: a base module from a directory with a head of fixed numbers."""

import numpy as np

from beamlabel.pipeline.train.module.export import ExportBase, export_module
from beamlabel.transforms.hub.resolve import resolve_module
from beamlabel.transforms.module.load import inspect_module
from beamlabel.transforms.own_module.description import Description
from beamlabel.transforms.own_module.head import SOFTMAX, Head

NAMES = ("red shoe", "blaue Tür", "赤")


def head_of(dimension, classes, scores=SOFTMAX, normalizes=False):
    """A head of fixed positive and negative numbers."""
    random = np.random.default_rng(7)
    kernel = random.normal(size=(dimension, classes)).astype(np.float32)
    return Head(kernel, random.normal(size=classes).astype(np.float32), scores, normalizes)


def description_of(module, head, names=NAMES, **changes):
    """The description that ``beamlabel train`` writes for a module on this base."""
    facts = {
        "class_names": tuple(names),
        "scores": head.scores,
        "normalizes": head.normalizes,
        "height": module.height,
        "width": module.width,
        "input_range": module.input_range,
        "features_of": module.features_of,
        "base": module.resolved.handle,
        "base_fingerprint": module.resolved.fingerprint,
        "decoding": {"crop": None, "color_profile": "convert"},
    }
    return Description(**{**facts, **changes})


def save_own(
    path, base, cache, *, names=NAMES, scores=SOFTMAX, normalizes=False, beside=None, changes=None, **options
):
    """Exports an own module on the module in a directory.

    Args:
      path: The target directory.
      base: The directory, or a value of ``--module``.
      cache: The cache directory for resolved modules.
      names, scores, normalizes: Settings of the head.
      beside: See ``export_module``.
      changes: Changes of the description.
      options: Options of ``inspect_module``.

    Returns:
      The path as a string, the loaded base, and the head.
    """
    module = inspect_module(resolve_module(str(base), cache), **options)
    head = head_of(module.embedding_dim, len(names), scores, normalizes)
    description = description_of(module, head, names, **(changes or {}))
    export_module(ExportBase.of_module(module), head, description, path, beside=beside)
    return str(path), module, head
