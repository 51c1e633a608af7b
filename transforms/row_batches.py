"""Many rows in one element of the pipeline: an element each would cost more than all else that Python does for it.

Nothing here knows what the rows are made of; ``records`` does.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

BLOCK_ROWS = 128
"""References in a block, at the most."""

_BATCH_BYTES = 32 << 20

EMBEDDINGS = "embeddings"
"""The format of an input whose rows are such, see ``InputFile``."""


@dataclass(frozen=True, eq=False)
class EmbeddedRows:
    """Rows whose features earlier runs computed, so that a module's head is all that has to run.

    Attributes:
      unit_id: the work unit they belong to.
      places: int64[N], the place of each row in the unit, see ``ImageRef.row``.
      batch: an Arrow record batch of N rows: the reference's columns as the new row has them (``uri``, ``ref_id``,
        ``image_id`` and the kept columns), ``embedding``, and those that tell of the image (``width`` to
        ``content_hash``), which are the earlier row's.
    """

    unit_id: str
    places: np.ndarray
    batch: Any = field(repr=False)


@dataclass(frozen=True, eq=False)
class LabeledRows:
    """What a module's head says of ``EmbeddedRows``.

    Attributes:
      unit_id, places: those of the ``EmbeddedRows`` that got a prediction; the others are failures.
      batch: an Arrow record batch of N rows: the columns of the ``EmbeddedRows``, and those of the classes: ``label``
        and ``labels`` if the classes have names, ``score``, ``class_ids`` and ``scores``. The sink adds those that are
        the same in every row.
      computed_by: see ``Prediction``.
    """

    unit_id: str
    places: np.ndarray
    batch: Any = field(repr=False)
    computed_by: str = ""


def places_in_batch(batch_size: int, pixel_bytes: int) -> int:
    """How many of the places of a batch an image takes: more than one if ``batch_size`` of them exceed 32 MiB.

    Args:
      batch_size: places in a batch.
      pixel_bytes: of the image.
    """
    return min(max(batch_size * pixel_bytes // _BATCH_BYTES, 1), batch_size)


def images_in_batch(batch_size: int, pixel_bytes: int) -> int:
    """How many images of one size make a batch, see ``places_in_batch``."""
    return batch_size // places_in_batch(batch_size, pixel_bytes)


class Block(list[Any]):
    """Elements of one step of the job that travel as one: a list, which holds what the step would emit one by one.

    Args:
      elements: at least one.
      nbytes: of the pixels or other data that they hold, about; what is small beside them is not counted.
    """

    def __init__(self, elements: Iterable[Any] = (), nbytes: int = 0) -> None:
        super().__init__(elements)
        self.nbytes = nbytes


@dataclass(frozen=True, eq=False)
class PredictionBlock:
    """What a module says of N images, as arrays: the ``Prediction``s of a batch in one.

    Attributes:
      refs, infos: of each image its ``ImageRef`` and ``ImageInfo``.
      class_ids, scores: int32[N, k] and float32[N, k]; None without logits.
      labels: object[N, k], texts; None where the classes have no names.
      embeddings: float32[N, D]; None without features.
      computed_by: see ``Prediction``.
      pixels: of each image, where a report wants them; else None.
    """

    refs: Sequence[Any]
    infos: Sequence[Any]
    class_ids: np.ndarray | None = None
    scores: np.ndarray | None = None
    labels: np.ndarray | None = None
    embeddings: np.ndarray | None = None
    computed_by: str = ""
    pixels: Sequence[np.ndarray] | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.refs)

    @property
    def nbytes(self) -> int:
        """Of the arrays."""
        arrays = (self.class_ids, self.scores, self.embeddings, *(self.pixels or ()))
        return sum(array.nbytes for array in arrays if array is not None)

    def take(self, places: Sequence[int]) -> PredictionBlock:
        """Those of some of the images, copied; pixels are not."""

        def rows(array: np.ndarray | None) -> np.ndarray | None:
            return None if array is None else array[list(places)]

        return PredictionBlock(
            [self.refs[place] for place in places],
            [self.infos[place] for place in places],
            rows(self.class_ids),
            rows(self.scores),
            rows(self.labels),
            rows(self.embeddings),
            self.computed_by,
            None if self.pixels is None else [self.pixels[place] for place in places],
        )
