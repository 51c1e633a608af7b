"""A Parquet file of references: the columns to read, and the open file."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from beamlabel.transforms import storage
from beamlabel.transforms.inputs.image_columns import find_columns, is_image_type, is_uri_type
from beamlabel.transforms.inputs.kept_columns import KeptColumn, check_once, kept_column
from beamlabel.transforms.inputs.parquet import footers
from beamlabel.transforms.inputs.parquet.check_footer import check_footer
from beamlabel.transforms.inputs.parquet.chunk_file import ChunkFile
from beamlabel.transforms.inputs.parquet.page_guard import Chunk, bounded_batches
from beamlabel.transforms.inputs.parquet.sparse_pages import SparseFile, chunk_range, is_leaf_of
from beamlabel.transforms.rows.types import is_list

_READ_BUFFER_BYTES = 1 << 20


@dataclass(frozen=True)
class ParquetColumns:
    """The columns to read from a Parquet input.

    Attributes:
      uri: column of URIs; None if only inline images are read.
      image: column of inline encoded images: binary, or Hugging Face's struct of ``bytes`` and ``path``.
      kept: columns copied to the output.
      lists: whether the images or URIs are lists, with a reference for each value.
    """

    uri: str | None = None
    image: str | None = None
    kept: tuple[KeptColumn, ...] = ()
    lists: bool = False


def choose_columns(
    schema: pa.Schema, *, uri: str | None, image: str | None, kept: Sequence[str], path: str
) -> ParquetColumns:
    """Checks the named columns against a file's schema; finds the images or URIs if none is named.

    Args:
      schema: of the file.
      uri, image: names of columns.
      kept: columns to copy to the output, in the forms of ``parse_kept``.
      path: of the file, for messages.

    Raises:
      ValueError: names the option, the column, the file and its columns.
    """
    if uri is None and image is None:
        uri, image = find_columns(schema, path)
    there = ", ".join(f"{field.name} ({field.type})" for field in schema)
    for option, name in (("--uri_column", uri), ("--image_column", image)):
        if name is not None and name not in schema.names:
            raise ValueError(f"{option} {name!r}: no such column in {path}; columns: {there}")
        if name is not None:
            check_once(option, name, schema, path)
    kinds = [None if name is None else schema.field(name).type for name in (uri, image)]
    if kinds[0] is not None and not is_uri_type(kinds[0]):
        raise ValueError(f"--uri_column {uri!r}: the column has the type {kinds[0]} in {path}, not string")
    if kinds[1] is not None and not is_image_type(kinds[1]):
        raise ValueError(
            f"--image_column {image!r}: the column has the type {kinds[1]} in {path}, neither binary nor a struct of "
            "bytes and path"
        )
    lists = [kind is not None and is_list(kind) for kind in kinds]
    if any(lists) and None not in kinds:
        raise ValueError(
            f"--uri_column {uri!r} and --image_column {image!r}: one of them is a list in {path}, so their values "
            "cannot be matched; name only one of the two"
        )
    return ParquetColumns(
        uri=uri,
        image=image,
        kept=tuple(kept_column(text, schema, path) for text in kept),
        lists=any(lists),
    )


@contextmanager
def open_parquet(path: str, *, int96_unit: str = "us", few: bool = False) -> Iterator[pq.ParquetFile]:
    """A Parquet file whose column chunks are streamed through a small buffer.

    Args:
      path: of the file.
      int96_unit: of INT96 timestamps; Spark's by default. pyarrow's nanoseconds end in 2262 and turn later times into
        others.
      few: whether only scattered parts are read: then nothing is read ahead.

    Raises:
      ValueError: the file is not Parquet.
    """
    with open_sparse_parquet(path, few=few, int96_unit=int96_unit) as (file, _):
        yield file


@contextmanager
def open_sparse_parquet(
    path: str, *, few: bool, int96_unit: str = "us"
) -> Iterator[tuple[pq.ParquetFile, SparseFile]]:
    """Like ``open_parquet``, with the file that decides which pages are shown.

    Raises:
      ValueError: the file is not Parquet.
    """
    with storage.open_input(path) as buffered:
        raw: Any = buffered
        if isinstance(buffered, io.BufferedReader) and (few or not storage.is_local(path)):
            # On a bucket, one buffer for all columns would read megabytes of one of them ahead.
            raw = buffered.raw
        facts = footers.facts_of(buffered)
        chunks = None
        if not few and not storage.is_local(path):
            raw = chunks = ChunkFile(raw, None if facts is None else facts.content)
        sparse = SparseFile(raw, None if facts is None else facts.indexes)
        file = _opened(sparse, path, int96_unit, None if facts is None else facts.metadata)
        yield file, sparse
        content = None if chunks is None else chunks.content
        if content is None and facts is not None:
            content = facts.content
        footers.keep(buffered, footers.Facts(file.metadata, sparse.indexes, content))


class _ParquetFile(pq.ParquetFile):
    """Announces to the underlying file the ranges that will be read."""

    def __init__(self, sparse: SparseFile, **options: Any) -> None:
        super().__init__(sparse, **options)
        self._sparse = sparse

    def expect_any(self) -> None:
        """Allows any column chunk to be read next."""
        groups = range(self.metadata.num_row_groups)
        self._sparse.expect(self._ranges(groups, None), all_of_them=False)

    def iter_batches(
        self,
        batch_size: int = 65536,
        row_groups: Any = None,
        columns: Any = None,
        **options: Any,
    ) -> Iterator[pa.RecordBatch]:
        """See ``pq.ParquetFile``; the batches are smaller if their values would take too much memory.

        Raises:
          LargePageError: a page takes too much memory.
        """
        groups = range(self.metadata.num_row_groups) if row_groups is None else list(row_groups)
        self._sparse.expect(self._ranges(groups, columns), all_of_them=True)
        for group in groups:

            def read(rows: int, group: int = group) -> Iterator[pa.RecordBatch]:
                found: Iterator[pa.RecordBatch] = super(_ParquetFile, self).iter_batches(
                    rows, row_groups=[group], columns=columns, **options
                )
                return found

            chunks = [self._chunk(group, leaf) for leaf in self._leaves(columns)]
            yield from bounded_batches(read, self._sparse.guard, chunks, batch_size)

    def _leaves(self, columns: Sequence[str] | None) -> list[int]:
        paths = [self.schema.column(place).path for place in range(len(self.schema))]
        return [place for place, path in enumerate(paths) if columns is None or is_leaf_of(path, columns)]

    def _ranges(self, groups: Iterable[int], columns: Sequence[str] | None) -> Iterator[tuple[int, int]]:
        leaves = self._leaves(columns)
        for group in groups:
            row_group = self.metadata.row_group(group)
            for leaf in leaves:
                yield chunk_range(row_group.column(leaf))

    def _chunk(self, group: int, leaf: int) -> Chunk:
        column, chunk = self.schema.column(leaf), self.metadata.row_group(group).column(leaf)
        has_lists = column.max_repetition_level > 0
        has_nulls = column.max_definition_level > 0
        width = column.length if chunk.physical_type == "FIXED_LEN_BYTE_ARRAY" else 0
        return Chunk(
            *chunk_range(chunk),
            column.path,
            chunk.physical_type,
            chunk.compression,
            has_lists,
            has_nulls,
            width,
        )


def _opened(raw: SparseFile, path: str, int96_unit: str, metadata: pq.FileMetaData | None) -> pq.ParquetFile:
    try:
        file = _ParquetFile(
            raw,
            metadata=metadata,
            buffer_size=_READ_BUFFER_BYTES,
            pre_buffer=False,
            coerce_int96_timestamp_unit=int96_unit,
            page_checksum_verification=True,
        )
        check_footer(raw.footer(), file.metadata)
        file.schema_arrow.names  # noqa: B018  (they may be no UTF-8)
    except (pa.ArrowException, OSError, ValueError) as error:
        if raw.error is not None:
            raise raw.error from None
        raise ValueError(f"{path}: not a readable Parquet file: {error}") from error
    file.expect_any()
    return file
