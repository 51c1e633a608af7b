"""Opens a compiled model as a callable: the worker's side.

An engine opens only the artifact that the launcher staged; it needs no hub, no module and no conversion. Each engine
has a Python module of its own, which is imported when its first artifact is opened.
"""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from beamlabel.transforms.inference.artifact import (
    LINEAR,
    LITERT,
    OPENVINO,
    TENSORFLOW,
    ModelSpec,
    ModuleError,
    unpack,
)

Outputs = tuple["np.ndarray | None", "np.ndarray | None"]
Images = Sequence[np.ndarray] | np.ndarray
Run = Callable[[Images], Outputs]

# Each has a function open_payload(spec, payload, threads, path) -> EngineSession.
_ENGINES = {
    LITERT: "beamlabel.transforms.inference.litert_engine",
    OPENVINO: "beamlabel.transforms.inference.openvino_engine",
    TENSORFLOW: "beamlabel.transforms.inference.tensorflow_engine",
    LINEAR: "beamlabel.transforms.inference.linear_engine",
}

# Number of engines that this process has opened. Read it as `engines.loads`: an imported name would not change.
loads = 0
_loads_lock = threading.Lock()


@dataclass(frozen=True)
class EngineSession:
    """An opened payload.

    Attributes:
      run: calls the payload.
      name, precision: the engine and the precision that really compute here; they differ from the spec's if the spec's
        precision is not available.
    """

    run: Run
    name: str
    precision: str


class Engine:
    """A ready model, which owns everything it needs. Thread-safe.

    Beam's ``Shared`` holds it by a weak reference, which is why it is an object and not a plain function.

    Attributes:
      spec: description of the model's input and output.
      name, precision: the engine and precision that really compute here, see ``EngineSession``.
      computed_by: both in one text, such as ``litert float32``.
      nbytes: size of the compiled model in bytes.
      head: the engine ``linear`` with the same module's head, for known features; None if it is not needed, see
        ``PredictOptions``.
    """

    def __init__(self, spec: ModelSpec, nbytes: int, opened: EngineSession) -> None:
        self.spec = spec
        self.nbytes = nbytes
        self.name, self.precision = opened.name, opened.precision
        self.computed_by = f"{opened.name} {opened.precision}"
        self.head: Engine | None = None
        self._run = opened.run

    def __call__(self, images: Images) -> Outputs:
        """Runs the model on a batch.

        Args:
          images: N images of the spec's size, each uint8[height, width, 3], RGB; or one array of them. They are not
            stacked here, because an engine copies each directly to its input. For the engine ``linear``: features,
            float32[N, embedding_dim].

        Returns:
          (float32[N, num_classes] or None, float32[N, embedding_dim] or None).

        Raises:
          ValueError: the dtype or shape is wrong.
        """
        if self.spec.engine == LINEAR:
            return self._run(self._checked_features(images))
        expected = (self.spec.height, self.spec.width, 3)
        for image in images:
            if image.dtype != np.uint8 or image.shape != expected:
                raise ValueError(
                    f"the model takes images of uint8[{self.spec.height}, {self.spec.width}, 3], "
                    f"not {image.dtype}{list(image.shape)}"
                )
        return self._run(images)

    def _checked_features(self, features: Images) -> np.ndarray:
        if (
            not isinstance(features, np.ndarray)
            or features.dtype != np.float32
            or features.shape[1:] != (self.spec.embedding_dim,)
        ):
            found = (
                f"{features.dtype}{list(features.shape)}" if isinstance(features, np.ndarray) else "images"
            )
            raise ValueError(f"the head takes features of float32[N, {self.spec.embedding_dim}], not {found}")
        return features


def open_engine(artifact_path: str, sha256: str, threads: int | None = None) -> Engine:
    """Opens an artifact from ``compile.compiled``.

    Args:
      artifact_path: the file, local or remote; a remote one is fetched once per host, see ``host_cache``.
      sha256: SHA-256 of the file, in hex, as computed by the launcher.
      threads: number of computing threads in this process, see ``compute_pool``.

    Raises:
      ModuleError: the bytes differ or are not an artifact, or the engine is unknown or not installed here.
    """
    from beamlabel.transforms.storage.host_cache import open_artifact

    artifact = open_artifact(artifact_path, sha256)
    spec, payload = unpack(artifact.content)
    engine = Engine(spec, len(artifact.content), open_payload(spec, payload, threads, artifact.path))
    _count_load()
    return engine


def read_spec(artifact_path: str, sha256: str) -> ModelSpec:
    """Reads the spec of an artifact without opening the engine; raises the same errors as ``open_engine``."""
    from beamlabel.transforms.storage.host_cache import open_artifact

    spec, _ = unpack(open_artifact(artifact_path, sha256).content)
    return spec


def open_payload(
    spec: ModelSpec, payload: memoryview, threads: int | None = None, path: Path | None = None
) -> EngineSession:
    """Opens an artifact's payload.

    Args:
      spec, payload: spec and payload of the artifact.
      threads: number of computing threads in this process, see ``compute_pool``.
      path: a file that begins with the payload, for engines that map it; None: the payload is only in memory.

    Raises:
      ModuleError: the engine is unknown, or its library is not installed here.
    """
    if spec.engine not in _ENGINES:
        raise ModuleError(f"unknown engine {spec.engine!r}; available engines: {', '.join(sorted(_ENGINES))}")
    opened: EngineSession = importlib.import_module(_ENGINES[spec.engine]).open_payload(
        spec, payload, threads, path
    )
    return opened


def _count_load() -> None:
    global loads
    with _loads_lock:
        loads += 1
