"""Arrow types of the columns."""

from __future__ import annotations

import pyarrow as pa


def list_of(kind: pa.DataType) -> pa.DataType:
    """A list whose child is named as Parquet names it, so that what is read equals what was written."""
    return pa.list_(pa.field("element", kind))


def normalized_type(kind: pa.DataType) -> pa.DataType:
    """The type in which a kept column is stored.

    Nanoseconds become microseconds (Spark reads no others), dictionary and run-end encodings their values,
    extension types their storage, and fixed-size lists plain ones (pyarrow writes a null among them that it
    cannot read back); also inside lists, structs and maps. Every other type is kept.
    """
    types = pa.types
    if isinstance(kind, pa.BaseExtensionType):
        return normalized_type(kind.storage_type)
    if types.is_dictionary(kind) or types.is_run_end_encoded(kind):
        return normalized_type(kind.value_type)
    if types.is_timestamp(kind) and kind.unit == "ns":
        return pa.timestamp("us", kind.tz)
    if types.is_time64(kind):
        return pa.time64("us")
    if types.is_duration(kind) and kind.unit == "ns":
        return pa.duration("us")
    if types.is_list(kind) or types.is_fixed_size_list(kind):
        return pa.list_(_normalized_field(kind.value_field))
    if types.is_large_list(kind):
        return pa.large_list(_normalized_field(kind.value_field))
    if types.is_struct(kind):
        return pa.struct([_normalized_field(kind.field(place)) for place in range(kind.num_fields)])
    if types.is_map(kind):
        return pa.map_(normalized_type(kind.key_type), _normalized_field(kind.item_field), kind.keys_sorted)
    return kind


def _normalized_field(child: pa.Field) -> pa.Field:
    return child.with_type(normalized_type(child.type))
