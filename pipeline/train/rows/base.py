"""The network whose features a head is trained on, by what the outputs say of it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from beamlabel.pipeline.current.outputs import Output
from beamlabel.pipeline.errors import UsageError
from beamlabel.transforms.rows import schema


@dataclass(frozen=True)
class BaseOutput:
    """What outputs say of the module whose features they hold.

    Attributes:
      fingerprint, handle: of the module that wrote the newest of them; of an own module its own.
      features_of: which network's output the features are, see ``ModelSpec.features_of``; empty if the outputs were
        written before that was told.
      features_id: see ``output_spec.features_of``; empty likewise.
      embedding_dim: values of an embedding.
      normalized: whether embeddings have L2 length 1.
      preprocessing: all that decides the numbers beside the module, as in the metadata.
      options: of the newest run, as its manifest has them.
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
    """The one base of all outputs.

    Args:
      outputs: the newest last.

    Raises:
      UsageError: one has no embeddings, or two have embeddings of different bases.
    """
    for output in outputs:
        if schema.EMBEDDING_DIM not in output.manifest["metadata"]:
            raise UsageError(
                f"{output.folder} has no embeddings: label again without --no_embeddings, by a module with features"
            )
    newest = outputs[-1]
    for output in outputs:
        difference = _difference(output.manifest, newest.manifest)
        if difference:
            raise UsageError(
                f"{output.folder} and {newest.folder} hold embeddings of different bases ({difference}): name only "
                "outputs of one base"
            )
    metadata = newest.manifest["metadata"]
    return BaseOutput(
        fingerprint=metadata[schema.MODULE_FINGERPRINT],
        handle=metadata[schema.MODULE_HANDLE],
        features_of=str((newest.manifest.get("module") or {}).get("features_of") or ""),
        features_id=metadata.get(schema.FEATURES_ID, ""),
        embedding_dim=int(metadata[schema.EMBEDDING_DIM]),
        normalized=metadata.get(schema.EMBEDDING_NORMALIZED) == "true",
        preprocessing=json.loads(metadata[schema.PREPROCESSING]),
        options=newest.manifest["options"],
    )


def _difference(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """In what the embeddings of two manifests differ; empty if they are comparable."""
    mine, theirs = one["metadata"], other["metadata"]
    if schema.FEATURES_ID in mine and schema.FEATURES_ID in theirs:
        if mine[schema.FEATURES_ID] == theirs[schema.FEATURES_ID]:
            return ""
    elif _facts(one) == _facts(other):
        return ""
    for name, left in _facts(one).items():
        if left != _facts(other)[name]:
            return f"{name}: {left} and {_facts(other)[name]}"
    return "another output of the module"


def _facts(manifest: Mapping[str, Any]) -> dict[str, Any]:
    metadata = manifest["metadata"]
    preprocessing = json.loads(metadata[schema.PREPROCESSING])
    preprocessing.pop("scores", None)
    return {
        "module": metadata[schema.MODULE_FINGERPRINT],
        "embedding_dim": metadata.get(schema.EMBEDDING_DIM),
        "features_output": manifest["options"].get("features_output"),
        **preprocessing,
    }
