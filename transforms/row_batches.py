"""Packs many rows into one element of the pipeline: one element per row would cost more than all other Python work.

Nothing here depends on the content of the rows, which ``records`` defines.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

BLOCK_ROWS = 128
"""Maximum number of references in a block."""

_BATCH_BYTES = 32 << 20

EMBEDDINGS = "embeddings"
"""The format of an input with such rows, see ``InputFile``."""


@dataclass(frozen=True, eq=False)
class EmbeddedRows:
    """Rows whose features earlier runs computed, so that only a module's head has to run.

    Attributes:
      unit_id: the work unit of the rows.
      places: int64[N], the place of each row in the unit, see ``ImageRef.row``.
      batch: an Arrow record batch of N rows: the reference's columns for the new row (``uri``, ``ref_id``, ``image_id``
        and the kept columns), ``embedding``, and the columns that describe the image (``width`` to ``content_hash``),
        which come from the earlier row.
    """

    unit_id: str
    places: np.ndarray
    batch: Any = field(repr=False)


@dataclass(frozen=True, eq=False)
class LabeledRows:
    """The results of a module's head for ``EmbeddedRows``.

    Attributes:
      unit_id, places: those of the ``EmbeddedRows`` with a prediction; the other rows are failures.
      batch: an Arrow record batch of N rows: the columns of the ``EmbeddedRows``, and those of the classes: ``label``
        and ``labels`` if the classes have names, ``score``, ``class_ids`` and ``scores``. The sink adds the columns
        that are the same in every row.
      computed_by: see ``Prediction``.
    """

    unit_id: str
    places: np.ndarray
    batch: Any = field(repr=False)
    computed_by: str = ""


def places_in_batch(batch_size: int, pixel_bytes: int) -> int:
    """How many places of a batch an image takes: more than one if ``batch_size`` images exceed 32 MiB.

    Args:
      batch_size: places in a batch.
      pixel_bytes: bytes of the image's pixels.
    """
    return min(max(batch_size * pixel_bytes // _BATCH_BYTES, 1), batch_size)


def images_in_batch(batch_size: int, pixel_bytes: int) -> int:
    """How many images of one size make a batch, see ``places_in_batch``."""
    return batch_size // places_in_batch(batch_size, pixel_bytes)


class Block(list[Any]):
    """Elements of one step of the job that travel as one: a list of the elements that the step would emit one by one.

    Args:
      elements: at least one.
      nbytes: approximate bytes of their pixels or other large data; small data is not counted.
    """

    def __init__(self, elements: Iterable[Any] = (), nbytes: int = 0) -> None:
        super().__init__(elements)
        self.nbytes = nbytes


@dataclass(frozen=True, eq=False)
class PredictionBlock:
    """A module's results for N images, as arrays: the ``Prediction``s of a batch in one.

    Attributes:
      refs, infos: the ``ImageRef`` and ``ImageInfo`` of each image.
      class_ids, scores: int32[N, k] and float32[N, k]; None without logits.
      labels: object[N, k], texts; None if the classes have no names.
      embeddings: float32[N, D]; None without features.
      computed_by: see ``Prediction``.
      pixels: the pixels of each image, if a report needs them; else None.
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
        """Bytes of the arrays."""
        arrays = (self.class_ids, self.scores, self.embeddings, *(self.pixels or ()))
        return sum(array.nbytes for array in arrays if array is not None)

    def take(self, places: Sequence[int]) -> PredictionBlock:
        """The results of some of the images, copied; pixels are not copied."""

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
