"""Opens a module as a trainable network."""

from __future__ import annotations

import dataclasses

from beamlabel.pipeline.errors import UsageError
from beamlabel.pipeline.fine_tune import graph_network, object_network
from beamlabel.pipeline.fine_tune.network import Images, Network
from beamlabel.transforms.inference.artifact import ModuleError
from beamlabel.transforms.inference.lazy_tensorflow import tensorflow
from beamlabel.transforms.module import keras_file
from beamlabel.transforms.module.checked_files import CheckedSavedModel
from beamlabel.transforms.module.hub_module import HubModule
from beamlabel.transforms.module.tf2_saved_model import SERVE


def open_network(module: HubModule) -> Network:
    """The network that computes a module's features, with its own trainable variables.

    Raises:
      UsageError: the module cannot be trained; the message gives the reason.
    """
    try:
        return _open(module)
    except ModuleError as error:
        raise UsageError(f"--fine_tune: module {module.resolved.handle}: {error}") from error


def _open(module: HubModule) -> Network:
    if module.features is None:
        raise ModuleError("it has no features to train a head on; name an output with --features_output")
    if module.batch is not None:
        raise ModuleError(
            f"it takes only batches of {module.batch} images, so it was made for inference alone"
        )
    if module.kind == keras_file.KIND:
        return object_network.open_keras_file(module)
    saved_model = CheckedSavedModel(module.resolved)
    path, meta_graphs = saved_model.path, saved_model.meta_graphs
    by_tags = {frozenset(one.meta_info_def.tags): one for one in meta_graphs}
    if frozenset() in by_tags:
        return _last_channel(graph_network.open_graphs(path, meta_graphs, module.features, set()), module)
    tags = min((tags for tags in by_tags if SERVE in tags), key=len)
    if by_tags[tags].object_graph_def.nodes:
        return object_network.open_saved_model(saved_model, module, set(tags))
    return _last_channel(graph_network.open_graphs(path, meta_graphs, module.features, set(tags)), module)


def _last_channel(network: Network, module: HubModule) -> Network:
    """The network as a function of [N, height, width, 3]."""
    if not module.channels_first:
        return network

    def wrapped(function: Images) -> Images:
        return lambda images: function(tensorflow().transpose(images, [0, 3, 1, 2]))

    train = {mode: wrapped(function) for mode, function in network.train.items()}
    return dataclasses.replace(network, infer=wrapped(network.infer), train=train)
