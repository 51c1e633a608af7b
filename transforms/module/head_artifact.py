"""Compiles an own module's head to an artifact for the engine ``linear``, checked against the module's signature."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from pathlib import Path

import numpy as np

from beamlabel.transforms.hub.resolve import ResolvedModule
from beamlabel.transforms.inference.artifact import (
    LINEAR,
    LOGITS,
    Artifact,
    ModelSpec,
    ModuleError,
    Quantization,
    pack,
)
from beamlabel.transforms.inference.engines import open_engine, open_payload
from beamlabel.transforms.inference.lazy_tensorflow import tensorflow
from beamlabel.transforms.inference.linear_engine import pack_head
from beamlabel.transforms.inference.probe import check_equal, probe_batch
from beamlabel.transforms.module.checked_files import CheckedSavedModel
from beamlabel.transforms.module.compile import read_artifact, write_artifact
from beamlabel.transforms.own_module.check import ROUNDING, read_head
from beamlabel.transforms.own_module.description import HEAD, LOGITS_KEY, Description, read_description
from beamlabel.transforms.own_module.head import Head

# Raise this if the same module would now yield another artifact.
_VERSION = 2
_SEED, _PROBES = 20180614, 64
# Largest difference between the head and the signature, relative to the largest logit or the largest sum of terms.
_TOLERANCE = 1e-5


def head_artifact(
    resolved: ResolvedModule,
    artifact: Artifact,
    cache_dir: str | os.PathLike[str],
    *,
    precision: str,
    normalized: bool,
    quantization: Quantization | None = None,
) -> Artifact:
    """The head of a module that ``beamlabel train`` wrote: from the cache, or else compiled with TensorFlow.

    Args:
      resolved: the module's files.
      artifact: the artifact of the whole module.
      cache_dir: the cache of artifacts.
      precision: precision of the features, for the head's spec; the head computes in float32.
      normalized: whether the features have L2 length 1.
      quantization: quantization of the module that computed the features; None if it was not quantized.

    Raises:
      ModuleError: the module is not an own module, its head does not match its signatures, or it takes unnormalized
        features of the base and these are normalized.
    """
    there = head_at_hand(
        resolved, artifact, cache_dir, precision=precision, normalized=normalized, quantization=quantization
    )
    if there is not None:
        return there
    description = require_description(resolved)
    spec = _spec(description, artifact, precision, quantization)
    path = _path(artifact, spec, cache_dir)
    try:
        head = read_head(resolved.path, description)
        payload = pack_head(head.kernel, head.bias, normalizes=head.normalizes)
        _check_signature(resolved, spec, payload, head)
        _check_whole(artifact, spec, payload, head)
    except ModuleError as error:
        raise ModuleError(f"module {resolved.handle}: {error}") from error
    data = pack(spec, payload)
    write_artifact(path, data)
    return Artifact(str(path), hashlib.sha256(data).hexdigest(), spec)


def head_at_hand(
    resolved: ResolvedModule,
    artifact: Artifact,
    cache_dir: str | os.PathLike[str],
    *,
    precision: str,
    normalized: bool,
    quantization: Quantization | None = None,
) -> Artifact | None:
    """Returns the head as ``head_artifact`` does, or None if it was not compiled before.

    Raises:
      ModuleError: the module is not an own module, or takes unnormalized features of the base and these are normalized.
    """
    description = require_description(resolved)
    if normalized and not description.normalizes:
        raise ModuleError(
            f"module {resolved.handle}: its head takes features as its base gives them, but the embeddings are scaled "
            "to length 1 (--normalize_embeddings); train a head on these outputs, or label the images again"
        )
    return read_artifact(_path(artifact, _spec(description, artifact, precision, quantization), cache_dir))


def _spec(
    description: Description, artifact: Artifact, precision: str, quantization: Quantization | None
) -> ModelSpec:
    return dataclasses.replace(
        artifact.spec,
        engine=LINEAR,
        logits_tensor=LOGITS,
        fallback=None,
        precision=precision,
        quantization=quantization,
        batch=None,
        features_of=description.features_of or artifact.spec.features_of,
    )


def require_description(resolved: ResolvedModule) -> Description:
    """The description of an own module.

    Raises:
      ModuleError: the module is not an own module.
    """
    description = read_description(resolved.path)
    if description is None:
        raise ModuleError(
            f"module {resolved.handle} was not written by `beamlabel train`, so its head cannot run alone; train one "
            "on these outputs, or label the images again without the command relabel"
        )
    return description


def _path(artifact: Artifact, spec: ModelSpec, cache_dir: str | os.PathLike[str]) -> Path:
    key = {"head_version": _VERSION, "artifact": artifact.sha256, "spec": spec.to_json()}
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    return Path(cache_dir).expanduser().absolute() / f"head-{digest[:32]}.beamlabel"


def _check_signature(resolved: ResolvedModule, spec: ModelSpec, payload: bytes, head: Head) -> None:
    """Compares the head with the signature on features like a network's: many small, some large, none negative."""
    tf = tensorflow()
    random = np.random.default_rng(_SEED)
    features = np.abs(random.standard_normal((_PROBES, spec.embedding_dim or 0))).astype(np.float32)
    features *= random.random(features.shape) < 0.5
    loaded = CheckedSavedModel(resolved).load(None)
    signature = loaded.signatures.get(HEAD)
    if signature is None:
        raise ModuleError(
            f"it has no signature {HEAD!r}; it is damaged, or `beamlabel train` did not write it"
        )
    expected = signature(features=tf.constant(features))[LOGITS_KEY].numpy()
    logits, _ = open_payload(spec, memoryview(payload)).run(features)
    assert logits is not None
    # Both sums have rounding errors relative to their terms, which cancel in a head trained on standardized features.
    check_equal(
        LOGITS,
        expected,
        logits,
        tolerance=_TOLERANCE,
        tie=2 * _TOLERANCE,
        least_scale=head.magnitude(features),
        cause="the engine linear",
    )


def _check_whole(artifact: Artifact, spec: ModelSpec, payload: bytes, head: Head) -> None:
    """Compares the head on the module's features with the module's logits, for some images."""
    engine = open_engine(artifact.path, artifact.sha256)
    logits, features = engine(probe_batch(artifact.spec.height, artifact.spec.width))
    if logits is None or features is None:
        raise ModuleError("it lacks logits or features, so it has no head")
    found, _ = open_payload(spec, memoryview(payload)).run(features)
    assert found is not None
    least_scale = ROUNDING * head.magnitude(features)
    check_equal(LOGITS, logits, found, least_scale=least_scale, cause="the head alone")
