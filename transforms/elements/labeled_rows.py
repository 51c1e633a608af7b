"""Labeled elements → Arrow tables with the columns of the output."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from apache_beam.typehints import native_type_compatibility, schemas, typehints
from apache_beam.typehints.arrow_type_compatibility import arrow_schema_from_beam_schema
from apache_beam.typehints.row_type import RowTypeConstraint
from apache_beam.utils.timestamp import Timestamp

from beamlabel.transforms.elements.element_types import added_fields
from beamlabel.transforms.elements.references import ElementOptions, bare, fields_of, is_pair
from beamlabel.transforms.elements.result_types import LABEL_FIELDS, FailedImage, LabeledImage
from beamlabel.transforms.records import ImageInfo, ImageRef, Prediction
from beamlabel.transforms.rows.record_batch import to_record_batch
from beamlabel.transforms.rows.schema import OutputSpec
from beamlabel.transforms.rows.types import normalized_type
from beamlabel.transforms.storage.uris import encodable, public_uri

_OTHER_BYTES = 400


class LabeledRows:
    """Converts results of ``LabelImages``.

    Args:
      spec: the columns; its kept fields are the elements' own.
      options: the names of the fields.

    Attributes:
      row_bytes: approximate size of a row in Arrow.
    """

    def __init__(self, spec: OutputSpec, options: ElementOptions) -> None:
        self._spec, self._options = spec, options
        self._needed = added_fields(spec)
        self._kept = {name for name, _ in spec.kept_fields}
        self.row_bytes = 4 * (spec.embedding_dim or 0) + 20 * spec.top_k + _OTHER_BYTES

    def table(self, elements: Sequence[Any]) -> pa.Table:
        """One row per element, in the given order.

        Raises:
          TypeError: an element has no fields.
          ValueError: a field is missing, is neither kept nor ours, is of another type than its column, or a row is of
            another module.
        """
        return pa.Table.from_batches(
            [to_record_batch([self._prediction(one) for one in elements], self._spec)]
        )

    def _prediction(self, element: Any) -> Prediction:
        """The element as the record from which the job makes its rows."""
        values, others = self._split(element)
        ours = self._spec
        for name in ("module_fingerprint", "preprocessing_id"):
            if values[name] != getattr(ours, name):
                raise ValueError(
                    f"WriteLabels: an element has {name} {values[name]!r}, but this output has "
                    f"{getattr(ours, name)!r}; write the rows of one LabelImages to one output"
                )
        identity = values["image_id"]
        uri = _text(others.get("uri" if isinstance(element, LabeledImage) else self._options.uri))
        ref = ImageRef(
            uri or identity,
            f"{public_uri(uri)}#0" if uri else identity,
            "",
            passthrough=tuple(_one(others.get(name), kind, name) for name, kind in ours.kept_fields),
            image_id=identity,
        )
        info = ImageInfo(
            values["width"], values["height"], values["format"], values["source_bytes"], values["source_version"],
            values["content_hash"],
        )  # fmt: skip
        labels = values.get("labels")
        return Prediction(
            ref,
            info,
            _array(values.get("class_ids"), np.int32),
            _array(values.get("scores"), np.float32),
            tuple(labels) if labels is not None else None,
            _array(values.get("embedding"), np.float32),
        )

    def _split(self, element: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """The element's fields: ours by their own names, and the others."""
        fields = None if is_pair(element) else fields_of(element)
        if fields is None:
            raise TypeError(_no_fields(type(bare(element)).__name__ if not is_pair(element) else "a pair"))
        prefix = "" if isinstance(element, LabeledImage) else self._options.prefix
        missing = [name for name in self._needed if prefix + name not in fields]
        if missing:
            raise ValueError(
                f"WriteLabels: an element lacks the field {prefix + missing[0]!r}, which LabelImages adds"
            )
        values = {name: fields.pop(prefix + name, None) for name in LABEL_FIELDS}
        allowed = self._kept | {self._options.uri, self._options.image}
        unknown = [name for name in fields if name not in allowed] if self._spec.kept_fields == () else []
        if unknown and isinstance(element, Mapping):
            raise ValueError(
                f"WriteLabels: an element has a field {unknown[0]!r}; to keep it, name it in columns with "
                "its Arrow type"
            )
        return values, fields


