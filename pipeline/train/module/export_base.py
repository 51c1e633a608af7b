"""A network that gets a head."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from beamlabel.transforms.inference.artifact import ModuleError
from beamlabel.transforms.module.hub_module import HubModule


@dataclass(frozen=True, eq=False)
class ExportBase:
    """A network that gets a head.

    Attributes:
      features: float32[N, height, width, 3] in ``input_range`` → float32[N, embedding_dim], TensorFlow tensors, for
        inference. Variables that it reads remain variables.
      height, width: size of the images, in pixels.
      input_range: its values for black and white.
      embedding_dim: number of features.
      batch: the only N that it accepts; None: any.
    """

    features: Callable[[Any], Any]
    height: int
    width: int
    input_range: tuple[float, float]
    embedding_dim: int
    batch: int | None = None

    @classmethod
    def of_module(cls, module: HubModule) -> ExportBase:
        """The features of a module.

        Raises:
          ModuleError: the module has none.
        """
        if module.embedding_dim is None:
            raise ModuleError(
                f"module {module.resolved.handle}: it has no features for a head; name an output with --features_output"
            )
        return cls(
            features=lambda images: module.function(images)[1],
            height=module.height,
            width=module.width,
            input_range=module.input_range,
            embedding_dim=module.embedding_dim,
            batch=module.batch,
        )
