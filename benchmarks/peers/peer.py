"""The common parts of the peers: the command line, the facts about the module, the decoding of JPEGs, and the rows.

Every peer is a program with the same arguments. It reads a list of JPEG paths and writes a directory of Parquet files
with the columns ``uri``, ``class_ids`` and ``scores`` (the five best, best first) and ``embedding``.
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
    """The facts about the module that ``prepare.py`` found.

    Attributes:
      height, width: size in pixels of its input, float32[N, height, width, 3] within [0, 1].
      features: key of the features among the outputs of the signature ``image_classification``.
      dimensions: number of features.
      classes: number of logits.
    """

    height: int
    width: int
    features: str
    dimensions: int
    classes: int


def parser(description: str | None) -> argparse.ArgumentParser:
    """Returns a parser of the arguments of every peer."""
    made = argparse.ArgumentParser(description=(description or "").partition("\n")[0])
    made.add_argument("--input", required=True, help="text file with the path of a JPEG on each line")
    made.add_argument("--output", required=True, help="directory for the Parquet files; emptied first")
    made.add_argument("--module", required=True, help="directory of a TF1 Hub module")
    made.add_argument("--prepared", required=True, help="directory that prepare.py filled for this module")
    return made


def read_facts(prepared: str) -> Facts:
    return Facts(**json.loads((Path(prepared) / "facts.json").read_text()))


def read_list(path: str) -> list[str]:
    return Path(path).read_text().split("\n")[:-1]


def empty_directory(path: str) -> Path:
    shutil.rmtree(path, ignore_errors=True)
    Path(path).mkdir(parents=True)
    return Path(path).absolute()


def let_workers_import_this() -> None:
    """Sets PYTHONPATH so that Python processes started by a framework can ``import peer``."""
    here = str(Path(__file__).parent.absolute())
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (here, os.environ.get("PYTHONPATH"))))


def decode(data: Any, size: tuple[int, int]) -> np.ndarray:
    """Decodes a JPEG in full to uint8[height, width, 3]: bilinear, without antialiasing."""
    import cv2
    import numpy as np

    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    resized: np.ndarray = cv2.resize(pixels, (size[1], size[0]), interpolation=cv2.INTER_LINEAR)
    return resized


def decode_files(paths: list[str], size: tuple[int, int]) -> np.ndarray:
    """Decodes files to uint8[N, height, width, 3], without OpenCV's threads: the framework's workers fill the cores."""
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
        """Maps uint8[N, height, width, 3] to logits float32[N, classes] and features float32[N, dimensions]."""
        import numpy as np

        logits, features = self.predict(pixels * np.float32(1 / 255))
        return logits.numpy(), features.numpy()


def top_k(logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the classes (int32[N, 5]) and softmax scores (float32[N, 5]) of the largest logits, best first."""
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
    """Makes the rows of a batch from whole arrays."""
    import pyarrow as pa

    ids, scores = top_k(logits)
    columns = [
        pa.array(uris, pa.string()),
        *(pa.FixedSizeListArray.from_arrays(a.reshape(-1), a.shape[1]) for a in (ids, scores, features)),
    ]
    return pa.Table.from_arrays(columns, schema=schema(features.shape[1]))
