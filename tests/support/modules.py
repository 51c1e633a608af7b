"""Modules of a folder for the tests: what the launcher finds in them, and what workers answer by them."""

from pathlib import Path

import numpy as np

from beamlabel.transforms.hub.resolve import ResolvedModule, resolve_module
from beamlabel.transforms.inference.engines import open_engine
from beamlabel.transforms.inference.probe import probe_batch
from beamlabel.transforms.module.compile import CompileOptions, compiled
from beamlabel.transforms.module.load import inspect_module

# Seven images of 8 × 8, and what a module of the range [0, 1] sees of them.
PIXELS = np.concatenate([probe_batch(8, 8), 255 - probe_batch(8, 8)[:3]])
IMAGES = (PIXELS / np.float32(255)).astype(np.float32)


def inspect(path, handle=None, **options):
    """What the launcher finds in the module of a folder; the handle is its path, unless given."""
    return inspect_module(ResolvedModule(handle or str(path), Path(path), "0" * 64), **options)


def answers(path, folder, **options):
    """Logits and features of ``PIXELS`` by the artifact, from the engine that workers use; and its spec."""
    artifact = compiled(resolve_module(str(path), folder), CompileOptions(**options), folder / "cache")
    return (*open_engine(artifact.path, artifact.sha256)(PIXELS), artifact.spec)
