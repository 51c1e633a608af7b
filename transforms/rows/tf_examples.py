"""Arrow → ``tf.Example``, with all casts of types for it.

TensorFlow is not imported. tfx-bsl's C++ encoder serializes, and is imported only to encode a row, so that a worker
that writes Parquet does not need it.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from beamlabel.transforms.extras.install import install_extra
from beamlabel.transforms.rows.exact_cast import exact_cast
from beamlabel.transforms.rows.types import is_bytes, is_list, is_text

_SIGNED_OR_SMALL = (
    pa.bool_(), pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32()
)  # fmt: skip


def example_type(kind: pa.DataType) -> pa.DataType | None:
    """The type of a feature's values: ``binary``, ``int64`` or ``float32``; None without a counterpart.

    Strings and bytes become ``binary``; integers and bools ``int64``; timestamps, times of day and durations ``int64``
    microseconds; dates ``int64`` days since 1970; floats ``float32``. A list of any of these is a feature of several
    values. ``uint64`` has no counterpart, since int64 cannot hold it; nor do decimals, structs, maps and lists of
    lists.
    """
    types = pa.types
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        inner = kind.value_type
        return None if types.is_nested(inner) else example_type(inner)
    if is_text(kind) or is_bytes(kind):
        return pa.binary()
    if kind in _SIGNED_OR_SMALL or _to_microseconds(kind) is not None or types.is_date(kind):
        return pa.int64()
    return pa.float32() if types.is_floating(kind) else None


def is_always_exact(kind: pa.DataType) -> bool:
    """Whether a feature can hold every value of a type that has a counterpart.

    It cannot hold a null in a list, most doubles, or times in another unit some 290,000 years from now.
    """
    types = pa.types
    if types.is_timestamp(kind) or types.is_duration(kind):
        return bool(kind.unit == "us")
    is_list = types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
    return not (is_list or types.is_float64(kind))


def to_example_columns(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Casts every column to lists of binary, int64 or float32; a null stays null, a value becomes a list.

    Raises:
      ValueError: A column's type has no counterpart, or a feature cannot hold one of its values: a list with a null, a
        double that float32 would round, a time beyond the range of microseconds. The message names the column.
    """
    names = batch.schema.names
    return pa.record_batch(
        [_to_lists(column, name) for column, name in zip(batch.columns, names, strict=True)], names
    )


def encode(batch: pa.RecordBatch) -> list[bytes]:
    """One serialized ``tf.Example`` per row; a null is an absent feature, and equal rows give equal bytes.

    Raises:
      ValueError: See ``to_example_columns``.
      ImportError: See ``check_installed``.
    """
    return [_canonical(example) for example in _encoder().encode(to_example_columns(batch))]


def decode(examples: Sequence[bytes], names: Sequence[str]) -> list[dict[str, list | None]]:
    """The named features of each serialized ``tf.Example``, as lists of bytes, int or float.

    A feature that no example has is absent; a feature that one example lacks is None there.

    Raises:
      ImportError: see ``check_installed``.
    """
    return decode_batch(examples, names).to_pylist()


def decode_batch(examples: Sequence[bytes], names: Sequence[str] | None = None) -> pa.RecordBatch:
    """Decodes to columns of large lists of ``large_binary``, ``int64`` or ``float32``; see ``from_lists``.

    Without ``names`` it has all features. A feature that an example lacks is null.

    Raises:
      ImportError: see ``check_installed``.
    """
    batch = _decoder().DecodeBatch(list(examples))
    if names is None:
        return batch
    return batch.select([name for name in names if name in batch.schema.names])


def from_lists(lists: pa.Array, kind: pa.DataType) -> pa.Array:
    """Converts features to a column of type ``kind``; the inverse of ``to_example_columns``.

    Raises:
      ValueError: A feature has several values and ``kind`` is not a list, or a value does not fit ``kind``.
    """
    lengths = lists.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
    values = lists.flatten()
    if is_list(kind):
        offsets = np.concatenate((np.zeros(1, np.int64), np.cumsum(lengths)))
        plain = pa.LargeListArray.from_arrays(
            pa.array(offsets),
            _from_values(values, kind.value_type),
            mask=lists.is_null() if lists.null_count else None,
        )
        return plain.cast(kind)
    if (lengths > 1).any():
        raise ValueError(f"a feature has {lengths.max()} values, but {kind} holds one")
    if not (lengths == 1).all():
        places = np.cumsum(lengths) - 1
        values = values.take(pa.array(np.maximum(places, 0), mask=lengths == 0))
    return _from_values(values, kind)


def check_installed() -> None:
    """Checks that the packages for TFRecords are installed.

    TensorFlow, which tfx-bsl's metadata requires, is not needed.

    Raises:
      ImportError: tfx-bsl or tensorflow-metadata cannot be imported; the message names the packages to install.
    """
    try:
        from tensorflow_metadata.proto.v0 import schema_pb2  # noqa: F401
        from tfx_bsl.coders import example_coder  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f"tfx-bsl's coder cannot be imported ({error}); run pip install tensorflow-metadata and then "
            f"pip install --no-deps tfx-bsl, or {install_extra('launcher')}"
        ) from error


