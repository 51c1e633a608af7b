"""Exports a base and a head as a module: a SavedModel that the job and TensorFlow Hub use like any other."""

from __future__ import annotations

import dataclasses
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from beamlabel.pipeline.train.module.export_base import ExportBase
from beamlabel.pipeline.train.module.saved_model import write_saved_model
from beamlabel.transforms import storage
from beamlabel.transforms.hub.files import SAVED_MODEL
from beamlabel.transforms.hub.mirror import mirror_module
from beamlabel.transforms.inference.artifact import ModuleError
from beamlabel.transforms.inference.lazy_tensorflow import tensorflow
from beamlabel.transforms.inference.probe import probe_batch
from beamlabel.transforms.module.freeze import to_float
from beamlabel.transforms.own_module.description import (
    ASSETS,
    DESCRIPTION,
    FEATURES_KEY,
    LABELS,
    LOGITS_KEY,
    SERVING,
    Description,
    check_class_names,
)
from beamlabel.transforms.own_module.head import Head
from beamlabel.transforms.storage import local as local_storage

__all__ = ["ExportBase", "export_module"]

# Largest difference between the written module and its source, relative to the largest feature, or to the largest sum
# of magnitudes that adds up to a logit.
_TOLERANCE = 1e-5


def export_module(
    base: ExportBase,
    head: Head,
    description: Description,
    directory: str | os.PathLike[str],
    *,
    beside: Mapping[str, bytes] | None = None,
) -> None:
    """Writes an own module atomically: a local directory appears by a rename; in a bucket ``saved_model.pb`` is last.

    The same base, head and description give the same files, and so the same fingerprint. The written module is
    loaded and compared with base and head on a fixed batch of images.

    Args:
      base: network of the features.
      head: head for these features.
      description: description of the module; ``trainable`` is filled in.
      directory: new directory; local, or on a storage that ``beamlabel.transforms.storage`` writes.
      beside: content by name of files in the directory that are not part of the module, such as ``_TRAINING.json``;
        the names begin with ``_``.

    Raises:
      ModuleError: base, head and description do not fit together, the base cannot be exported, or the written module
        gives different results.
      FileExistsError: the directory exists.
      OSError: the module cannot be written; nothing is left of it.
    """
    _check(base, head, description)
    if wrong := [name for name in beside or {} if not name.startswith("_") or "/" in name]:
        raise ValueError(f"names of files beside the module must begin with _, unlike {wrong[0]!r}")
    target = storage.absolute(os.fspath(directory)).rstrip("/")
    with _new_directory(target) as scratch:
        trainable = write_saved_model(base, head, scratch)
        _write_assets(dataclasses.replace(description, trainable=trainable), scratch / ASSETS)
        _compare(base, head, scratch)
        for name, content in (beside or {}).items():
            (scratch / name).write_bytes(content)


def _check(base: ExportBase, head: Head, description: Description) -> None:
    """Raises ``ModuleError`` unless base, head and description fit together."""
    check_class_names(description.class_names, description.scores)
    shape = base.embedding_dim, len(description.class_names)
    if head.kernel.shape != shape:
        raise ModuleError(
            f"the head has shape {head.kernel.shape}, but there are {shape[0]} features and {shape[1]} classes"
        )
    for name, one, other in (
        ("size", (description.height, description.width), (base.height, base.width)),
        ("input_range", tuple(description.input_range), tuple(base.input_range)),
        ("scores", description.scores, head.scores),
        ("normalizes", description.normalizes, head.normalizes),
    ):
        if one != other:
            raise ModuleError(f"the description has {name} {one}, but the module has {other}")


@contextmanager
def _new_directory(target: str) -> Iterator[Path]:
    """A scratch directory that becomes ``target`` at the end, unless an error is raised."""
    local = storage.is_local(target)
    if os.path.lexists(target) if local else storage.exists(storage.join(target, SAVED_MODEL)):
        raise FileExistsError(f"{target} exists: name another directory or delete it")
    parent = Path(target).parent if local else None
    if parent is not None:
        parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{Path(target).name}.", dir=parent))
    try:
        yield scratch
        if local:
            scratch.chmod(0o755)
            _rename(scratch, target)
        else:
            _upload(scratch, target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _rename(directory: Path, target: str) -> None:
    local_storage.sync_tree(directory)
    try:
        # Fails if a directory was created meanwhile, unless it is empty.
        directory.rename(target)
    except OSError as error:
        if os.path.lexists(target):
            raise FileExistsError(f"{target} exists: name another directory or delete it") from error
        raise
    storage.sync_directory(str(Path(target).parent))


def _upload(directory: Path, target: str) -> None:
    """Copies a module into a bucket, ``saved_model.pb`` last; deletes the copies if it fails."""
    before = {file.path for file in storage.match(target + "/")}
    try:
        for path in sorted(directory.glob("_*")):
            storage.write_bytes(storage.join(target, path.name), path.read_bytes())
        mirror_module(directory, target)
    except BaseException:
        for file in storage.match(target + "/"):
            if file.path not in before:
                storage.delete(file.path)
        raise


def _write_assets(description: Description, assets: Path) -> None:
    assets.mkdir(exist_ok=True)
    (assets / LABELS).write_bytes("".join(f"{name}\n" for name in description.class_names).encode())
    (assets / DESCRIPTION).write_bytes(description.to_json().encode())


def _compare(base: ExportBase, head: Head, directory: Path) -> None:
    """Raises ``ModuleError`` if the written module gives other results than base and head."""
    tf = tensorflow()
    images = to_float(probe_batch(base.height, base.width), base.input_range)
    expected = base.features(_repeated(images, base.batch)).numpy()[: len(images)]
    loaded = tf.saved_model.load(str(directory))
    found = {name: one.numpy() for name, one in loaded.signatures[SERVING](images=images).items()}
    features = found[FEATURES_KEY]
    for name, before, after, largest in (
        (FEATURES_KEY, expected, features, np.abs(expected).max()),
        (LOGITS_KEY, head.logits(features), found[LOGITS_KEY], head.magnitude(features)),
    ):
        if before.shape != after.shape:
            raise ModuleError(f"the written module gives {name} of shape {after.shape}, not {before.shape}")
        difference = float(np.abs(before - after).max())
        if not difference <= _TOLERANCE * max(1.0, float(largest)):
            raise ModuleError(f"the written module gives {name} that differ by {difference:.2g}")


def _repeated(images: Any, batch: int | None) -> Any:
    """Repeats images up to a multiple of the base's batch size."""
    tf = tensorflow()
    if batch is None:
        return images
    times = -(-len(images) // batch) * batch
    return (
        tf.repeat(images[:1], times, axis=0)
        if len(images) > times
        else tf.concat([images, tf.repeat(images[-1:], times - len(images), axis=0)], 0)
    )
