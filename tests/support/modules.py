"""Modules in a directory: the launcher's findings about them, and the answers of workers."""

from pathlib import Path

import numpy as np

from beamlabel.transforms.hub.resolve import ResolvedModule, resolve_module
from beamlabel.transforms.inference.engines import open_engine
from beamlabel.transforms.inference.probe import probe_batch
from beamlabel.transforms.module.compile import CompileOptions, compiled
from beamlabel.transforms.module.load import inspect_module

# Seven images of 8 × 8 pixels, and the input of a module with the range [0, 1] for them.
PIXELS = np.concatenate([probe_batch(8, 8), 255 - probe_batch(8, 8)[:3]])
IMAGES = (PIXELS / np.float32(255)).astype(np.float32)


def inspect(path, handle=None, **options):
    """Inspects the module in a directory like the launcher; the handle is the path by default."""
    return inspect_module(ResolvedModule(handle or str(path), Path(path), "0" * 64), **options)


def answers(path, directory, **options):
    """Logits and features of ``PIXELS`` from the artifact in the workers' engine, and its spec."""
    artifact = compiled(resolve_module(str(path), directory), CompileOptions(**options), directory / "cache")
    return (*open_engine(artifact.path, artifact.sha256)(PIXELS), artifact.spec)
