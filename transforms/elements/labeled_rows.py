"""Labeled elements → Arrow tables with the columns of the output."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from apache_beam.typehints import native_type_compatibility, schemas, typehints
from apache_beam.typehints.arrow_type_compatibility import arrow_schema_from_beam_schema
from apache_beam.typehints.row_type import RowTypeConstraint

from beamlabel.transforms.elements.element_types import added_fields
from beamlabel.transforms.elements.references import ElementOptions, bare, fields_of, is_pair
from beamlabel.transforms.elements.result_types import LABEL_FIELDS, LabeledImage
from beamlabel.transforms.records import ImageInfo, ImageRef, Prediction
from beamlabel.transforms.rows.record_batch import to_record_batch
from beamlabel.transforms.rows.schema import OutputSpec
from beamlabel.transforms.rows.types import normalized_type
from beamlabel.transforms.storage.uris import public_uri

_OTHER_BYTES = 400


class LabeledRows:
    """Converts elements that ``LabelImages`` has made.

    Args:
      spec: the columns; its kept fields are the elements' own.
      options: the fields' names.

    Attributes:
      row_bytes: of a row in Arrow, about.
    """

    def __init__(self, spec: OutputSpec, options: ElementOptions) -> None:
        self._spec, self._options = spec, options
        self._needed = added_fields(spec)
        self._kept = {name for name, _ in spec.kept_fields}
        self.row_bytes = 4 * (spec.embedding_dim or 0) + 20 * spec.top_k + _OTHER_BYTES

    def table(self, elements: Sequence[Any]) -> pa.Table:
        """One row an element, in the order given.

        Raises:
          TypeError: an element has no fields.
          ValueError: a field is missing, is not kept and not ours, is of another type than its column, or a row is
            of another module.
        """
        return pa.Table.from_batches(
            [to_record_batch([self._prediction(one) for one in elements], self._spec)]
        )

    def _prediction(self, element: Any) -> Prediction:
        """The element as the record that the job's rows are made of."""
        values, others = self._split(element)
        ours = self._spec
        for name in ("module_fingerprint", "preprocessing_id"):
            if values[name] != getattr(ours, name):
                raise ValueError(
                    f"WriteLabels: an element has {name} {values[name]!r}, the labels that are written have "
                    f"{getattr(ours, name)!r}: one output holds the rows of one LabelImages"
                )
        identity = values["image_id"]
        uri = others.pop(self._options.uri, None) or ""
        uri = uri.decode() if isinstance(uri, bytes) else str(uri)
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
                f"WriteLabels: an element has no field {prefix + missing[0]!r}, which LabelImages adds"
            )
        values = {name: fields.pop(prefix + name, None) for name in LABEL_FIELDS}
        allowed = self._kept | {self._options.uri, self._options.image}
        unknown = [name for name in fields if name not in allowed] if self._spec.kept_fields == () else []
        if unknown and isinstance(element, Mapping):
            raise ValueError(
                f"WriteLabels: an element has a field {unknown[0]!r}: name it in columns, with its Arrow type, to "
                "keep it"
            )
        return values, fields


def kept_fields_of(
    element_type: Any, columns: Mapping[str, pa.DataType] | None, options: ElementOptions
) -> tuple[tuple[str, pa.DataType], ...]:
    """Name and Arrow type of each field that becomes a column beside ours.

    Args:
      element_type: of the PCollection.
      columns: those that are asked for; None: all that the type names.
      options: the fields' names.

    Raises:
      TypeError: elements of this type have no fields.
      ValueError: a field's type has no counterpart in Arrow.
    """
    kind = native_type_compatibility.convert_to_beam_type(element_type)
    if isinstance(kind, typehints.TupleConstraint):
        raise TypeError(_no_fields("pairs"))
    if columns is not None:
        return tuple((name, normalized_type(kind)) for name, kind in columns.items())
    row = kind if isinstance(kind, RowTypeConstraint) else RowTypeConstraint.from_user_type(kind)
    if row is None:
        return ()
    left_out = {options.prefix + name for name in LABEL_FIELDS} | {options.uri, options.image}
    found = []
    for name, field_type in row._fields:
        if name not in left_out:
            found.append((name, _arrow_type(name, field_type)))
    return tuple(found)


def _arrow_type(name: str, field_type: Any) -> pa.DataType:
    schema = schemas.named_fields_to_schema([(name, field_type)])
    try:
        return normalized_type(arrow_schema_from_beam_schema(schema).field(0).type)
    except (KeyError, ValueError, TypeError, NotImplementedError) as error:
        raise ValueError(
            f"WriteLabels: the field {name!r} is of the type {field_type}, which Arrow has no counterpart of: name "
            f"the fields to keep in columns, with their Arrow types ({error})"
        ) from error


def failure_fields(element: Any) -> dict[str, Any]:
    """The fields of a failed element, as they are written: a key of a pair as ``key``, and no bytes of images."""
    if is_pair(element):
        return {"key": element[0], **failure_fields(element[1])}
    fields = fields_of(element) or {}
    shown = {
        name: value for name, value in fields.items() if not isinstance(value, (bytes, bytearray, memoryview))
    }
    return {name: public_uri(value) if isinstance(value, str) else value for name, value in shown.items()}


def _one(value: Any, kind: pa.DataType, name: str) -> pa.Array:
    try:
        return pa.array([value], kind)
    except (pa.ArrowException, TypeError, OverflowError) as error:
        raise ValueError(
            f"WriteLabels: the field {name!r} does not fit its column, {kind}: {error}"
        ) from error


def _array(values: Any, dtype: type[np.generic]) -> np.ndarray | None:
    return None if values is None else np.asarray(values, dtype)


def _no_fields(what: str) -> str:
    return f"WriteLabels takes elements with fields, not {what}: of pairs take the values first, by beam.Values()"
