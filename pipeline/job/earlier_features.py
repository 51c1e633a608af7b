"""The embeddings in the rows of earlier outputs, with all settings that determine their values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class EarlierOutput:
    """One output whose rows are labeled again.

    Attributes:
      directory: absolute path or URI.
      manifest: its ``_MANIFEST.json``.
    """

    directory: str
    manifest: dict[str, Any]


@dataclass(frozen=True)
class EarlierFeatures:
    """The embeddings of earlier outputs, which share one base and one way of decoding.

    Attributes:
      outputs: the outputs, at least one.
      preprocessing: of the outputs, see ``preprocessing_of``, without ``scores``.
      dimension: of each embedding.
    """

    outputs: tuple[EarlierOutput, ...]
    preprocessing: Mapping[str, Any]
    dimension: int

    def told(self) -> dict[str, Any]:
        """The entry of a manifest about these embeddings."""
        runs = [{"output": one.directory, "run_id": one.manifest["run_id"]} for one in self.outputs]
        return {"outputs": runs}
