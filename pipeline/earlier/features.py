"""Tells whether earlier rows have the features that this run would compute, so that its head alone can label them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from beamlabel.transforms.output_spec import features_id_of
from beamlabel.transforms.rows import metadata_keys

# The feature output of TF1 modules, used unless an option names another.
_TF1, _TF1_FEATURES = "tf1_hub", "image_feature_vector:default"


@dataclass(frozen=True)
class WantedFeatures:
    """The features that this run would compute.

    Attributes:
      features_id: see ``metadata_keys.FEATURES_ID``.
      features_of: see ``ModelSpec``.
      dimension: length of each.
    """

    features_id: str
    features_of: str
    dimension: int

    def are_of(self, metadata: Mapping[str, str], manifest: Mapping[str, Any] | None) -> bool:
        """Whether the embeddings of a data file are these features.

        Args:
          metadata: metadata of the file.
          manifest: manifest of its run; None if there is none.
        """
        # Rows of schema version 1 do not identify their image.
        if metadata.get(metadata_keys.SCHEMA_VERSION) == "1":
            return False
        if metadata.get(metadata_keys.EMBEDDING_DIM) != str(self.dimension):
            return False
        told = metadata.get(metadata_keys.FEATURES_ID)
        return (self._computed_id(metadata, manifest) if told is None else told) == self.features_id

    def _computed_id(self, metadata: Mapping[str, str], manifest: Mapping[str, Any] | None) -> str | None:
        """``FEATURES_ID`` of a file of an earlier version, which does not store it; None if uncertain."""
        fingerprint, _, name = self.features_of.partition(":")
        if metadata.get(metadata_keys.MODULE_FINGERPRINT) != fingerprint or manifest is None:
            return None
        if not _names(manifest, name):
            return None
        try:
            preprocessing = json.loads(metadata[metadata_keys.PREPROCESSING])
            return features_id_of(preprocessing, self.features_of)
        except (KeyError, ValueError, TypeError):
            return None


def _names(manifest: Mapping[str, Any], name: str) -> bool:
    """Whether the features of a run are certainly the output with this name, ``SIGNATURE:KEY``."""
    told = manifest.get("options", {}).get("features_output")
    if told is None:
        return name == _TF1_FEATURES and manifest.get("module", {}).get("kind") == _TF1
    # A signature alone means its key `default`; a key alone does not determine the signature.
    return bool(told == name or f"{told}:default" == name)
