"""Rows of a Parquet file, by range, as a stream: never a whole file, nor a row group of images.

The columns that decide which rows are wanted can be read first: they are small beside the images (``RowReader.keys``).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from beamlabel.transforms.inputs.image_columns import is_image_struct, value_type
from beamlabel.transforms.inputs.kept_columns import KeptReader
from beamlabel.transforms.inputs.parquet.check_footer import check_chunks
from beamlabel.transforms.inputs.parquet.page_guard import LargePageError
from beamlabel.transforms.inputs.parquet.sparse_pages import SparseFile, is_leaf_of
from beamlabel.transforms.inputs.parquet_source import ParquetColumns, open_sparse_parquet
from beamlabel.transforms.inputs.parquet_values import Problem, kept_problems, to_python
from beamlabel.transforms.inputs.uri_length import MAX_URI_BYTES, too_long, too_many_bytes
from beamlabel.transforms.records import Reason
from beamlabel.transforms.rows.types import is_list

# Rows decoded at a time; few for images, which are held encoded.
_URI_BATCH_ROWS = 4096
_IMAGE_BATCH_ROWS = 16
_LIST_BATCH_ROWS = 2


class Place(NamedTuple):
    """A reference's place in a file: its row, from 0, and its place in the row's list; None if it is not a list."""

    row: int
    element: int | None = None


@dataclass(frozen=True)
class ParquetRow:
    """One reference.

    Attributes:
      place: in the file.
      uri: the URI, or the inline image's path; None if there is neither.
      data: the inline image; None if there is none, or if only keys are read.
      kept: the kept columns' values, each an Arrow array of length one.
      not_text: the printable form of a URI that is not UTF-8.
      problem: why the reference has no other fields.
    """

    place: Place
    uri: str | None
    data: bytes | None = None
    kept: tuple[pa.Array, ...] = ()
    not_text: str | None = None
    problem: Problem | None = None


class Unreadable(NamedTuple):
    """Unreadable rows of a row group: the row after them, and the reason."""

    stop: int
    problem: Problem


class Empty(NamedTuple):
    """A row whose list holds no reference."""

    row: int


class RowRange(NamedTuple):
    """The part of a row group that lies in a range: its number, its first row in the file, and the range."""

    group: int
    first: int
    start: int
    stop: int


def row_ranges(metadata: pq.FileMetaData, start: int, stop: int) -> Iterator[RowRange]:
    """The row groups that overlap the range from ``start`` to ``stop``."""
    first = 0
    for group in range(metadata.num_row_groups):
        after = first + metadata.row_group(group).num_rows
        if max(first, start) < min(after, stop):
            yield RowRange(group, first, max(first, start), min(after, stop))
        first = after


class RowReader:
    """The references of an open file.

    Args:
      file: the open file.
      columns: the columns to read.
      path: of the file, for messages.
      sparse: the file under ``file``, if pages may be left out.
    """

    def __init__(
        self, file: pq.ParquetFile, columns: ParquetColumns, path: str, sparse: SparseFile | None = None
    ) -> None:
        self._file, self._columns, self._path, self._sparse = file, columns, path, sparse
        self._kept = KeptReader(file.schema_arrow, columns.kept, path)
        there = set(file.schema_arrow.names)
        uri = [] if columns.uri is None else [columns.uri]
        image, self._key_names = _leaves(file, columns.image)
        if self._key_names is not None:
            self._key_names = [*uri, *self._key_names]
        kept = [column.source for column in columns.kept if column.source in there]
        self._names = list(dict.fromkeys((*uri, *image, *kept)))
        leaves = [file.schema.column(place).path for place in range(len(file.schema))]
        # If the column of images is kept too, it is read for all rows.
        alone = image and columns.image not in kept and leaves.count(image[0]) == 1
        self._image_leaf = leaves.index(image[0]) if alone else None
        others = [*uri, *image[1:], *kept]
        self._other_leaves = [
            place
            for place, leaf in enumerate(leaves)
            if is_leaf_of(leaf, others) and leaves.count(leaf) == 1 and place != self._image_leaf
        ]

    @property
    def leaves(self) -> list[int]:
        """The leaf columns to read."""
        paths = [self._file.schema.column(place).path for place in range(len(self._file.schema))]
        return [place for place, path in enumerate(paths) if is_leaf_of(path, self._names)]

    @property
    def has_small_keys(self) -> bool:
        """Whether ``keys`` reads less than ``rows``, that is, no inline images."""
        return self._columns.image is not None and self._key_names is not None

    def keys(self, rows: RowRange) -> Iterator[ParquetRow | Empty]:
        """The references without inline images and kept columns.

        Whether a row has an image is unknown here: only the URI is read, and a URI of None says nothing about an image.
        """
        if self._key_names is None:
            for one in self.rows(rows):
                yield one if isinstance(one, Empty) else dataclasses.replace(one, data=None, kept=())
        elif not self._key_names:
            yield from (ParquetRow(Place(row), None) for row in range(rows.start, rows.stop))
        else:
            for row, batch in self._batches(rows, self._key_names, _URI_BATCH_ROWS):
                if isinstance(batch, Unreadable):
                    yield from _unreadable(row, batch)
                    continue
                for _, one in references(batch, range(row, row + batch.num_rows), self._columns):
                    yield one

    def rows(self, rows: RowRange, wanted: Collection[Place] | None = None) -> Iterator[ParquetRow | Empty]:
        """The complete references.

        Args:
          rows: their range.
          wanted: the only references to read; None: all. Nothing after the last of them is read.

        Raises:
          ValueError: a kept value does not fit its column of the output; see ``KeptReader``.
        """
        if wanted is not None:
            if not wanted:
                return
            numbers: Collection[int] = {place.row for place in wanted}
            rows = rows._replace(start=min(numbers), stop=max(numbers) + 1)
        else:
            numbers = range(rows.start, rows.stop)
        self._leave_out_pages(rows, numbers, few=wanted is not None)
        try:
            for row, batch in self._batches(rows, self._names, self._batch_rows):
                if isinstance(batch, Unreadable):
                    yield from _unreadable(row, batch, wanted)
                else:
                    yield from self._rows(batch, row, wanted)
        finally:
            if self._sparse is not None:
                self._sparse.show_all()

    def _leave_out_pages(self, rows: RowRange, numbers: Collection[int], *, few: bool) -> None:
        group = self._file.metadata.row_group(rows.group)
        whole = rows.start == rows.first and rows.stop == rows.first + group.num_rows
        if self._sparse is None or (whole and not few):
            return
        within = [row - rows.first for row in numbers]
        image = self._image_leaf
        # Without an index, pages are found one by one; only images are worth that.
        if image is not None and (group.column(image).has_offset_index or few or rows.start > rows.first):
            self._sparse.show_rows(self._file, rows.group, image, within)
        for leaf in self._other_leaves:
            if group.column(leaf).has_offset_index:
                self._sparse.show_rows(self._file, rows.group, leaf, within)

    @property
    def _batch_rows(self) -> int:
        if self._columns.image is None:
            return _URI_BATCH_ROWS
        return _LIST_BATCH_ROWS if self._columns.lists else _IMAGE_BATCH_ROWS

    def _rows(
        self, batch: pa.RecordBatch, row: int, wanted: Collection[Place] | None
    ) -> Iterator[ParquetRow | Empty]:
        return rows_of(batch, range(row, row + batch.num_rows), self._columns, self._kept, wanted)

    def batches(self, rows: RowRange) -> Iterator[tuple[int, pa.RecordBatch | Unreadable]]:
        """The columns of all rows of a range, in batches, each with the number of its first row.

        A last batch may stand for rows that cannot be read.
        """
        return self._batches(rows, self._names, self._batch_rows)

    def _batches(
        self, rows: RowRange, names: list[str], batch_rows: int
    ) -> Iterator[tuple[int, pa.RecordBatch | Unreadable]]:
        """Batches of these columns, each with the number of its first row."""
        row = rows.first
        batches = self._file.iter_batches(batch_rows, row_groups=[rows.group], columns=names)
        while row < rows.stop:
            try:
                batch = next(batches, None)
                if batch is None:
                    raise ValueError(f"row group {rows.group} ends before row {row}")
            except (pa.ArrowException, OSError, ValueError) as error:
                if self._sparse is None or self._sparse.error is not None:
                    raise
                yield max(row, rows.start), Unreadable(rows.stop, self._problem(error))
                return
            first, stop = max(rows.start - row, 0), min(rows.stop - row, batch.num_rows)
            if first < stop:
                yield row + first, batch.slice(first, stop - first)
            row += batch.num_rows

    def _problem(self, error: Exception) -> Problem:
        if not isinstance(error, LargePageError):
            return (
                Reason.CORRUPT,
                f"the Parquet file is unreadable from this row on: {' '.join(str(error).split())[:200]}",
            )
        is_uri = self._columns.uri is not None and is_leaf_of(error.leaf, [self._columns.uri])
        long = is_uri and error.size > error.values * MAX_URI_BYTES
        return Reason.URI_TOO_LONG if long else Reason.TOO_MANY_BYTES, str(error)


def _unreadable(row: int, found: Unreadable, wanted: Collection[Place] | None = None) -> Iterator[ParquetRow]:
    """The references of unreadable rows from ``row`` on; the number of values of a list is unknown."""
    places: Iterable[Place] = (Place(one) for one in range(row, found.stop))
    if wanted is not None:
        places = sorted(place for place in wanted if row <= place.row < found.stop)
    for place in places:
        yield ParquetRow(place, None, problem=found.problem)


def check_parquet(path: str, columns: ParquetColumns) -> None:
    """Refuses a file with an impossible footer.

    Args:
      path: of the file.
      columns: the columns to read.

    Raises:
      ValueError: describes the damage.
      OSError: it cannot be read.
    """
    with open_sparse_parquet(path, few=True) as (file, sparse):
        try:
            check_chunks(file, RowReader(file, columns, path).leaves, sparse.size)
        except ValueError as error:
            raise ValueError(f"{path}: damaged Parquet: {error}") from error


def rows_of(
    batch: pa.RecordBatch,
    numbers: Sequence[int],
    columns: ParquetColumns,
    reader: KeptReader,
    wanted: Collection[Place] | None = None,
) -> Iterator[ParquetRow | Empty]:
    """The references of a batch with their kept values.

    Args:
      batch: has the columns to read.
      numbers: of its rows in their file.
      columns: the columns to read.
      reader: casts the kept columns.
      wanted: the only references; None: all, and the rows without one.

    Raises:
      ValueError: a kept value does not fit; see ``KeptReader``.
    """
    kept: list[pa.Array] | None = None
    problems: dict[int, Problem] = {}
    for place, one in references(batch, numbers, columns):
        if isinstance(one, Empty):
            if wanted is None:
                yield one
        elif wanted is None or one.place in wanted:
            if kept is None:
                kept = list(reader.read(batch, numbers[0]))
                problems = kept_problems([column.name for column in columns.kept], kept) if kept else {}
            if (problem := one.problem or problems.get(place)) is not None:
                yield dataclasses.replace(one, data=None, problem=problem)
                continue
            values = tuple(column.slice(place, 1) for column in kept)
            yield ParquetRow(one.place, one.uri, one.data, values, one.not_text)


def references(
    batch: pa.RecordBatch, numbers: Sequence[int], columns: ParquetColumns
) -> Iterator[tuple[int, ParquetRow | Empty]]:
    """The references of a batch without kept values, each with its row's place in the batch; see ``rows_of``."""
    uri, image = (_column(batch, name) for name in (columns.uri, columns.image))
    nothing = [None] * batch.num_rows
    is_list_column = any(column is not None and is_list(column.type) for column in (uri, image))
    uris = nothing if uri is None else to_python(uri)
    images = nothing if image is None else to_python(image)
    for place, row in enumerate(numbers):
        if not is_list_column:
            yield place, _reference(Place(row), uris[place], images[place])
            continue
        values = uris[place] if image is None else images[place]
        if not values:
            yield place, Empty(row)
        for element, value in enumerate(values or ()):
            at = Place(row, element)
            yield place, _reference(at, *((value, None) if image is None else (None, value)))


