"""The network that a head is trained on, as described by the outputs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from beamlabel.pipeline.current.outputs import Output
from beamlabel.pipeline.errors import UsageError
from beamlabel.transforms.rows import metadata_keys


@dataclass(frozen=True)
class BaseOutput:
    """Description, in the outputs, of the module whose features they hold.

    Attributes:
      fingerprint, handle: the module that wrote the newest output; for an own module, that module itself.
      features_of: the network output of the features, see ``ModelSpec.features_of``; empty for outputs of versions that
        did not store it.
      features_id: see ``output_spec.features_of``; may be empty likewise.
      embedding_dim: number of values in an embedding.
      normalized: whether embeddings have L2 length 1.
      preprocessing: everything besides the module that decides the values, as in the metadata.
      options: options of the newest run, as in its manifest.
    """

    fingerprint: str
    handle: str
    features_of: str
    features_id: str
    embedding_dim: int
    normalized: bool
    preprocessing: dict[str, Any]
    options: dict[str, Any]


def base_of(outputs: Sequence[Output]) -> BaseOutput:
    """The common base of all outputs.

    Args:
      outputs: the newest last.

    Raises:
      UsageError: an output has no embeddings, or two have embeddings of different bases.
    """
    for output in outputs:
        if metadata_keys.EMBEDDING_DIM not in output.manifest["metadata"]:
            raise UsageError(
                f"{output.directory} has no embeddings: label again without --no_embeddings, with a module that has "
                "features"
            )
    newest = outputs[-1]
    for output in outputs:
        difference = _difference(output.manifest, newest.manifest)
        if difference:
            raise UsageError(
                f"{output.directory} and {newest.directory} have embeddings of different bases ({difference}): name "
                "outputs of one base only"
            )
    metadata = newest.manifest["metadata"]
    return BaseOutput(
        fingerprint=metadata[metadata_keys.MODULE_FINGERPRINT],
        handle=metadata[metadata_keys.MODULE_HANDLE],
        features_of=str((newest.manifest.get("module") or {}).get("features_of") or ""),
        features_id=metadata.get(metadata_keys.FEATURES_ID, ""),
        embedding_dim=int(metadata[metadata_keys.EMBEDDING_DIM]),
        normalized=metadata.get(metadata_keys.EMBEDDING_NORMALIZED) == "true",
        preprocessing=json.loads(metadata[metadata_keys.PREPROCESSING]),
        options=newest.manifest["options"],
    )


def _difference(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """The first difference between the embeddings of two manifests; empty if they are comparable."""
    mine, theirs = one["metadata"], other["metadata"]
    if metadata_keys.FEATURES_ID in mine and metadata_keys.FEATURES_ID in theirs:
        if mine[metadata_keys.FEATURES_ID] == theirs[metadata_keys.FEATURES_ID]:
            return ""
    elif _facts(one) == _facts(other):
        return ""
    for name, left in _facts(one).items():
        if left != _facts(other)[name]:
            return f"{name}: {left} and {_facts(other)[name]}"
    return "another output of the module"


def _facts(manifest: Mapping[str, Any]) -> dict[str, Any]:
    metadata = manifest["metadata"]
    preprocessing = json.loads(metadata[metadata_keys.PREPROCESSING])
    preprocessing.pop("scores", None)
    return {
        "module": metadata[metadata_keys.MODULE_FINGERPRINT],
        "embedding_dim": metadata.get(metadata_keys.EMBEDDING_DIM),
        "features_output": manifest["options"].get("features_output"),
        **preprocessing,
    }
