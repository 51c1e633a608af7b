"""TensorFlow 1 modules: the graph tagged ``train`` and the inference graph, over one set of variables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from beamlabel.pipeline.fine_tune.graph_rewrite import (
    HANDLE,
    SEED,
    batch_norms,
    make_repeatable,
    node_of,
    part_of,
    salt,
    with_resources,
)
from beamlabel.pipeline.fine_tune.network import MODULE, OURS, START_MOMENTUM, Images, Network
from beamlabel.transforms.inference.artifact import ModuleError
from beamlabel.transforms.inference.lazy_tensorflow import tensorflow
from beamlabel.transforms.module.outputs import Output

TRAIN = "train"
_VARIABLES, _TRAINABLE, _UPDATES = "variables", "trainable_variables", "update_ops"
_CHECKPOINT = "variables/variables"


@dataclass(frozen=True, eq=False)
class _Graph:
    """The part of a meta graph that computes the features.

    Attributes:
      graph_def: the nodes of the features and of everything else that is fetched.
      image: name of the tensor that takes the images.
      features: name of the tensor of the features.
    """

    graph_def: Any
    image: str
    features: str

    @property
    def variables(self) -> list[str]:
        return [node.name for node in self.graph_def.node if node.op == HANDLE]


def open_graphs(
    path: Path, meta_graphs: Sequence[Any], features: Output, inference_tags: set[str]
) -> Network:
    """The network of a SavedModel written by TensorFlow 1.

    Args:
      path: directory of the SavedModel.
      meta_graphs: all its meta graphs.
      features: the output with the features.
      inference_tags: tags of the meta graph for inference.

    Raises:
      ModuleError: its features do not depend on variables, or its graph is not supported.
    """
    by_tags = {frozenset(one.meta_info_def.tags): one for one in meta_graphs}
    inference = by_tags[frozenset(inference_tags)]
    training = by_tags.get(frozenset({*inference_tags, TRAIN}), by_tags.get(frozenset({TRAIN})))
    infer = _graph_of(inference, features, ())
    variables = _Variables(path, inference)
    updates = _collection(training, _UPDATES) if training is not None else []
    trained = None
    if training is not None and features.signature in training.signature_def:
        trained = _training_graph(training, features, infer, updates)
        variables.add(trained.graph.variables)
    variables.add(infer.variables)
    if not any(variables.is_trainable(name) for name in variables.names):
        raise ModuleError(
            "its features depend on no trainable variable: the weights are constants, as in a frozen graph"
        )
    statistics = [name for name in infer.variables if not variables.is_trainable(name)]
    train: dict[str, Images] = {}
    if trained is not None:
        train[MODULE] = variables.function(trained.graph, after=trained.updates)
        if trained.norms:
            train[OURS] = variables.function(trained.graph, norms=trained.norms)
    return Network(
        source="train graph" if train else "inference graph",
        variables=variables.all,
        names=variables.names,
        trainable=[variables.is_trainable(name) for name in variables.names],
        statistics=[variables[name] for name in statistics],
        infer=variables.function(infer),
        train=train,
        momentum=variables.momentum,
        keeper=variables,
    )


@dataclass(frozen=True, eq=False)
class _Trained:
    """The graph in training mode, with its update ops and batch normalizations; see ``batch_norms``."""

    graph: _Graph
    updates: Sequence[str]
    norms: Sequence[tuple[str, str, str]]


def _training_graph(training: Any, features: Output, infer: _Graph, updates: Sequence[str]) -> _Trained:
    alone = _graph_of(training, features, ())
    norms = batch_norms(alone.graph_def, infer.graph_def)
    return _Trained(_graph_of(training, features, updates), updates, norms)


def _graph_of(meta_graph: Any, features: Output, beside: Sequence[str]) -> _Graph:
    definition = meta_graph.signature_def[features.signature]
    if features.key not in definition.outputs:
        raise ModuleError(
            f"its graph tagged {set(meta_graph.meta_info_def.tags)} has no output {features.name}"
        )
    fetched = definition.outputs[features.key].name
    feeds = {node_of(info.name): info.name for info in definition.inputs.values()}
    part = part_of(with_resources(meta_graph.graph_def), [fetched, *beside])
    images = [feeds[node.name] for node in part.node if node.name in feeds]
    if len(images) != 1:
        raise ModuleError(
            f"its features depend on {len(images)} inputs of the signature {features.signature}, not on one"
        )
    others = [node.name for node in part.node if node.op == "Placeholder" and node.name != node_of(images[0])]
    if others:
        raise ModuleError(f"its graph needs inputs other than images: {', '.join(others)}")
    return _Graph(part, images[0], fetched)


def _collection(meta_graph: Any, name: str) -> list[str]:
    return list(meta_graph.collection_def[name].node_list.value) if name in meta_graph.collection_def else []


class _Variables:
    """The variables of all graphs, by node name, with the values of the checkpoint."""

    def __init__(self, path: Path, meta_graph: Any) -> None:
        tf = tensorflow()
        from tensorflow.core.framework.variable_pb2 import VariableDef

        def definitions(name: str) -> list[Any]:
            if name not in meta_graph.collection_def:
                return []
            return [VariableDef.FromString(one) for one in meta_graph.collection_def[name].bytes_list.value]

        self._definitions = {node_of(one.variable_name): one for one in definitions(_VARIABLES)}
        trainable = definitions(_TRAINABLE)
        self._trainable = {node_of(one.variable_name) for one in trainable}
        self._definitions.update({node_of(one.variable_name): one for one in trainable})
        self._path = path / _CHECKPOINT
        self._by_name: dict[str, Any] = {}
        self.momentum = tf.Variable(START_MOMENTUM, trainable=False, name="momentum")
        self._calls = tf.Variable(0, dtype=tf.int64, trainable=False, name="calls")

    @property
    def names(self) -> list[str]:
        return [*self._by_name, "calls"]

    @property
    def all(self) -> list[Any]:
        return [*self._by_name.values(), self._calls]

    def __getitem__(self, name: str) -> Any:
        return self._by_name[name]

    def is_trainable(self, name: str) -> bool:
        return name in self._trainable and self._by_name[name].dtype.is_floating

    def add(self, names: Sequence[str]) -> None:
        """Reads variables from the checkpoint that are not loaded yet."""
        tf = tensorflow()
        new = [name for name in names if name not in self._by_name]
        if not new:
            return
        if not self._path.with_name("variables.index").is_file():
            raise ModuleError("its graph has variables, but its files have none")
        reader = tf.train.load_checkpoint(str(self._path))
        for name in new:
            value = _value(reader, self._definitions.get(name), name)
            self._by_name[name] = tf.Variable(value, trainable=name in self._trainable, name=name)

    def function(
        self,
        graph: _Graph,
        *,
        after: Sequence[str] = (),
        norms: Sequence[tuple[str, str, str]] = (),
    ) -> Images:
        """A graph as a function of images; also runs the ops ``after`` and moves the averages of ``norms``."""
        tf = tensorflow()
        graph_def = type(graph.graph_def)()
        graph_def.CopyFrom(graph.graph_def)
        seeds = make_repeatable(graph_def)
        fed = {node_of(graph.image), *graph.variables}
        kept = [node for node in graph_def.node if node.name not in fed]
        if not (after or norms):
            kept = list(_made_of(kept, graph.features, fed))
        for node in kept:
            # A fed tensor is no longer a node, so nothing can depend on it.
            inputs = [one for one in node.input if not (one.startswith("^") and node_of(one) in fed)]
            node.input[:] = inputs
        # Copy first, because deleting the nodes frees them.
        kept = [type(node).FromString(node.SerializeToString()) for node in kept]
        del graph_def.node[:]
        graph_def.node.extend(kept)
        outputs = [f"{name}:{number}" for name, _, _ in norms for number in (1, 2)]

        @tf.function(autograph=False)
        def run(images: Any) -> Any:
            feeds = self._feeds(graph.variables)
            feeds[graph.image] = images
            if seeds:
                step = self._calls.assign_add(1)
                feeds |= {name: tf.stack([step, salt(name[len(SEED) :])]) for name in seeds}
            found = tf.graph_util.import_graph_def(
                graph_def, input_map=feeds, return_elements=[graph.features, *outputs, *after], name=""
            )
            features, statistics, ops = found[0], found[1 : 1 + len(outputs)], found[1 + len(outputs) :]
            moved = [self._move(*one) for one in zip(self._averages(norms), statistics, strict=True)]
            with tf.control_dependencies([*ops, *moved]):
                # LiteRT needs a static number of features where the graph has one.
                inner = features.shape[1:]
                size = inner.num_elements() if inner.is_fully_defined() else -1
                vectors = tf.reshape(features, [tf.shape(features)[0], size])
            return tf.cast(vectors, tf.float32)

        return run

    def _averages(self, norms: Sequence[tuple[str, str, str]]) -> list[Any]:
        return [self._by_name[name] for _, mean, variance in norms for name in (mean, variance)]

    def _move(self, average: Any, value: Any) -> Any:
        return average.assign_sub((average - value) * (1 - self.momentum))

    def _feeds(self, names: Sequence[str]) -> dict[str, Any]:
        graph = tensorflow().compat.v1.get_default_graph()
        feeds = {}
        for name in names:
            variable = self._by_name[name]
            graph.watch_variable(variable)
            feeds[f"{name}:0"] = graph.capture(variable.handle)
        return feeds


def _made_of(nodes: Sequence[Any], tensor: str, fed: set[str]) -> list[Any]:
    """The nodes that a tensor depends on, without the fed ones."""
    by_name: Mapping[str, Any] = {node.name: node for node in nodes}
    waiting, found = [node_of(tensor)], set()
    while waiting:
        name = waiting.pop()
        if name in found or name in fed or name not in by_name:
            continue
        found.add(name)
        waiting += [node_of(one) for one in by_name[name].input]
    return [node for node in nodes if node.name in found]


def _value(reader: Any, definition: Any, name: str) -> Any:
    """A variable's value in a checkpoint; for a part of a partitioned variable, the value of that part."""
    shapes = reader.get_variable_to_shape_map()
    if name in shapes:
        return reader.get_tensor(name)
    if definition is not None and definition.HasField("save_slice_info_def"):
        part = definition.save_slice_info_def
        if part.full_name in shapes:
            whole = reader.get_tensor(part.full_name)
            spans = zip(part.var_offset, part.var_shape, strict=True)
            return whole[tuple(slice(start, start + size) for start, size in spans)]
    raise ModuleError(f"its checkpoint has no variable {name}")
