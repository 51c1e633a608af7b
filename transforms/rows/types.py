"""Arrow types of columns: the type that stores a kept column, and the common type of several files."""

from __future__ import annotations

import re

import pyarrow as pa

_BOOL8 = "arrow.bool8"
# Synonyms of "UTC".
_UTC = frozenset({"utc", "etc/utc", "z", "zulu", "gmt", "etc/gmt", "+00:00", "-00:00", "+0000"})
# Decimal digits of an integer, by its bits.
_DIGITS = {8: 3, 16: 5, 32: 10, 64: 20}


def list_of(kind: pa.DataType) -> pa.DataType:
    """A list type with Parquet's name of the child, so that the type read equals the type written."""
    return pa.list_(pa.field("element", kind))


def normalized_type(kind: pa.DataType) -> pa.DataType:
    """The type that stores a kept column of one file.

    Nanoseconds become microseconds (Spark reads no nanoseconds), dictionary and run-end encodings their values,
    extension types their storage, views the underlying type (pyarrow cannot sort rows with views), and fixed-size lists
    plain lists (pyarrow cannot read back a null that it writes among them); also inside lists, structs and maps. Other
    types are kept.
    """
    types = pa.types
    if isinstance(kind, pa.BaseExtensionType):
        return pa.bool_() if kind.extension_name == _BOOL8 else normalized_type(kind.storage_type)
    if types.is_dictionary(kind) or types.is_run_end_encoded(kind):
        return normalized_type(kind.value_type)
    if types.is_timestamp(kind):
        unit = "us" if kind.unit == "ns" else kind.unit
        return pa.timestamp(unit, "UTC" if kind.tz and kind.tz.lower() in _UTC else kind.tz)
    if types.is_time64(kind):
        return pa.time64("us")
    if types.is_duration(kind) and kind.unit == "ns":
        return pa.duration("us")
    if is_list(kind):
        list_type = pa.large_list if is_large_list(kind) else pa.list_
        return list_type(_normalized_field(kind.value_field))
    if types.is_string_view(kind):
        return pa.string()
    if types.is_binary_view(kind):
        return pa.binary()
    if types.is_struct(kind):
        return pa.struct([_normalized_field(kind.field(place)) for place in range(kind.num_fields)])
    if types.is_map(kind):
        return pa.map_(
            _normalized_field(kind.key_field), _normalized_field(kind.item_field), kind.keys_sorted
        )
    return kind


def parsed_type(text: str) -> pa.DataType:
    """Parses Arrow's text form of a type, for types with a counterpart by ``tf_examples.example_type``.

    Raises:
      ValueError: The text is not such a type.
    """
    if (
        found := re.fullmatch(r"(large_list|list|fixed_size_list)<(\w+): (.+?)( not null)?>(\[\d+\])?", text)
    ) is not None:
        field = pa.field(found[2], parsed_type(found[3]), found[4] is None)
        if found[1] == "fixed_size_list":
            return pa.list_(field, int((found[5] or "")[1:-1]))
        return (pa.large_list if found[1] == "large_list" else pa.list_)(field)
    if (found := re.fullmatch(r"timestamp\[(s|ms|us|ns)(?:, tz=(.+))?\]", text)) is not None:
        return pa.timestamp(found[1], found[2])
    if (found := re.fullmatch(r"fixed_size_binary\[(\d+)\]", text)) is not None:
        return pa.binary(int(found[1]))
    alias = {"halffloat": "float16"}.get(text, text)
    try:
        return pa.type_for_alias(alias)
    except ValueError:
        raise ValueError(f"{text!r} is not a supported Arrow type") from None


def _normalized_field(child: pa.Field) -> pa.Field:
    return pa.field(child.name, normalized_type(child.type), child.nullable)


def is_list(kind: pa.DataType) -> bool:
    """Whether a type is a list of any kind: plain, large, of a fixed size, or a view."""
    types = pa.types
    views = types.is_list_view(kind) or types.is_large_list_view(kind)
    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind) or views)


def is_large_list(kind: pa.DataType) -> bool:
    """Whether a list type has 64-bit offsets."""
    return bool(pa.types.is_large_list(kind) or pa.types.is_large_list_view(kind))


def is_text(kind: pa.DataType) -> bool:
    """Whether a type is a string of any kind."""
    types = pa.types
    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind))


def is_bytes(kind: pa.DataType) -> bool:
    """Whether a type is bytes of any kind."""
    types = pa.types
    variable = types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind)
    return bool(variable or types.is_fixed_size_binary(kind))


def duplicate_field(kind: pa.DataType) -> str | None:
    """A name that two fields of one struct share, anywhere inside; None if there is none."""
    if isinstance(kind, pa.BaseExtensionType):
        return duplicate_field(kind.storage_type)
    if pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind):
        return duplicate_field(kind.value_type)
    children = [kind.field(place) for place in range(kind.num_fields)] if pa.types.is_nested(kind) else []
    names = [child.name for child in children]
    inside = (duplicate_field(child.type) for child in children)
    return next(
        (name for name in (*(n for n in names if names.count(n) > 1), *inside) if name is not None), None
    )


