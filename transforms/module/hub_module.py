"""A loaded and analyzed module, the input of the compilation steps."""

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
    """A loaded and analyzed module.

    Attributes:
      resolved: the module's files.
      kind: ``tf1_hub``, ``tf2_saved_model``, ``keras_saved_model`` or ``keras_file``.
      height, width: size of its input in pixels.
      input_range: the input values for black and white.
      logits, features: the chosen outputs; None if it has none.
      num_classes, embedding_dim: sizes of the outputs.
      signatures: all its signatures, by name.
      function: maps float32[N, height, width, 3] in ``input_range`` to (float32[N, num_classes] or None,
        float32[N, embedding_dim] or None), TensorFlow tensors, in one pass over the network. Images are cut into
        batches of ``batch`` and padded, and transposed for ``channels_first``; N must be known then, which it always is
        except in the trace of a graph.
      batch: the only batch size that it takes; None: any.
      channels_first: whether it takes [N, 3, height, width].
      description: an own module's description, as far as it applies to the outputs; None for other modules.
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
