"""Casts that never change a value: a value that does not fit is an error, while pyarrow's casts may round or wrap.

The result's type comes from ``types.normalized_type``, or from ``types.unified_type`` for several columns.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from beamlabel.transforms.rows.types import is_bytes, is_large_list, is_list, is_text

# Bits of precision of a float.
_MANTISSA = {16: 11, 32: 24, 64: 53}


def exact_cast(column: pa.Array, target: pa.DataType) -> pa.Array:
    """Casts a column to another type without changing a value.

    Args:
      column: of any type.
      target: the column's normalized type, or a type of the same kind that holds it.

    Raises:
      ValueError: A value does not fit, or the types are of different kinds.
    """
    kind = column.type
    if isinstance(column, pa.ExtensionArray):
        return exact_cast(column.storage, target)
    if pa.types.is_dictionary(kind):
        return exact_cast(column.dictionary_decode(), target)
    if pa.types.is_run_end_encoded(kind):
        return exact_cast(pc.run_end_decode(column), target)
    if pa.types.is_null(kind):
        return pa.nulls(len(column), target)
    if pa.types.is_nested(kind):
        if kind == target:
            return column.cast(target)  # the names of the fields may differ
        return rebuilt(column, target, lambda _, values, inner: exact_cast(values, inner))
    if pa.types.is_floating(target) and kind != target:
        return _to_float(column, target)
    return column.cast(target)


def _to_float(column: pa.Array, target: pa.DataType) -> pa.Array:
    """Casts to a float type; Arrow rounds doubles silently, so checks that the reverse cast gives the same values."""
    cast = column.cast(target)
    if pa.types.is_floating(column.type) and column.type.bit_width > target.bit_width:
        before, after = (pc.drop_null(values).to_numpy() for values in (column, cast.cast(column.type)))
        changed = np.flatnonzero((before != after) & ~(np.isnan(before) & np.isnan(after)))
        if len(changed):
            raise ValueError(f"{before[changed[0]]!s} is not exact in {target}: it would be rounded")
    return cast


Convert = Callable[[int, pa.Array, pa.DataType], pa.Array]


def rebuilt(column: pa.Array, target: pa.DataType, convert: Convert) -> pa.Array:
    """Rebuilds a list, struct or map with converted values and the same nulls.

    Args:
      column: of a nested type.
      target: type of the result.
      convert: takes the index of a child, its values (without those under a null) and their type in the result.

    Raises:
      ValueError: The types are of different kinds.
    """
    kind = column.type
    mask = column.is_null() if column.null_count else None
    if pa.types.is_struct(kind) and pa.types.is_struct(target):
        there = dict(
            zip((kind.field(place).name for place in range(kind.num_fields)), column.flatten(), strict=True)
        )
        fields = [target.field(place) for place in range(target.num_fields)]
        values = [
            convert(kind.get_field_index(field.name), there[field.name], field.type)
            if field.name in there
            else pa.nulls(len(column), field.type)
            for field in fields
        ]
        if missing := there.keys() - {field.name for field in fields}:
            raise ValueError(f"{target} has no field {min(missing)!r}")
        return pa.StructArray.from_arrays(values, fields=fields, mask=mask)
    if is_list(kind) and is_list(target):
        values = convert(0, column.flatten(), target.value_type)
        made = pa.LargeListArray if is_large_list(target) else pa.ListArray
        return made.from_arrays(_offsets(column, target), values, type=target, mask=mask)
    if pa.types.is_map(kind) and pa.types.is_map(target):
        entries = column.cast(pa.list_(pa.struct([kind.key_field, kind.item_field])))
        keys, items = entries.flatten().flatten()
        keys, items = convert(0, keys, target.key_type), convert(1, items, target.item_type)
        return pa.MapArray.from_arrays(_offsets(entries, target), keys, items, type=target, mask=mask)
    raise ValueError(f"{kind} cannot be converted to {target}")


def _offsets(lists: pa.Array, target: pa.DataType) -> pa.Array:
    lengths = pc.list_value_length(lists).fill_null(0).to_numpy(zero_copy_only=False)
    dtype = np.int64 if is_large_list(target) else np.int32
    return pa.array(np.concatenate((np.zeros(1, dtype), np.cumsum(lengths, dtype=dtype))))


def is_always_exact(kind: pa.DataType, target: pa.DataType) -> bool:
    """Whether ``exact_cast`` accepts every value of a type, so that the values need no check.

    False if unknown.
    """
    types = pa.types
    if isinstance(kind, pa.BaseExtensionType):
        return is_always_exact(kind.storage_type, target)
    if types.is_dictionary(kind) or types.is_run_end_encoded(kind):
        return is_always_exact(kind.value_type, target)
    if types.is_fixed_size_list(kind):
        return False  # pyarrow cannot read every one
    if kind == target or types.is_null(kind):
        return not types.is_nested(kind) or all(is_always_exact(one, one) for one in _children(kind))
    if is_list(kind) and is_list(target):
        return is_always_exact(kind.value_type, target.value_type)
    if types.is_map(kind) and types.is_map(target):
        inside = ((kind.key_type, target.key_type), (kind.item_type, target.item_type))
        return all(is_always_exact(one, other) for one, other in inside)
    if types.is_struct(kind) and types.is_struct(target):
        children = [kind.field(place) for place in range(kind.num_fields)]
        return all(is_always_exact(child.type, target.field(child.name).type) for child in children)
    return _leaf_is_always_exact(kind, target)


def _children(kind: pa.DataType) -> list[pa.DataType]:
    return [kind.field(place).type for place in range(kind.num_fields)]


def _leaf_is_always_exact(kind: pa.DataType, target: pa.DataType) -> bool:
    types = pa.types
    if types.is_integer(kind) and types.is_integer(target):
        signed = types.is_signed_integer(kind), types.is_signed_integer(target)
        wider = target.bit_width > kind.bit_width
        return wider and signed != (True, False)
    if types.is_integer(kind) and types.is_floating(target):
        return bool(kind.bit_width < _MANTISSA[target.bit_width])
    if types.is_floating(kind) and types.is_floating(target):
        return bool(kind.bit_width <= target.bit_width)
    if types.is_decimal(kind) and types.is_decimal(target):
        before, after = (one.precision - one.scale for one in (kind, target))
        return before <= after and kind.scale <= target.scale
    if types.is_timestamp(kind) and types.is_timestamp(target):
        return bool(kind.unit == target.unit and (kind.tz is None) == (target.tz is None))
    if types.is_time32(kind) and types.is_time(target):
        return True
    same = (is_text, is_bytes)
    return any(is_same(kind) and is_same(target) for is_same in same)
