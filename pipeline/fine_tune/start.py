"""The start of a fine-tuning: the module, and a head on its original features."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from beamlabel.pipeline.errors import UsageError
from beamlabel.pipeline.fine_tune.network import Network
from beamlabel.pipeline.fine_tune.task import Task
from beamlabel.pipeline.job.prepare_module import load, resolve
from beamlabel.pipeline.train.findings.evaluate_head import right
from beamlabel.pipeline.train.head.fit_head import head_of_train_images, probabilities_of
from beamlabel.pipeline.train.module.base_module import load_base
from beamlabel.pipeline.train.rows.base import BaseOutput
from beamlabel.pipeline.train.rows.features import features_of
from beamlabel.pipeline.train.rows.options import HeadOptions, RowsOptions
from beamlabel.pipeline.train.rows.scratch import scratch
from beamlabel.transforms.inference.lazy_tensorflow import tensorflow
from beamlabel.transforms.module.freeze import to_float
from beamlabel.transforms.module.hub_module import HubModule
from beamlabel.transforms.module_process.process import ModuleProcess
from beamlabel.transforms.output_spec import features_id_of
from beamlabel.transforms.own_module.head import Head


@dataclass(frozen=True, eq=False)
class Base:
    """The module to train.

    Attributes:
      module: the loaded module.
      has_embeddings: whether the outputs hold its features unchanged.
    """

    module: HubModule
    has_embeddings: bool


@dataclass(frozen=True, eq=False)
class Start:
    """A head on the original network, trained on the training images alone.

    Attributes:
      head: the head, without a temperature.
      right: bool[N], whether it predicts each row correctly.
    """

    head: Head
    right: np.ndarray


def load_module(base: BaseOutput, options: RowsOptions) -> Base:
    """Loads the module that made the embeddings, or another module if one is named.

    Raises:
      UsageError: it cannot be loaded or used.
    """
    handle = options.module
    fingerprint, allows = options.module_fingerprint, options.allow_unsafe_ops
    with ModuleProcess(options.limits) as process:
        if handle is not None:
            resolved = resolve(handle, process=process, fingerprint=fingerprint, allow_unsafe_ops=allows)
        if handle is None or resolved.fingerprint == base.fingerprint:
            module = load_base(base, handle, process, fingerprint=fingerprint, allow_unsafe_ops=allows)
            return Base(module, not base.normalized)
        try:
            module = load(resolved, process)
        except ValueError as error:
            raise UsageError(f"--module {handle!r}: {error}") from error
    size = module.height, module.width
    taken = base.preprocessing["height"], base.preprocessing["width"]
    has_features = bool(base.features_id) and size == taken
    is_same = has_features and features_id_of(base.preprocessing, module.features_of) == base.features_id
    return Base(module, is_same and not base.normalized)


def start_of(
    base: Base, network: Network, task: Task, options: HeadOptions, progress: Callable[[str], None]
) -> Start:
    """Trains a head on the features of the original network, taken from the outputs or computed again."""
    if base.has_embeddings:
        features = features_of(task.rows)
    else:
        progress("computing features")
        features = _computed(base.module, network, task)
    progress("training an initial head")
    head = head_of_train_images(features, task.rows, HeadOptions(class_weights=options.class_weights))
    head = Head(head.kernel, head.bias, head.scores)
    return Start(head, right(probabilities_of(features, head), task.rows.targets))


def _computed(module: HubModule, network: Network, task: Task) -> np.ndarray:
    tf = tensorflow()
    features = scratch(len(task.rows), module.embedding_dim or 0)
    function = tf.function(
        lambda pixels: network.infer(to_float(pixels, module.input_range)), reduce_retracing=True
    )
    for start in range(0, len(task.rows), task.batch_size):
        places = np.arange(start, min(start + task.batch_size, len(task.rows)))
        features[places] = function(tf.constant(task.images(places))).numpy()
    return features
