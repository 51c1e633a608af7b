"""Whether the features of earlier rows are those that this run would compute: then its head alone labels them anew."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from beamlabel.transforms.output_spec import features_id_of
from beamlabel.transforms.rows import schema

# The output that modules of TF1 have for features, which is taken unless another one is named.
_TF1, _TF1_FEATURES = "tf1_hub", "image_feature_vector:default"


@dataclass(frozen=True)
class WantedFeatures:
    """The features that this run would compute.

    Attributes:
      features_id: see ``schema.FEATURES_ID``.
      features_of: see ``ModelSpec``.
      dimension: of each.
    """

    features_id: str
    features_of: str
    dimension: int

    def are_of(self, metadata: Mapping[str, str], manifest: Mapping[str, Any] | None) -> bool:
        """Whether the embeddings of a data file are these.

        Args:
          metadata: of the file.
          manifest: of its run; None if there is none.
        """
        # Version 1 does not tell which image a row is of.
        if metadata.get(schema.SCHEMA_VERSION) == "1":
            return False
        if metadata.get(schema.EMBEDDING_DIM) != str(self.dimension):
            return False
        told = metadata.get(schema.FEATURES_ID)
        return (self._computed_id(metadata, manifest) if told is None else told) == self.features_id

    def _computed_id(self, metadata: Mapping[str, str], manifest: Mapping[str, Any] | None) -> str | None:
        """``FEATURES_ID`` of a file that does not tell it, by an earlier version; None if it is not sure."""
        fingerprint, _, name = self.features_of.partition(":")
        if metadata.get(schema.MODULE_FINGERPRINT) != fingerprint or manifest is None:
            return None
        if not _names(manifest, name):
            return None
        try:
            preprocessing = json.loads(metadata[schema.PREPROCESSING])
            return features_id_of(preprocessing, self.features_of)
        except (KeyError, ValueError, TypeError):
            return None


def _names(manifest: Mapping[str, Any], name: str) -> bool:
    """Whether the features of a run are for sure the output of this name, ``SIGNATURE:KEY``."""
    told = manifest.get("options", {}).get("features_output")
    if told is None:
        return name == _TF1_FEATURES and manifest.get("module", {}).get("kind") == _TF1
    # A signature alone means its key `default`; of a key alone it is not known which signature has it.
    return bool(told == name or f"{told}:default" == name)
