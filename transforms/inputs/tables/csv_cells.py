"""Cells of whole CSV records as Arrow columns."""

from __future__ import annotations

import codecs
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.csv as pa_csv


def csv_cells(raws: Sequence[bytes], width: int, places: Sequence[int], delimiter: str) -> list[pa.Array]:
    """Some columns of records, as strings; an empty cell is null unless it is quoted.

    Args:
      raws: well-formed records of ``csv_records``, none blank.
      width: number of cells in each.
      places: of the columns, from 0.
      delimiter: one character.

    Raises:
      ValueError: ``pyarrow.csv`` finds other records in the same bytes, or a cell that is not UTF-8.
    """
    if not raws or not places:
        return [pa.array([], pa.string()) for _ in places]
    text = b"".join(raws)
    if not text.endswith((b"\n", b"\r")):
        text += b"\n"
    if text.startswith(codecs.BOM_UTF8):
        text = codecs.BOM_UTF8 + text  # pyarrow.csv drops one
    names = [str(place) for place in range(width)]
    wanted = [names[place] for place in places]
    table = pa_csv.read_csv(
        pa.BufferReader(text),
        read_options=pa_csv.ReadOptions(use_threads=False, block_size=len(text) + 1, column_names=names),
        parse_options=pa_csv.ParseOptions(
            delimiter=delimiter, newlines_in_values=True, ignore_empty_lines=False
        ),
        convert_options=pa_csv.ConvertOptions(
            column_types=dict.fromkeys(wanted, pa.string()),
            include_columns=list(dict.fromkeys(wanted)),
            null_values=[""],
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
        ),
    )
    if table.num_rows != len(raws):
        raise ValueError(f"of {len(raws)} records, pyarrow.csv finds {table.num_rows}")
    table = table.combine_chunks()
    return [_array(table.column(name)) for name in wanted]


def _array(column: pa.ChunkedArray) -> pa.Array:
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
