"""Rows of a Parquet file, by range, read in a streaming way: never a whole file, nor a row group of images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from beamlabel.transforms import storage
from beamlabel.transforms.inputs.kept_columns import KeptColumn, KeptReader, check_once, kept_column
from beamlabel.transforms.rows.types import is_text

# Names looked for when no column is named.
DEFAULT_URI_COLUMNS = ("uri", "url", "path")
# Rows decoded at a time; images are held encoded, so few of them.
_URI_BATCH_ROWS = 4096
_IMAGE_BATCH_ROWS = 16
_READ_BUFFER_BYTES = 1 << 20


@dataclass(frozen=True)
class ParquetColumns:
    """Which columns of a Parquet input are read.

    Attributes:
      uri: column of URIs; None where only inline images are read.
      image: column of inline encoded images: binary, or Hugging Face's struct of ``bytes`` and ``path``.
      kept: columns handed through to the output.
    """

    uri: str | None = None
    image: str | None = None
    kept: tuple[KeptColumn, ...] = ()

    @property
    def names(self) -> list[str]:
        """All columns to read, each once."""
        names = (self.uri, self.image, *(column.source for column in self.kept))
        return list(dict.fromkeys(name for name in names if name is not None))


@dataclass(frozen=True)
class ParquetRow:
    """One row.

    Attributes:
      row: its number in the file, from 0.
      uri: the URI, or the inline image's path; None where there is neither.
      data: the inline image; None where there is none.
      kept: the kept columns' values, each an Arrow array of length one.
    """

    row: int
    uri: str | None
    data: bytes | None
    kept: tuple[pa.Array, ...]


def choose_columns(
    schema: pa.Schema, *, uri: str | None, image: str | None, kept: Sequence[str], path: str
) -> ParquetColumns:
    """Checks the named columns against a file's schema; finds the URI column when none is named.

    Args:
      schema: of the file.
      uri, image: names of columns.
      kept: columns to hand through, as ``parse_kept`` takes them.
      path: of the file, for messages.

    Raises:
      ValueError: names the option, the column, the file and the columns that are there.
    """
    there = ", ".join(f"{field.name} ({field.type})" for field in schema)
    if uri is None and image is None:
        uri = next((name for name in DEFAULT_URI_COLUMNS if name in schema.names), None)
        strings = [field.name for field in schema if _is_text(field.type)]
        if uri is None and len(strings) == 1:
            uri = strings[0]
        if uri is None:
            raise ValueError(f"--uri_column: name the column of URIs in {path}; it has {there}")
    for option, name in (("--uri_column", uri), ("--image_column", image)):
        if name is not None and name not in schema.names:
            raise ValueError(f"{option} {name!r}: no such column in {path}; it has {there}")
        if name is not None:
            check_once(option, name, schema, path)
    if uri is not None and not _is_text(schema.field(uri).type):
        raise ValueError(f"--uri_column {uri!r}: {schema.field(uri).type} in {path}, not a string")
    if image is not None and not _is_image(schema.field(image).type):
        raise ValueError(
            f"--image_column {image!r}: {schema.field(image).type} in {path}; neither binary nor a struct of "
            "bytes and path"
        )
    return ParquetColumns(uri=uri, image=image, kept=tuple(kept_column(text, schema, path) for text in kept))


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return is_text(kind)


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


def _is_image(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        index = kind.get_field_index("bytes")
        return index >= 0 and _is_bytes(kind.field(index).type)
    return _is_bytes(kind)


@contextmanager
def open_parquet(path: str, *, int96_unit: str = "us") -> Iterator[pq.ParquetFile]:
    """A Parquet file whose column chunks are streamed through a small buffer.

    Args:
      path: of the file.
      int96_unit: of INT96 timestamps, Spark's default. Nanoseconds, pyarrow's, end in 2262, and what is later
        comes out as some other time.

    Raises:
      ValueError: the file is not Parquet.
    """
    with storage.open_input(path) as raw:
        try:
            file = pq.ParquetFile(
                raw,
                buffer_size=_READ_BUFFER_BYTES,
                pre_buffer=False,
                coerce_int96_timestamp_unit=int96_unit,
            )
        except pa.ArrowInvalid as error:
            raise ValueError(f"{path}: not a readable Parquet file: {error}") from error
        with file:
            yield file


def read_rows(
    file: pq.ParquetFile, columns: ParquetColumns, *, start: int, stop: int, path: str
) -> Iterator[ParquetRow]:
    """Yields the rows ``start`` to ``stop`` of an open file, touching only the row groups they lie in.

    Raises:
      ValueError: a kept value does not fit its column of the output; see ``KeptReader``.
    """
    kept = KeptReader(file.schema_arrow, columns.kept, path)
    batch_rows = _IMAGE_BATCH_ROWS if columns.image else _URI_BATCH_ROWS
    group_start = 0
    for group in range(file.num_row_groups):
        group_rows = file.metadata.row_group(group).num_rows
        if group_start < stop and group_start + group_rows > start:
            row = group_start
            for batch in file.iter_batches(batch_rows, row_groups=[group], columns=columns.names):
                first, last = max(start - row, 0), min(stop - row, batch.num_rows)
                if first < last:
                    yield from _rows(batch.slice(first, last - first), columns, kept, row + first)
                row += batch.num_rows
                if row >= stop:
                    break
        group_start += group_rows


def _rows(
    batch: pa.RecordBatch, columns: ParquetColumns, reader: KeptReader, row: int
) -> Iterator[ParquetRow]:
    nothing = [None] * batch.num_rows
    uris = batch.column(columns.uri).to_pylist() if columns.uri is not None else nothing
    images, paths = nothing, nothing
    if columns.image is not None:
        cell = batch.column(columns.image)
        if pa.types.is_struct(cell.type):
            images = pc.struct_field(cell, "bytes").to_pylist()
            if cell.type.get_field_index("path") >= 0:
                paths = pc.struct_field(cell, "path").to_pylist()
        else:
            images = cell.to_pylist()
    kept = list(reader.read(batch, row))
    for place in range(batch.num_rows):
        yield ParquetRow(
            row=row + place,
            uri=uris[place] or paths[place] or None,
            data=images[place] or None,
            kept=tuple(column.slice(place, 1) for column in kept),
        )
