"""Many rows in one element of the pipeline: those whose features are known need no element of their own."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

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
