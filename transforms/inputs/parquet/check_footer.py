"""Checks of a Parquet file's footer, before any use of it."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pyarrow.parquet as pq

from beamlabel.transforms.inputs.parquet.page_index import CompactReader
from beamlabel.transforms.inputs.parquet.sparse_pages import chunk_range

# A footer of this size takes some milliseconds to read.
_SMALL_BYTES = 256 << 10
# ColumnChunk.crypto_metadata of a column with its own key: a struct that begins with the path, a list of strings.
_MAY_BE_ENCRYPTED = re.compile(rb"\x2c\x19[\x08-\xf8]")
_CRYPTO_METADATA = 8


def check_footer(footer: bytes, metadata: pq.FileMetaData) -> None:
    """Refuses a file with encrypted columns, or with contradictory numbers of rows.

    Args:
      footer: the bytes in the file; empty if it was checked before.
      metadata: the parsed footer.

    Raises:
      ValueError: describes the fault.
    """
    # pyarrow ends the process on access to an encrypted chunk.
    is_looked_at = footer and (len(footer) <= _SMALL_BYTES or _MAY_BE_ENCRYPTED.search(footer))
    if is_looked_at and _has_encrypted_chunks(footer):
        raise ValueError("its columns are encrypted; write the file without encryption")
    counts = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
    if min(counts, default=0) < 0 or sum(counts) != metadata.num_rows:
        raise ValueError(f"its row groups have {sum(counts)} rows, but its footer says {metadata.num_rows}")


def _has_encrypted_chunks(footer: bytes) -> bool:
    groups = CompactReader(footer).struct().get(4, ())
    try:
        return any(_CRYPTO_METADATA in chunk for group in groups for chunk in group.get(1, ()))
    except (AttributeError, TypeError):
        raise ValueError("its footer is damaged") from None


def check_chunks(file: pq.ParquetFile, leaves: Sequence[int], size: int) -> None:
    """Refuses a file with column chunks outside it, or with other rows than their row groups.

    Args:
      file: open.
      leaves: the leaf columns to read.
      size: of the file, in bytes.

    Raises:
      ValueError: describes the fault.
    """
    for group in range(file.metadata.num_row_groups):
        rows = file.metadata.row_group(group).num_rows
        for leaf in leaves:
            chunk, column = file.metadata.row_group(group).column(leaf), file.schema.column(leaf)
            start, stop = chunk_range(chunk)
            if not 0 <= start <= stop <= size:
                raise ValueError(
                    f"its footer places the column {column.path!r} in bytes {start} to {stop} of {size}"
                )
            if column.max_repetition_level == 0 and chunk.num_values != rows:
                raise ValueError(
                    f"its footer gives the column {column.path!r} {chunk.num_values} values in a row group of {rows} "
                    "rows"
                )
