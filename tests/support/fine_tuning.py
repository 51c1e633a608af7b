"""Fine-tuning of the tiny module: a task for which its features are poor, and broken copies of the module."""

import shutil
import sys
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image

from beamlabel.pipeline.commands.train import main
from support.jobs import TINY

OPTIONS = (
    "--fine_tune",
    *("--truth", "parent", "--learning_rate", "0.003", "--batch_size", "16", "--augment", "none"),
)


def patterns(directory: Path, count: int) -> Path:
    """Waves in four directions and random colors, in one directory per class."""
    random = np.random.default_rng(0)
    y, x = np.mgrid[:32, :32]
    for number in range(count):
        phase, period = random.uniform(0, 2 * np.pi), random.uniform(4, 8)
        kind, step = number % 4, 2 * np.pi / period
        wave = (
            np.sin(step * x + phase),
            np.sin(step * y + phase),
            np.sin(step * (x + y) + phase),
            np.sin(step * x + phase) * np.sin(step * y),
        )[kind]
        one, other = random.uniform(0, 255, (2, 3))
        values = one + (other - one) * (wave[..., None] + 1) / 2 + random.normal(0, 15, (32, 32, 3))
        path = directory / f"class{kind}" / f"{number:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.clip(values, 0, 255).astype(np.uint8)).save(path)
    return directory


def unpacked_tiny(directory: Path) -> Path:
    """The tiny module, unpacked into a directory."""
    directory.mkdir()
    with tarfile.open(TINY) as archive:
        archive.extractall(directory, filter="data")
    return directory


def broken(tiny: Path, directory: Path, how: str) -> Path:
    """The tiny module as broken exporters write it.

    Args:
      tiny: The directory of the tiny module.
      directory: The directory of the copy.
      how: ``no collection`` of update ops, ``no-ops`` in it, or ``no train graph``.
    """
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    shutil.copytree(tiny, directory)
    path = directory / "saved_model.pb"
    model = SavedModel.FromString(path.read_bytes())
    (place,) = [at for at, one in enumerate(model.meta_graphs) if "train" in one.meta_info_def.tags]
    training = model.meta_graphs[place]
    if how == "no train graph":
        del model.meta_graphs[place]
    elif how == "no collection":
        del training.collection_def["update_ops"]
    else:
        changed = 0
        for node in training.graph_def.node:
            if node.op == "AssignSubVariableOp":
                inputs = [f"^{one.lstrip('^').partition(':')[0]}" for one in node.input]
                del node.input[:]
                node.input.extend(dict.fromkeys(inputs))
                node.op = "NoOp"
                node.attr.clear()
                changed += 1
        assert changed == 26
    path.write_bytes(model.SerializeToString())
    return directory


def fine_tune(labels, output, *arguments) -> int:
    """Runs the command in this process and returns its exit code."""
    return main([str(labels), "--output", str(output), *OPTIONS, *map(str, arguments)])


def killed_after(epochs: int, *, threads: int) -> None:
    """Runs the command with this process's arguments; the process kills itself after a number of epochs.

    ``threads`` is the number of threads of TensorFlow's operations; 0 means one per core.
    """
    import os
    import signal

    import tensorflow as tf

    from beamlabel.pipeline.fine_tune.state import Workplace

    real = Workplace.save

    def save(self, **changes):
        real(self, **changes)
        if len(self.state.history) == epochs:
            os.kill(os.getpid(), signal.SIGKILL)

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    Workplace.save = save
    main(sys.argv[1:])
