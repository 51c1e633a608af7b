"""A compiled model → something to call; the worker's side.

An engine is opened from the artifact that the launcher staged, and from nothing else: no hub, no module, no
conversion. Each engine lives in a module of its own, which is imported when its first artifact is opened.
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

# How many engines this process has opened. Read it as `engines.loads`; an imported name would stand still.
loads = 0
_loads_lock = threading.Lock()


@dataclass(frozen=True)
class EngineSession:
    """A payload that is ready.

    Attributes:
      run: what calls it.
      name, precision: the engine and the precision that really compute here: where the spec's precision is
        not to be had, others than the spec's.
    """

    run: Run
    name: str
    precision: str


class Engine:
    """A model that is ready; owns all that it needs, and may be called by several threads at once.

    Beam's ``Shared`` holds it by a weak reference, which is why it is an object and no plain function.

    Attributes:
      spec: what it takes and gives.
      name, precision: what really computes here, see ``EngineSession``.
      computed_by: both in one text, such as ``litert float32``.
      nbytes: size of the compiled model.
      head: the engine ``linear`` of the same module's head, for features that are known; None if it is not asked for,
        see ``PredictOptions``.
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
          images: N images of the spec's size, each uint8[height, width, 3], RGB; or one array of them. They
            are not stacked here: an engine copies each straight to where it is read. Of the engine ``linear``
            features, float32[N, embedding_dim].

        Returns:
          (float32[N, num_classes] or None, float32[N, embedding_dim] or None).

        Raises:
          ValueError: another dtype or shape.
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
            raise ValueError(f"the head takes float32[N, {self.spec.embedding_dim}] of features, not {found}")
        return features


def open_engine(artifact_path: str, sha256: str, threads: int | None = None) -> Engine:
    """Opens what ``compile.compiled`` made.

    Args:
      artifact_path: the file, local or remote; a remote one is fetched once a host, see ``host_cache``.
      sha256: of the file, in hex, as the launcher saw it.
      threads: that compute in this process, see ``compute_pool``.

    Raises:
      ModuleError: these are other bytes, no artifact, or the engine is not known or installed here.
    """
    from beamlabel.transforms.storage.host_cache import open_artifact

    artifact = open_artifact(artifact_path, sha256)
    spec, payload = unpack(artifact.content)
    engine = Engine(spec, len(artifact.content), open_payload(spec, payload, threads, artifact.path))
    _count_load()
    return engine


def read_spec(artifact_path: str, sha256: str) -> ModelSpec:
    """What is in an artifact, without opening it; raises as ``open_engine``."""
    from beamlabel.transforms.storage.host_cache import open_artifact

    spec, _ = unpack(open_artifact(artifact_path, sha256).content)
    return spec


def open_payload(
    spec: ModelSpec, payload: memoryview, threads: int | None = None, path: Path | None = None
) -> EngineSession:
    """What is in an artifact's payload, ready to be called.

    Args:
      spec, payload: the artifact's.
      threads: that compute in this process, see ``compute_pool``.
      path: a file that begins with the payload, for engines that map it; None: the payload is in memory alone.

    Raises:
      ModuleError: no engine of that name, or its library is not installed here.
    """
    if spec.engine not in _ENGINES:
        raise ModuleError(f"no engine is called {spec.engine!r}; there are {', '.join(sorted(_ENGINES))}")
    opened: EngineSession = importlib.import_module(_ENGINES[spec.engine]).open_payload(
        spec, payload, threads, path
    )
    return opened


def _count_load() -> None:
    global loads
    with _loads_lock:
        loads += 1
