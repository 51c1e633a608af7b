"""What the peers share: the command line, what is known of the module, how a JPEG becomes pixels, and the rows.

Every peer is a program with the same arguments that reads a list of JPEG paths and leaves a folder of Parquet
files with the columns ``uri``, ``class_ids`` and ``scores`` (the five best, best first) and ``embedding``.
Only the standard library is imported until a function needs more.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

TOP_K = 5
SIGNATURE, LOGITS = "image_classification", "default"

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


class Facts(NamedTuple):
    """What ``prepare.py`` found out about the module.

    Attributes:
      height, width: pixels of its input, float32[N, height, width, 3] within [0, 1].
      features: key of the features among the outputs of the signature ``image_classification``.
      dimensions: how many features there are.
      classes: how many logits there are.
    """

    height: int
    width: int
    features: str
    dimensions: int
    classes: int


def parser(description: str | None) -> argparse.ArgumentParser:
    """The arguments that every peer takes."""
    made = argparse.ArgumentParser(description=(description or "").partition("\n")[0])
    made.add_argument("--input", required=True, help="text file, the path of a JPEG a line")
    made.add_argument("--output", required=True, help="folder for the Parquet files; emptied first")
    made.add_argument("--module", required=True, help="folder of a TF1 Hub module")
    made.add_argument("--prepared", required=True, help="folder that prepare.py filled for this module")
    return made


def read_facts(prepared: str) -> Facts:
    return Facts(**json.loads((Path(prepared) / "facts.json").read_text()))


def read_list(path: str) -> list[str]:
    return Path(path).read_text().split("\n")[:-1]


def empty_folder(path: str) -> Path:
    shutil.rmtree(path, ignore_errors=True)
    Path(path).mkdir(parents=True)
    return Path(path).absolute()


def let_workers_import_this() -> None:
    """For frameworks that start Python processes: what they inherit makes ``import peer`` work."""
    here = str(Path(__file__).parent.absolute())
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (here, os.environ.get("PYTHONPATH"))))


def decode(data: Any, size: tuple[int, int]) -> np.ndarray:
    """An encoded JPEG → uint8[height, width, 3]: decoded in full, bilinear, no antialias."""
    import cv2
    import numpy as np

    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    resized: np.ndarray = cv2.resize(pixels, (size[1], size[0]), interpolation=cv2.INTER_LINEAR)
    return resized


def decode_files(paths: list[str], size: tuple[int, int]) -> np.ndarray:
    """uint8[N, height, width, 3]; OpenCV's own threads are off, as the framework's workers fill the cores."""
    import cv2
    import numpy as np

    cv2.setNumThreads(1)
    return np.stack([decode(Path(path).read_bytes(), size) for path in paths])


class TensorFlowModel:
    """The module in TensorFlow: one traced function, one pass over the network for both outputs."""

    def __init__(self, module: str, facts: Facts, threads: int | None = None) -> None:
        import tensorflow as tf
        import tensorflow_hub as hub

        if threads is not None:
            tf.config.threading.set_intra_op_parallelism_threads(threads)
            tf.config.threading.set_inter_op_parallelism_threads(1)
        self.loaded = hub.load(module, tags=[])  # kept: its signatures do not own its variables
        signature = self.loaded.signatures[SIGNATURE]
        shape = [None, facts.height, facts.width, 3]

        @tf.function(input_signature=[tf.TensorSpec(shape, tf.float32)])
        def predict(images: Any) -> tuple[Any, Any]:
            outputs = signature(images=images)
            return outputs[LOGITS], tf.reshape(outputs[facts.features], [-1, facts.dimensions])

        self.predict = predict

    def from_pixels(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """uint8[N, height, width, 3] → logits float32[N, classes], features float32[N, dimensions]."""
        import numpy as np

        logits, features = self.predict(pixels * np.float32(1 / 255))
        return logits.numpy(), features.numpy()


def top_k(logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The classes (int32[N, 5]) and softmax scores (float32[N, 5]) of the largest logits, best first."""
    import numpy as np

    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    scores = odds / odds.sum(axis=1, keepdims=True)
    some = np.argpartition(scores, -TOP_K, axis=1)[:, -TOP_K:]
    order = np.argsort(-np.take_along_axis(scores, some, 1), axis=1, kind="stable")
    ids = np.take_along_axis(some, order, 1)
    return ids.astype(np.int32), np.take_along_axis(scores, ids, 1)


def schema(dimensions: int) -> pa.Schema:
    import pyarrow as pa

    return pa.schema(
        [
            ("uri", pa.string()),
            ("class_ids", pa.list_(pa.int32(), TOP_K)),
            ("scores", pa.list_(pa.float32(), TOP_K)),
            ("embedding", pa.list_(pa.float32(), dimensions)),
        ]
    )


def table(uris: list[str], logits: np.ndarray, features: np.ndarray) -> pa.Table:
    """The rows of a batch, made of whole arrays."""
    import pyarrow as pa

    ids, scores = top_k(logits)
    columns = [
        pa.array(uris, pa.string()),
        *(pa.FixedSizeListArray.from_arrays(a.reshape(-1), a.shape[1]) for a in (ids, scores, features)),
    ]
    return pa.Table.from_arrays(columns, schema=schema(features.shape[1]))