def stored_type(kind: pa.DataType) -> pa.DataType:
    """A normalized type with string in place of null, also inside.

    A column of nulls only becomes a string column, the most likely type of later files with values.
    """
    types = pa.types
    if types.is_null(kind):
        return pa.string()
    if is_list(kind):
        return (pa.large_list if is_large_list(kind) else pa.list_)(_stored_field(kind.value_field))
    if types.is_struct(kind):
        return pa.struct([_stored_field(kind.field(place)) for place in range(kind.num_fields)])
    if types.is_map(kind):
        return pa.map_(_stored_field(kind.key_field), _stored_field(kind.item_field), kind.keys_sorted)
    return kind


def _stored_field(child: pa.Field) -> pa.Field:
    return child.with_type(stored_type(child.type))


def unified_type(one: pa.DataType, other: pa.DataType) -> pa.DataType:
    """The type that holds the values of two normalized types.

    By kind: null and any type; integers; floats, and integers as doubles; decimals, and integers as decimals; strings;
    bytes; times, timestamps (both with the same time zone, or both without) and durations in the finer unit; dates;
    lists, maps and structs by their content, with null for a field that one struct lacks. ``exact_cast`` checks that
    each value fits: few types hold all values of int64 and double.

    Raises:
      ValueError: There is no such type.
    """
    types = pa.types
    if one == other:
        return one
    if types.is_null(one) or types.is_null(other):
        return other if types.is_null(one) else one
    if is_list(one) and is_list(other):
        list_type = pa.large_list if is_large_list(one) or is_large_list(other) else pa.list_
        return list_type(_unified_field(one.value_field, other.value_field))
    if types.is_struct(one) and types.is_struct(other):
        return _unified_struct(one, other)
    if types.is_map(one) and types.is_map(other):
        return pa.map_(
            _unified_field(one.key_field, other.key_field),
            _unified_field(one.item_field, other.item_field),
            one.keys_sorted and other.keys_sorted,
        )
    return _unified_leaf(one, other)


def _unified_field(one: pa.Field, other: pa.Field) -> pa.Field:
    return pa.field(one.name, unified_type(one.type, other.type), one.nullable or other.nullable)


def _unified_struct(one: pa.DataType, other: pa.DataType) -> pa.DataType:
    fields = {}
    for kind, against in ((one, other), (other, one)):
        for child in (kind.field(place) for place in range(kind.num_fields)):
            place = against.get_field_index(child.name)
            if child.name in fields:
                continue
            fields[child.name] = (
                child.with_nullable(True) if place < 0 else _unified_field(child, against.field(place))
            )
    return pa.struct(list(fields.values()))


def _unified_leaf(one: pa.DataType, other: pa.DataType) -> pa.DataType:
    types = pa.types
    both = (one, other)
    if all(map(is_text, both)):
        return pa.large_string() if any(map(types.is_large_string, both)) else pa.string()
    if all(map(is_bytes, both)):
        return pa.large_binary() if any(map(types.is_large_binary, both)) else pa.binary()
    if all(map(types.is_date, both)):
        return pa.date32()
    numbers = all(types.is_integer(kind) or types.is_floating(kind) for kind in both)
    if numbers and any(map(types.is_floating, both)) and any(map(types.is_integer, both)):
        return pa.float64()
    if any(map(types.is_decimal, both)) and all(types.is_integer(k) or types.is_decimal(k) for k in both):
        return _unified_decimal(one, other)
    same = (types.is_time, types.is_duration, types.is_timestamp, types.is_integer, types.is_floating)
    if not any(all(map(is_same, both)) for is_same in same):
        raise ValueError(f"no type holds both {one} and {other}")
    schemas = [pa.schema([("x", kind)]) for kind in both]
    try:
        return pa.unify_schemas(schemas, promote_options="permissive").field("x").type
    except pa.ArrowTypeError as error:  # such as one timestamp with a time zone and one without
        raise ValueError(f"no type holds both {one} and {other}") from error


def _unified_decimal(one: pa.DataType, other: pa.DataType) -> pa.DataType:
    """The decimal type with enough digits before and after the point for both; at most 76, Arrow's limit."""
    shapes = [
        (kind.precision - kind.scale, kind.scale)
        if pa.types.is_decimal(kind)
        else (_DIGITS[kind.bit_width], 0)
        for kind in (one, other)
    ]
    before, after = (max(column) for column in zip(*shapes, strict=True))
    if before + after > 76:
        raise ValueError(f"no type holds both {one} and {other}")
    return (pa.decimal128 if before + after <= 38 else pa.decimal256)(before + after, after)
