"""What the rows of earlier outputs say of their embeddings: all that decides their numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class EarlierOutput:
    """One output whose rows are labeled anew.

    Attributes:
      folder: absolute path or URI.
      manifest: its ``_MANIFEST.json``.
    """

    folder: str
    manifest: dict[str, Any]


@dataclass(frozen=True)
class EarlierFeatures:
    """The embeddings of earlier outputs, which are of one base and one way of decoding.

    Attributes:
      outputs: which ones, at least one.
      preprocessing: theirs, see ``preprocessing_of``, without ``scores``.
      dimension: of each embedding.
    """

    outputs: tuple[EarlierOutput, ...]
    preprocessing: Mapping[str, Any]
    dimension: int

    def told(self) -> dict[str, Any]:
        """What a manifest tells of them."""
        runs = [{"output": one.folder, "run_id": one.manifest["run_id"]} for one in self.outputs]
        return {"outputs": runs}
