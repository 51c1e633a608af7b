"""Runs the job with an engine that computes nothing: ``python benchmarks/stub_job.py OPTIONS OF THE JOB``.

For ``memory.py`` and others. Everything except inference is real, and outputs have the usual size (1280 features), so a
million references take minutes.
"""

from __future__ import annotations

import hashlib
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from beamlabel.pipeline.__main__ import console
from beamlabel.pipeline.job import plan
from beamlabel.transforms.inference import engines
from beamlabel.transforms.inference.artifact import Artifact, ModelSpec, pack
from beamlabel.transforms.inference.engines import EngineSession, Images, Outputs

SIZE, CLASSES, FEATURES = 16, 10, 1280

SPEC = ModelSpec(
    engine="stub",
    height=SIZE,
    width=SIZE,
    num_classes=CLASSES,
    embedding_dim=FEATURES,
    fingerprint="0" * 64,
    handle="stub",
    kind="stub",
    input_range=(0.0, 255.0),
    score_kind="logits",
    scores="softmax",
    scores_reason="a stub",
    input_tensor="images",
    logits_tensor="logits",
    features_tensor="features",
)


def open_payload(
    spec: ModelSpec, payload: memoryview, threads: int | None = None, path: Path | None = None
) -> EngineSession:
    """Opens the stub; see ``compute``."""
    del spec, payload, threads, path
    return EngineSession(lambda images: compute(images), "stub", "float32")


def compute(images: Images) -> Outputs:
    """Returns rows of pixels as logits and features, which differ from image to image."""
    values = np.stack([image.ravel() for image in images]).astype(np.float32)
    features = np.resize(values, (len(images), 2, SIZE * SIZE * 3)).reshape(len(images), -1)[:, :FEATURES]
    return values[:, :CLASSES].copy(), np.ascontiguousarray(features)


@contextmanager
def stubbed() -> Iterator[None]:
    """Replaces the module that the job would fetch and compile with a stub."""
    # By its importable name, because this file may run as __main__.
    engines._ENGINES["stub"] = "stub_job"
    with tempfile.TemporaryDirectory() as directory:
        data = pack(SPEC, b"")
        path = Path(directory) / "stub.model"
        path.write_bytes(data)
        artifact = Artifact(str(path), hashlib.sha256(data).hexdigest(), SPEC)
        plan.resolve = lambda *_, **__: None  # type: ignore[attr-defined]
        plan.prepare_artifact = lambda *_, **__: artifact  # type: ignore[attr-defined]
        yield


def run_job(argv: Sequence[str]) -> None:
    """Runs the command with ``--module stub``; see ``stubbed``."""
    with stubbed():
        sys.argv[1:] = ["--module", "stub", *argv]
        console()


if __name__ == "__main__":
    run_job(sys.argv[1:])