def kept_fields_of(
    element_type: Any, columns: Mapping[str, pa.DataType] | None, options: ElementOptions
) -> tuple[tuple[str, pa.DataType], ...]:
    """Name and Arrow type of each field that becomes a column beside ours.

    Args:
      element_type: of the PCollection.
      columns: the requested ones; None: all that the type names.
      options: the names of the fields.

    Raises:
      TypeError: elements of this type have no fields.
      ValueError: a field's type has no counterpart in Arrow.
    """
    kind = native_type_compatibility.convert_to_beam_type(element_type)
    if isinstance(kind, typehints.TupleConstraint):
        raise TypeError(_no_fields("pairs"))
    added = {options.prefix + name for name in LABEL_FIELDS}
    if columns is not None:
        for name in columns:
            if name in added:
                raise ValueError(f"columns: {name!r} is a field that LabelImages adds; name only others")
        return tuple((name, normalized_type(kind)) for name, kind in columns.items())
    if kind is LabeledImage:
        return ()
    row = kind if isinstance(kind, RowTypeConstraint) else RowTypeConstraint.from_user_type(kind)
    if row is None:
        return ()
    left_out = added | {options.uri, options.image}
    found = []
    for name, field_type in row._fields:
        if name not in left_out:
            found.append((name, _arrow_type(name, field_type)))
    return tuple(found)


def check_predictions(element_type: Any) -> None:
    """Raises ``TypeError`` if elements of this type are failures."""
    row = element_type if isinstance(element_type, RowTypeConstraint) else None
    names = {name for name, _ in row._fields} if row is not None else set()
    # With a prefix, the names tell nothing; ``table`` checks the fields when it writes.
    if element_type is FailedImage or {"stage", "reason", "detail"} <= names:
        raise TypeError(
            "WriteLabels writes labels; give it the result of LabelImages or its predictions alone"
        )


def _arrow_type(name: str, field_type: Any) -> pa.DataType:
    if field_type in (Timestamp, Timestamp | None):  # a logical type, which Beam's Arrow types lack
        return pa.timestamp("us", "UTC")
    schema = schemas.named_fields_to_schema([(name, field_type)])
    try:
        return normalized_type(arrow_schema_from_beam_schema(schema).field(0).type)
    except (KeyError, ValueError, TypeError, NotImplementedError) as error:
        raise ValueError(
            f"WriteLabels: the field {name!r} has the type {field_type}, which has no counterpart in Arrow; name "
            f"the fields to keep in columns, with their Arrow types ({error})"
        ) from error


def failure_fields(element: Any) -> dict[str, Any]:
    """The fields of a failed element as JSON, without the bytes of images.

    The key of a pair becomes the field ``key``, or ``pair_key`` if the element has a ``key``; for pairs in pairs, the
    field holds the list of their keys.
    """
    keys = []
    while is_pair(element):
        keys.append(_json_value(element[0]))
        element = element[1]
    shown: dict[str, Any] = _json_value(fields_of(element) or {})
    if not keys:
        return shown
    return {"pair_key" if "key" in shown else "key": keys[0] if len(keys) == 1 else keys, **shown}


def _json_value(value: Any) -> Any:
    """A value as JSON: null for NaN and infinity, text for types that JSON lacks."""
    if isinstance(value, str):
        return encodable(public_uri(value))
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    fields = fields_of(value)
    if fields is not None:
        return {
            encodable(str(name)): _json_value(one)
            for name, one in fields.items()
            if not isinstance(one, (bytes, bytearray, memoryview))
        }
    if isinstance(value, (list, tuple, set, frozenset, np.ndarray)):
        return [_json_value(one) for one in value]
    return encodable(str(value))


def _one(value: Any, kind: pa.DataType, name: str) -> pa.Array:
    try:
        if isinstance(value, Timestamp):
            return pa.array([value.micros], pa.timestamp("us", "UTC")).cast(kind)
        return pa.array([_arrow_value(value)], kind)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        raise ValueError(
            f"WriteLabels: the field {name!r} does not fit its column of type {kind}: {error}"
        ) from error


def _arrow_value(value: Any) -> Any:
    """A value with dicts in place of rows: Arrow takes only dicts for structs."""
    if type(value) in (list, tuple):
        return type(value)(map(_arrow_value, value))
    if isinstance(value, Mapping):
        return {key: _arrow_value(one) for key, one in value.items()}
    fields = fields_of(value)
    return value if fields is None else {key: _arrow_value(one) for key, one in fields.items()}


def _text(uri: Any) -> str:
    """An element's URI as text; empty if it has none."""
    if uri is None or uri != uri:  # pandas writes NaN for missing text
        return ""
    return encodable(os.fsdecode(uri) if isinstance(uri, (bytes, os.PathLike)) else str(uri))


def _array(values: Any, dtype: type[np.generic]) -> np.ndarray | None:
    return None if values is None else np.asarray(values, dtype)


def _no_fields(what: str) -> str:
    return f"WriteLabels takes elements with fields, not {what}; for pairs, take the values first with beam.Values()"
