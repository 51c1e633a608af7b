"""The engine "linear": runs the head of an own module on known features, with NumPy alone."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from beamlabel.transforms.inference.artifact import FLOAT32, LINEAR, ModelSpec, ModuleError
from beamlabel.transforms.inference.engines import EngineSession, Images, Outputs
from beamlabel.transforms.inference.top_k import l2_normalized

# Rows are always multiplied in blocks of this size, since BLAS adds in another order for fewer rows.
_BLOCK_ROWS = 256


def pack_head(kernel: np.ndarray, bias: np.ndarray, *, normalizes: bool) -> bytes:
    """The payload of an artifact: an ``.npz`` of the weights. Equal weights give equal bytes.

    Args:
      kernel: float32[D, C].
      bias: float32[C].
      normalizes: whether features are scaled to L2 length 1 first.
    """
    file = io.BytesIO()
    np.savez(file, kernel=kernel, bias=bias, normalizes=np.array(normalizes))
    return file.getvalue()


def open_payload(
    spec: ModelSpec, payload: memoryview, threads: int | None = None, path: Path | None = None
) -> EngineSession:
    """Opens the weights as a function of features, float32[N, D].

    Raises:
      ModuleError: the weights do not match the spec's dimensions.
    """
    with np.load(io.BytesIO(payload), allow_pickle=False) as file:
        kernel, bias, normalizes = file["kernel"], file["bias"], bool(file["normalizes"])
    if kernel.shape != (spec.embedding_dim, spec.num_classes) or bias.shape != kernel.shape[1:]:
        raise ModuleError(
            f"the head has a kernel of {list(kernel.shape)} and a bias of {list(bias.shape)}, but needs "
            f"{spec.embedding_dim} features and {spec.num_classes} classes"
        )

    def run(features: Images) -> Outputs:
        rows = np.asarray(features)
        logits = np.empty((len(rows), len(bias)), np.float32)
        for start in range(0, len(rows), _BLOCK_ROWS):
            block = rows[start : start + _BLOCK_ROWS]
            count = len(block)
            if count < _BLOCK_ROWS:
                block = np.concatenate([block, np.zeros((_BLOCK_ROWS - count, block.shape[1]), np.float32)])
            if normalizes:
                block = l2_normalized(block)
            logits[start : start + count] = (block @ kernel)[:count]
        return logits + bias, None

    return EngineSession(run, LINEAR, FLOAT32)
