"""References with features in earlier rows → these rows, so that nothing is fetched and only a head runs.

An earlier row is used only if it is certain: its file has not changed, it belongs to the image by identity and
content, and its features are numbers. Otherwise the image is fetched like any other; an unreadable file fails
nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from beamlabel.transforms.inference.relabel import feature_matrix
from beamlabel.transforms.inputs.embedding_rows import EMBEDDING
from beamlabel.transforms.inputs.selection import identity_of
from beamlabel.transforms.records import EmbeddedRows, ImageRef
from beamlabel.transforms.rows.feature_places import FeaturePlace, image_columns
from beamlabel.transforms.rows.record_batch import reference_columns
from beamlabel.transforms.secrets.logs import get_logger
from beamlabel.transforms.storage.identity import content_bits
from beamlabel.transforms.storage.uris import encodable
from beamlabel.transforms.units.earlier_shards import EarlierShards, RowsRead

# References that wait, to be read in the order of the files: as many as in a large unit. And the bytes of inline
# images among them, which may have to be labeled after all.
_HELD_REFS = 10_000
_HELD_BYTES = 64 << 20

_LOGGER = get_logger(__name__)


class _Held(NamedTuple):
    ref: ImageRef
    features: FeaturePlace
    version: str | None


class FeatureReader:
    """Reads features for the units of a worker's thread; an unreadable file is not tried again.

    Args:
      shards: of the earlier outputs.
      kept_fields: see ``OutputSpec``.
    """

    def __init__(self, shards: EarlierShards, kept_fields: Sequence[tuple[str, pa.DataType]]) -> None:
        self._shards, self._kept_fields = shards, tuple(kept_fields)
        self._unusable: set[int] = set()

    def close(self) -> None:
        """Closes the open files."""
        self._shards.close()

    def read(self, unit_id: str, held: Sequence[_Held]) -> Iterator[EmbeddedRows | ImageRef]:
        """Rows for the references, and the references without a row; in any order."""
        ordered = sorted(held, key=lambda one: one.features[:2])
        numbers = np.array([one.features.shard for one in ordered])
        ends = np.append(np.flatnonzero(np.diff(numbers)) + 1, len(ordered))
        for start, end in zip((0, *ends[:-1]), ends, strict=True):
            yield from self._of_shard(unit_id, ordered[start:end])

    def _of_shard(self, unit_id: str, held: list[_Held]) -> Iterator[EmbeddedRows | ImageRef]:
        """Like ``read``, for one file, in the order of its rows."""
        rows = np.array([one.features.row for one in held], np.int64)
        done = 0
        for read in self._rows(held[0].features.shard, np.unique(rows)):
            end = int(np.searchsorted(rows, read.numbers[-1], side="right"))
            yield from self._rows_of(unit_id, held[done:end], rows[done:end], read)
            done = end
        yield from (one.ref for one in held[done:])

    def _rows(self, shard: int, numbers: np.ndarray) -> Iterator[RowsRead]:
        """The rows of a file; stops at the first error."""
        if shard in self._unusable:
            return
        try:
            yield from self._shards.rows(shard, numbers)
        except (OSError, ValueError, ImportError, pa.ArrowException) as error:
            self._unusable.add(shard)
            _LOGGER.warning(
                "%s: cannot use its features, so its images are fetched: %s: %s",
                self._shards.path(shard), type(error).__name__, error,
            )  # fmt: skip

    def _rows_of(
        self, unit_id: str, held: list[_Held], rows: np.ndarray, read: RowsRead
    ) -> Iterator[EmbeddedRows | ImageRef]:
        batch = read.batch.take(pa.array(np.searchsorted(read.numbers, rows)))
        _, is_right = feature_matrix(batch.column(EMBEDDING), self._shards.dimension())
        is_right &= _are_of(batch, held)
        yield from (one.ref for one, right in zip(held, is_right, strict=True) if not right)
        if not is_right.all():
            batch = batch.filter(pa.array(is_right))
            held = [one for one, right in zip(held, is_right, strict=True) if right]
        if not held:
            return
        refs = [one.ref for one in held]
        columns = reference_columns(refs, self._kept_fields)
        columns |= {name: batch.column(name) for name in ("image_id", EMBEDDING, *image_columns().names)}
        columns["source_version"] = _versions(batch.column("source_version"), held)
        yield EmbeddedRows(
            unit_id,
            np.array([ref.row for ref in refs], np.int64),
            pa.record_batch(list(columns.values()), names=list(columns)),
        )


def _are_of(batch: pa.RecordBatch, held: Sequence[_Held]) -> np.ndarray:
    """Whether each row is complete and belongs to its image: bool[N]."""
    ids, contents = batch.column("image_id").to_pylist(), batch.column("content_hash").to_pylist()
    is_of = np.array(
        [
            found == identity_of(one.ref) and content_bits(content) == one.features.content
            for one, found, content in zip(held, ids, contents, strict=True)
        ],
        bool,
    )
    for field in image_columns():
        if not field.nullable:
            is_of &= batch.column(field.name).is_valid().to_numpy(zero_copy_only=False)
    return is_of


def _versions(there: pa.Array, held: Sequence[_Held]) -> pa.Array:
    """For each image, the version under which it is known to be unchanged; else the row's."""
    if all(one.version is None for one in held):
        return there
    earlier = there.to_pylist()
    return pa.array(
        [
            before if one.version is None else encodable(one.version)
            for one, before in zip(held, earlier, strict=True)
        ],
        pa.string(),
    )


class RelabeledRefs:
    """Gathers the references of one unit that need not be fetched.

    Args:
      reader: of their features.
      unit_id: of the unit.
    """

    def __init__(self, reader: FeatureReader, unit_id: str) -> None:
        self._reader, self._unit_id = reader, unit_id
        self._held: list[_Held] = []
        self._bytes = 0

    def add(
        self, ref: ImageRef, features: FeaturePlace, version: str | None
    ) -> Iterator[EmbeddedRows | ImageRef]:
        """Adds a reference; flushes if the limit is reached."""
        self._held.append(_Held(ref, features, version))
        self._bytes += 0 if ref.data is None else len(ref.data)
        if len(self._held) >= _HELD_REFS or self._bytes >= _HELD_BYTES:
            yield from self.flush()

    def flush(self) -> Iterator[EmbeddedRows | ImageRef]:
        """The rows of all waiting references, and the references that have to be fetched after all."""
        held, self._held, self._bytes = self._held, [], 0
        if held:
            yield from self._reader.read(self._unit_id, held)
