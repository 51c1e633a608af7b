"""A module that is loaded and understood: what the steps that compile it are given."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from beamlabel.transforms.hub.resolve import ResolvedModule
from beamlabel.transforms.module.outputs import Output, Signature
from beamlabel.transforms.own_module.description import Description

Function = Callable[[Any], "tuple[Any | None, Any | None]"]


@dataclass(frozen=True, eq=False)
class HubModule:
    """A module that is loaded and understood.

    Attributes:
      resolved: where its files are.
      kind: ``tf1_hub``, ``tf2_saved_model``, ``keras_saved_model`` or ``keras_file``.
      height, width: pixels of its input.
      input_range: the values that it expects for black and white.
      logits, features: which outputs they are; None where it gives none.
      num_classes, embedding_dim: their sizes.
      signatures: all that it has, by name.
      function: float32[N, height, width, 3] in ``input_range`` → (float32[N, num_classes] or None,
        float32[N, embedding_dim] or None), TensorFlow tensors, in one pass over the network. Images are cut into
        batches of ``batch`` and padded, and transposed for ``channels_first``; N has to be known then, as it is
        but in the trace of a graph.
      batch: the one number of images that it takes at a time; None: any.
      channels_first: whether it takes [N, 3, height, width].
      description: what an own module says of itself, as far as it is true of the outputs; None of any other.
    """

    resolved: ResolvedModule
    kind: str
    height: int
    width: int
    input_range: tuple[float, float]
    logits: Output | None
    features: Output | None
    num_classes: int | None
    embedding_dim: int | None
    signatures: Mapping[str, Signature] = field(repr=False)
    function: Function = field(repr=False)
    batch: int | None = None
    channels_first: bool = False
    description: Description | None = None

    @property
    def features_of(self) -> str:
        """See ``ModelSpec``."""
        if self.features is not None and self.description is not None and self.description.features_of:
            return self.description.features_of
        return "" if self.features is None else f"{self.resolved.fingerprint}:{self.features.name}"
