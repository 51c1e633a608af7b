"""The head of an own module, trained on embeddings: multinomial logistic regression."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from beamlabel.pipeline.train.findings import Epoch
from beamlabel.pipeline.train.options import HeadOptions
from beamlabel.pipeline.train.rows import TrainingRows
from beamlabel.transforms.own_module.head import Head


@dataclass(frozen=True, eq=False)
class FittedHead:
    """A trained head, and what was found out on the way.

    Attributes:
      head: standardization and temperature folded.
      temperature: that its logits were divided by.
      l2: the strength that validation chose: of mean loss + l2/2 · the sum of squares of the weights on
        standardized features.
      history: of the training on the train images with that strength.
      out_of_sample: float32[N, C], the probabilities of each row by a head that has not seen it.
      curve: heads that were trained on fewer train images: how many, and the head.
    """

    head: Head
    temperature: float
    l2: float
    history: tuple[Epoch, ...]
    out_of_sample: np.ndarray
    curve: tuple[tuple[int, Head], ...]


def fit_head(features: np.ndarray, rows: TrainingRows, options: HeadOptions) -> FittedHead:
    """Trains on the train images, chooses on the validation images.

    Args:
      features: float32[N, D], see ``features_of``.
      rows: N of them.
      options: of the training.
    """
    raise NotImplementedError
