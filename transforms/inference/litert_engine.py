"""The engine "litert": a FlatBuffer run by LiteRT's XNNPACK on the CPU, without TensorFlow.

Images are taken four at a time, whose activations stay in the processor's cache, or as many as this CPU turns out to
run fastest, see ``chunk_size``: 381 images/s a core with four, against 368 with eight and 355 with sixteen (MobileNet
V2 0.75, 160 pixels, Xeon). All give the same bits. A batch's chunks go to as many
interpreters of one thread each as there are cores; that scales where threads within one interpreter, which
split every layer, do not.
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
    """A LiteRT model, as ``compile`` made it, as a function of images.

    LiteRT maps the file at ``path``, whose pages all processes of a host share, or takes a copy of the payload. What
    lies in memory alone is opened for a comparison, or where nothing can be remembered: its chunk is not measured.

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
    """One interpreter of one thread, its input fixed to a chunk; not for two threads at a time."""

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
        """Logits and features, float32[N, D] each or None, of 1 to a chunk of images."""
        # Not in a variable: while there is a view into the interpreter, it refuses to run.
        fill(self._interpreter.tensor(self._source)(), images)
        self._interpreter.invoke()
        return [
            None if target is None else self._interpreter.get_tensor(target)[: len(images)]
            for target in self._targets
        ]
