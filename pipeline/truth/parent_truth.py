"""Truth from directories: the class of an image is the name of its directory."""

from __future__ import annotations

from collections.abc import Collection

import pyarrow as pa

from beamlabel.pipeline.truth.image_names import directory_of, parent_of
from beamlabel.pipeline.truth.problem import Examples, Problem
from beamlabel.pipeline.truth.truth import Classes, Truth, values_of


class ParentTruth(Truth):
    """The parent directory of each image.

    Args:
      tops: directories that were labeled as a whole; an image directly inside one has no class directory.
    """

    columns = ("uri", "ref_id")
    by = "parent"

    def __init__(self, tops: Collection[str] = ()) -> None:
        self._tops = frozenset(top.rstrip("/") for top in tops)
        self._without = Examples()

    def of_batch(self, batch: pa.RecordBatch) -> list[Classes | None]:
        """See ``Truth``."""
        uris, ids = (values_of(batch, name) for name in self.columns)
        return [self._of(uri, ref_id) for uri, ref_id in zip(uris, ids, strict=True)]

    def _of(self, uri: str, ref_id: str | None) -> Classes | None:
        name = None if directory_of(uri) in self._tops else parent_of(uri, ref_id)
        if name is None or not name.strip():
            self._without.add(uri)
            return None
        return (name,)

    def problems(self) -> tuple[Problem, ...]:
        """See ``Truth``."""
        return self._without.problem("images without a class directory")