def _column(batch: pa.RecordBatch, name: str | None) -> pa.Array | None:
    """A column; None if it is absent, as inline bytes are among keys."""
    return None if name is None or name not in batch.schema.names else batch.column(name)


def _leaves(file: pq.ParquetFile, column: str | None) -> tuple[list[str], list[str] | None]:
    """The leaves of an image column to read, and those that give rows and URIs without the bytes.

    The leaf of the bytes comes first. The second list is None if no such leaves exist.
    """
    if column is None:
        return [], []
    kind = file.schema_arrow.field(column).type
    is_struct = is_image_struct(value_type(kind))
    data = _leaf(file, column, "bytes") if is_struct else None
    path = _leaf(file, column, "path") if is_struct else None
    # Only these fields of a struct: others may be large.
    image = [column] if data is None else [data, *([] if path is None else [path])]
    if is_struct and data is None:
        return image, None
    if is_list(kind) and path is None:
        return image, None  # the lengths of the lists lie among the bytes
    return image, [] if path is None else [path]


def _leaf(file: pq.ParquetFile, column: str, name: str) -> str | None:
    """The only leaf of a column with this name, in a struct or a list of structs; None if it is not unique."""
    leaves = [file.schema.column(place).path for place in range(len(file.schema))]
    found = [leaf for leaf in leaves if leaf.startswith(f"{column}.") and leaf.endswith(f".{name}")]
    return found[0] if len(found) == 1 else None


def _reference(place: Place, uri: Any, image: Any) -> ParquetRow:
    data = image
    if isinstance(image, dict):
        data, uri = image.get("bytes"), uri or image.get("path")
    text, not_text = _text(uri)
    size = None if text is None else too_many_bytes(text)
    if not_text is not None and len(uri) > MAX_URI_BYTES:
        size = len(uri)
    if size is not None:
        return ParquetRow(place, None, problem=(Reason.URI_TOO_LONG, too_long(size)))
    return ParquetRow(place, text or None, data or None, not_text=not_text)


def _text(uri: str | bytes | None) -> tuple[str | None, str | None]:
    """A URI as text; or, if its bytes are not UTF-8, None and their printable form."""
    if not isinstance(uri, bytes):
        return uri, None
    try:
        return uri.decode(), None
    except UnicodeDecodeError:
        return None, uri.decode("utf-8", "backslashreplace")
