"""The module outputs that a run used: rows of one module made from different outputs are not the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from beamlabel.transforms.rows.metadata_keys import FEATURES_ID


@dataclass(frozen=True)
class ChosenOutputs:
    """The module outputs that a run used.

    Attributes:
      logits, features: names as in the options; None: the module's default.
      features_id: identifies the features; None if unknown, as in results of earlier versions.
    """

    logits: str | None = None
    features: str | None = None
    features_id: str | None = None

    @classmethod
    def of_run(cls, manifest: Mapping[str, Any]) -> ChosenOutputs:
        """The outputs that the run of a manifest used."""
        options, metadata = manifest.get("options", {}), manifest["metadata"]
        return cls(options.get("logits_output"), options.get("features_output"), metadata.get(FEATURES_ID))

    def agree(self, other: ChosenOutputs, *, classes: bool, embeddings: bool) -> bool:
        """Whether two runs of one module used the same outputs.

        Args:
          other: outputs of the other run.
          classes, embeddings: whether to compare these.
        """
        if classes and self.logits != other.logits:
            return False
        if not embeddings:
            return True
        if self.features_id is None or other.features_id is None:
            return self.features == other.features
        return self.features_id == other.features_id