def schema_pbtxt(schema: pa.Schema) -> str:
    """The features of the examples as a tensorflow-metadata ``Schema``, text format.

    A column that is never null is present in every example, with a fixed shape if its length is fixed. Each feature
    names its Arrow type.

    Raises:
      ValueError: A type has no counterpart.
      ImportError: See ``check_installed``.
    """
    check_installed()
    from google.protobuf import text_format
    from tensorflow_metadata.proto.v0 import schema_pb2

    names = {pa.binary(): schema_pb2.BYTES, pa.int64(): schema_pb2.INT, pa.float32(): schema_pb2.FLOAT}
    result = schema_pb2.Schema()
    for column in schema:
        kind = column.type
        feature = result.feature.add(name=column.name, type=names[_checked_type(kind, column.name)])
        feature.annotation.comment.append(str(kind))
        fixed_length = kind.list_size if pa.types.is_fixed_size_list(kind) else 1
        if not column.nullable:
            feature.presence.min_fraction = 1.0
        if _is_variable_list(kind):
            feature.value_count.min = 0
        elif column.nullable:
            feature.value_count.min = feature.value_count.max = fixed_length
        else:
            feature.shape.dim.add(size=fixed_length)
    return str(text_format.MessageToString(result))


def _checked_type(kind: pa.DataType, name: str) -> pa.DataType:
    target = example_type(kind)
    if target is None:
        raise ValueError(f"column {name!r}: tf.Example has no counterpart for {kind}")
    return target


def _is_variable_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind))


def _to_microseconds(kind: pa.DataType) -> pa.DataType | None:
    if pa.types.is_timestamp(kind):
        return pa.timestamp("us", kind.tz)
    if pa.types.is_time(kind):
        return pa.time64("us")
    return pa.duration("us") if pa.types.is_duration(kind) else None


def _to_lists(column: pa.Array, name: str) -> pa.Array:
    kind = column.type
    target = _checked_type(kind, name)
    try:
        if _is_variable_list(kind) or pa.types.is_fixed_size_list(kind):
            lists = column.cast(pa.list_(kind.value_type))
            values, lengths = _to_values(lists.flatten(), target), lists.value_lengths().fill_null(0)
        else:
            values, lengths = _to_values(column, target).drop_null(), column.is_valid()
    except ValueError as error:
        raise ValueError(f"column {name!r} is {kind}, which tf.Example holds as {target}: {error}") from error
    if values.null_count:
        raise ValueError(f"column {name!r} is {kind}: a list holds a null, which tf.Example cannot")
    ends = np.cumsum(lengths.to_numpy(zero_copy_only=False), dtype=np.int32)
    offsets = np.concatenate((np.zeros(1, np.int32), ends))
    mask = column.is_null() if column.null_count else None
    return pa.ListArray.from_arrays(pa.array(offsets), values, mask=mask)


def _to_values(values: pa.Array, target: pa.DataType) -> pa.Array:
    """Casts values; times by way of microseconds, dates by way of days."""
    kind = values.type
    if (microseconds := _to_microseconds(kind)) is not None:
        values = values.cast(microseconds)
    elif pa.types.is_date(kind):
        values = values.cast(pa.date32()).cast(pa.int32())
    return exact_cast(values, target)


def _from_values(values: pa.Array, kind: pa.DataType) -> pa.Array:
    """The inverse of ``_to_values``."""
    if (microseconds := _to_microseconds(kind)) is not None:
        return values.cast(microseconds).cast(kind)
    if pa.types.is_date(kind):
        return values.cast(pa.int32()).cast(pa.date32()).cast(kind)
    return values.cast(kind)


@functools.cache
def _encoder() -> Any:
    check_installed()
    from tfx_bsl.coders import example_coder

    return example_coder.RecordBatchToExamplesEncoder()


@functools.cache
def _decoder() -> Any:
    check_installed()
    from tfx_bsl.coders import example_coder

    return example_coder.ExamplesToRecordBatchDecoder()


def _canonical(example: bytes) -> bytes:
    """Sorts an example's features by name and removes those without a value.

    The encoder writes features in the varying order of a hash map, and a null as a feature of no kind.
    Content-addressed files need one order, and readers that look up a name need it absent. In protobuf's wire format an
    Example is one field 1 (``Features``), which holds one field 1 per entry of the map; an entry is field 1, the name,
    then field 2, the ``Feature`` (https://protobuf.dev/programming-guides/encoding/).
    """
    place, _ = _field(example, 0)
    entries = []
    while place < len(example):
        start = place
        body, place = _field(example, place)
        name, name_end = _field(example, body)
        feature, _ = _field(example, name_end)
        if feature < place:
            entries.append((example[name:name_end], example[start:place]))
    features = b"".join(entry for _, entry in sorted(entries))
    return b"\x0a" + _varint(len(features)) + features


def _field(data: bytes, place: int) -> tuple[int, int]:
    """The start and end of the content of the length-delimited field at ``place``, whose tag is one byte."""
    length = shift = 0
    place += 1
    while True:
        byte = data[place]
        length |= (byte & 0x7F) << shift
        place += 1
        shift += 7
        if byte < 0x80:
            return place, place + length


def _varint(number: int) -> bytes:
    data = bytearray()
    while number >= 0x80:
        data.append(number & 0x7F | 0x80)
        number >>= 7
    data.append(number)
    return bytes(data)
