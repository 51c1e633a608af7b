"""What the footer of a Parquet file says, before anybody relies on it."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pyarrow.parquet as pq

from beamlabel.transforms.inputs.parquet.page_index import CompactReader
from beamlabel.transforms.inputs.parquet.sparse_pages import chunk_range

# A footer of this size is read in some milliseconds.
_SMALL_BYTES = 256 << 10
# ColumnChunk.crypto_metadata of a column with a key of its own: a struct that begins with the path, a list of strings.
_MAY_BE_ENCRYPTED = re.compile(rb"\x2c\x19[\x08-\xf8]")
_CRYPTO_METADATA = 8


def check_footer(footer: bytes, metadata: pq.FileMetaData) -> None:
    """Refuses a file with encrypted columns, or whose numbers of rows differ.

    Args:
      footer: as it is in the file; empty if it is known already.
      metadata: the same, read.

    Raises:
      ValueError: what is wrong.
    """
    # pyarrow ends the process if it is asked for a chunk that is encrypted.
    is_looked_at = footer and (len(footer) <= _SMALL_BYTES or _MAY_BE_ENCRYPTED.search(footer))
    if is_looked_at and _has_encrypted_chunks(footer):
        raise ValueError("it has encrypted columns; write them without encryption")
    counts = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
    if min(counts, default=0) < 0 or sum(counts) != metadata.num_rows:
        raise ValueError(f"its row groups have {sum(counts)} rows, and its footer says {metadata.num_rows}")


def _has_encrypted_chunks(footer: bytes) -> bool:
    groups = CompactReader(footer).struct().get(4, ())
    try:
        return any(_CRYPTO_METADATA in chunk for group in groups for chunk in group.get(1, ()))
    except (AttributeError, TypeError):
        raise ValueError("its footer is damaged") from None


def check_chunks(file: pq.ParquetFile, leaves: Sequence[int], size: int) -> None:
    """Refuses a file whose column chunks lie elsewhere than in it, or have other rows than their row groups.

    Args:
      file: open.
      leaves: the leaf columns that are read.
      size: of the file, in bytes.

    Raises:
      ValueError: what is wrong.
    """
    for group in range(file.metadata.num_row_groups):
        rows = file.metadata.row_group(group).num_rows
        for leaf in leaves:
            chunk, column = file.metadata.row_group(group).column(leaf), file.schema.column(leaf)
            start, stop = chunk_range(chunk)
            if not 0 <= start <= stop <= size:
                raise ValueError(
                    f"by its footer the column {column.path!r} lies in bytes {start} to {stop} of {size}"
                )
            if column.max_repetition_level == 0 and chunk.num_values != rows:
                raise ValueError(
                    f"by its footer the column {column.path!r} has {chunk.num_values} values in a row group of {rows} "
                    "rows"
                )
