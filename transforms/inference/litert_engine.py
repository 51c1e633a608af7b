"""The engine "litert": runs a FlatBuffer with LiteRT's XNNPACK on the CPU, without TensorFlow.

Images are run four at a time, whose activations fit the processor's cache, or in the number that is fastest on this
CPU, see ``chunk_size``: 381 images/s per core with four, against 368 with eight and 355 with sixteen (MobileNet V2
0.75, 160 pixels, Xeon). All give the same bits. A batch's chunks are spread over as many single-threaded interpreters
as there are cores. That scales, unlike threads within one interpreter, which split every layer.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from beamlabel.transforms.inference import litert_start
from beamlabel.transforms.inference.artifact import FLOAT32, LITERT, ModelSpec, ModuleError
from beamlabel.transforms.inference.chunk_size import chunk_size
from beamlabel.transforms.inference.engines import EngineSession, Images
from beamlabel.transforms.inference.interpreter_pool import Chunks, fill

CHUNK = 4


def open_payload(
    spec: ModelSpec, payload: memoryview, threads: int | None = None, path: Path | None = None
) -> EngineSession:
    """Opens a LiteRT model from ``compile`` as a function of images.

    LiteRT maps the file at ``path``, so that all processes of a host share its pages, or copies the payload. A payload
    that is only in memory is opened for a comparison, or if nothing can be stored, so its chunk size is not measured.

    Raises:
      ModuleError: LiteRT is not installed, or cannot run the model.
    """
    model = {"model_content": bytes(payload)} if path is None else {"model_path": str(path)}
    size = spec.chunk_size(CHUNK)
    if path is not None:
        size = chunk_size(spec, _engine(), CHUNK, lambda chunk: _Interpreter(spec, model, chunk))
    chunks = Chunks(spec, size, lambda: _Interpreter(spec, model, size), threads)
    return EngineSession(chunks.run, LITERT, FLOAT32)


def _engine() -> str:
    try:
        return f"{LITERT} {version('ai-edge-litert')}"
    except PackageNotFoundError:
        return LITERT


class _Interpreter:
    """One single-threaded interpreter with an input of one chunk; at most one thread may use it at a time."""

    def __init__(self, spec: ModelSpec, model: dict[str, Any], chunk: int) -> None:
        try:
            from ai_edge_litert.interpreter import Interpreter
        except ImportError as error:
            raise ModuleError(f"LiteRT cannot be imported ({error}): pip install ai-edge-litert") from error
        litert_start.start(Interpreter)
        try:
            self._interpreter: Any = Interpreter(**model, num_threads=1)
            (source,) = self._interpreter.get_input_details()
            shape = (chunk, spec.height, spec.width, 3)
            self._interpreter.resize_tensor_input(source["index"], shape)
            self._interpreter.allocate_tensors()
        except (RuntimeError, ValueError) as error:
            raise ModuleError(f"LiteRT cannot run the model: {error}") from error
        outputs = {detail["name"]: detail["index"] for detail in self._interpreter.get_output_details()}
        self._source = source["index"]
        self._targets = [
            None if name is None else outputs[name] for name in (spec.logits_tensor, spec.features_tensor)
        ]

    def run(self, images: Images) -> list[np.ndarray | None]:
        """Logits and features, float32[N, D] each or None, for 1 to a chunk of images."""
        # Not kept in a variable: while a view into the interpreter exists, it refuses to run.
        fill(self._interpreter.tensor(self._source)(), images)
        self._interpreter.invoke()
        return [
            None if target is None else self._interpreter.get_tensor(target)[: len(images)]
            for target in self._targets
        ]
