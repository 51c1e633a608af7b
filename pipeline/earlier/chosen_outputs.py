"""Which outputs of its module a run took: rows of one module by different outputs are not the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from beamlabel.transforms.rows.schema import FEATURES_ID


@dataclass(frozen=True)
class ChosenOutputs:
    """The outputs of a module that a run took.

    Attributes:
      logits, features: as the options name them; None: the module's own choice.
      features_id: which features these are; None if that is not told, as by earlier versions.
    """

    logits: str | None = None
    features: str | None = None
    features_id: str | None = None

    @classmethod
    def of_run(cls, manifest: Mapping[str, Any]) -> ChosenOutputs:
        """Those of the run of a manifest."""
        options, metadata = manifest.get("options", {}), manifest["metadata"]
        return cls(options.get("logits_output"), options.get("features_output"), metadata.get(FEATURES_ID))

    def agree(self, other: ChosenOutputs, *, classes: bool, embeddings: bool) -> bool:
        """Whether two runs of one module took the same.

        Args:
          other: the other run's.
          classes, embeddings: whether these count.
        """
        if classes and self.logits != other.logits:
            return False
        if not embeddings:
            return True
        if self.features_id is None or other.features_id is None:
            return self.features == other.features
        return self.features_id == other.features_id
