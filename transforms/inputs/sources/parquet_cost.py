"""The number of bytes that the units of a Parquet file read in total."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Sequence

import pyarrow.parquet as pq

from beamlabel.transforms.inputs.parquet.page_index import PageLocation
from beamlabel.transforms.inputs.parquet.sparse_pages import SparseFile, are_sane, chunk_range

_ENOUGH = 1.1
"""The largest acceptable number of bytes read, as a multiple of the file's."""

_FEW_BYTES = 1 << 16
"""One request for the footer brings as many; reading them again costs less than staging."""


def reads_once(file: pq.ParquetFile, sparse: SparseFile, leaves: Sequence[int], ends: Sequence[int]) -> bool:
    """Whether units that read their own ranges of the file read few bytes twice.

    A row group without a page index is read from its beginning, by each unit that begins in it.

    Args:
      file, sparse: the file.
      leaves: the leaf columns to read.
      ends: of the units, in order.

    Raises:
      OSError: the indexes cannot be read.
    """
    there = read = 0.0
    first = 0
    for group in range(file.metadata.num_row_groups):
        rows = file.metadata.row_group(group).num_rows
        stop = min(ends[-1], first + rows)
        if stop > first:
            cuts = ends[bisect.bisect_right(ends, first) : bisect.bisect_left(ends, stop)]
            borders = [0, *(end - first for end in cuts), stop - first]
            for leaf in leaves:
                one = _bytes(file, sparse, (group, leaf), [0, stop - first])
                there += one
                read += one if len(borders) == 2 else _bytes(file, sparse, (group, leaf), borders)
        first += rows
    return there <= _FEW_BYTES or read <= _ENOUGH * there


def _bytes(file: pq.ParquetFile, sparse: SparseFile, place: tuple[int, int], borders: Sequence[int]) -> float:
    """The bytes of a column chunk that units with these borders in a row group read."""
    group, leaf = place
    row_group = file.metadata.row_group(group)
    start, stop = chunk_range(row_group.column(leaf))
    if borders[-1] == row_group.num_rows and len(borders) == 2:
        return stop - start
    pages = _pages(file, sparse, place)
    if pages is None:
        return sum((stop - start) * end / row_group.num_rows for end in borders[1:])
    first_rows = [page.first_row for page in pages]
    sizes = list(itertools.accumulate((page.size for page in pages), initial=0))
    dictionary = pages[0].offset - start
    return sum(
        dictionary
        + sizes[bisect.bisect_left(first_rows, end)]
        - sizes[bisect.bisect_right(first_rows, begin) - 1]
        for begin, end in itertools.pairwise(borders)
    )


def _pages(file: pq.ParquetFile, sparse: SparseFile, place: tuple[int, int]) -> list[PageLocation] | None:
    """The pages of a chunk, if they can be read separately."""
    group, leaf = place
    row_group, column = file.metadata.row_group(group), file.schema.column(leaf)
    chunk = row_group.column(leaf)
    if not chunk.has_offset_index or column.max_repetition_level or not column.max_definition_level:
        return None
    try:
        pages = sparse.indexed_pages(group, leaf)
    except (ValueError, KeyError, TypeError, IndexError):
        return None
    if not pages or not are_sane(pages, *chunk_range(chunk), row_group.num_rows):
        return None
    return pages
