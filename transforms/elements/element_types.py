"""The type of the input elements → the types of the results, for Beam's type checks and schemas."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, ForwardRef, NamedTuple, get_args, get_origin, get_type_hints

import apache_beam as beam
from apache_beam.io.fileio import ReadableFile
from apache_beam.typehints import native_type_compatibility, typehints
from apache_beam.typehints.row_type import RowTypeConstraint

from beamlabel.transforms.elements.references import ElementOptions, no_image, taken_names
from beamlabel.transforms.elements.result_types import FAILURE_FIELDS, FailedImage, LabeledImage
from beamlabel.transforms.records import Failure, ImageRef, LoadedImage
from beamlabel.transforms.rows.schema import OutputSpec

_BARE = (
    str,
    bytes,
    bytearray,
    memoryview,
    os.PathLike,
    ReadableFile,
    ImageRef,
    type(None),
    LoadedImage,
    Failure,
)


_MAPPINGS = (typehints.DictConstraint, typehints.MappingHint.MappingTypeConstraint)


class ResultTypes(NamedTuple):
    """The types of predictions and of failures, for ``with_output_types``."""

    prediction: Any
    failure: Any


def result_types(element_type: Any, options: ElementOptions, spec: OutputSpec) -> ResultTypes:
    """The types of the results for a type of elements.

    Args:
      element_type: a PCollection's ``element_type``.
      options: the fields of the image, and the prefix of the added fields.
      spec: the fields of a prediction.

    Raises:
      TypeError: elements of this type hold no image, or lack the fields of the URI or the image.
      ValueError: the type has a field of the same name as an added one; names ``prefix``.
    """
    if get_origin(element_type) is Annotated:
        element_type = get_args(element_type)[0]
    kind = native_type_compatibility.convert_to_beam_type(element_type)
    if isinstance(kind, typehints.AnyTypeConstraint):
        return ResultTypes(typehints.Any, typehints.Any)
    if isinstance(kind, typehints.UnionConstraint):
        return _union_types(kind, options, spec)
    if isinstance(kind, typehints.TupleConstraint) and len(kind.tuple_types) == 2:
        key, value = kind.tuple_types
        inner = result_types(value, options, spec)
        return ResultTypes(typehints.Tuple[key, inner.prediction], typehints.Tuple[key, inner.failure])
    fields = None if kind in _BARE else _fields_of_type(kind)
    if fields is not None:
        return _row_types(fields, options, spec)
    if isinstance(kind, _MAPPINGS) or (isinstance(kind, type) and issubclass(kind, Mapping)):
        of_keys = kind.key_type if isinstance(kind, _MAPPINGS) else typehints.Any
        of_dict = typehints.Dict[str if of_keys is str else typehints.Any, typehints.Any]
        return ResultTypes(of_dict, of_dict)
    # A tuple of any length may be a pair.
    if kind in (object, beam.Row) or isinstance(kind, typehints.TupleSequenceConstraint):
        return ResultTypes(typehints.Any, typehints.Any)
    if isinstance(kind, type) and issubclass(kind, _BARE):
        return ResultTypes(LabeledImage, FailedImage)
    raise TypeError(no_image(element_type))


def added_fields(spec: OutputSpec) -> tuple[str, ...]:
    """The fields of a prediction that a module can fill, in the order of ``LabeledImage``."""
    absent = {"uri"}
    if not spec.has_labels:
        absent |= {"label", "labels"}
    if spec.num_classes is None:
        absent |= {"score", "class_ids", "scores"}
    if spec.embedding_dim is None:
        absent |= {"embedding"}
    return tuple(name for name in LabeledImage._fields if name not in absent)


def _union_types(kind: Any, options: ElementOptions, spec: OutputSpec) -> ResultTypes:
    parts = set(kind.inner_types())
    found = {result_types(part, options, spec) for part in parts - {type(None)}}
    if len(found) != 1:
        return ResultTypes(typehints.Any, typehints.Any)
    (of_others,) = found
    # None fails like a bare element: as a FailedImage beside the dicts or rows.
    if type(None) in parts and of_others.failure is not FailedImage:
        return ResultTypes(of_others.prediction, typehints.Any)
    return of_others


def _fields_of_type(kind: Any) -> list[tuple[str, Any]] | None:
    """Names and types of a row's fields; None for any other kind.

    Beam itself has no schema for some rows: frozen dataclasses that are not registered, ``collections.namedtuple``,
    and classes derived from a NamedTuple. Their results have one.
    """
    if isinstance(kind, RowTypeConstraint):
        fields = list(kind._fields)
        postponed = any(isinstance(of_field, (str, ForwardRef)) for _, of_field in fields)
        return _resolved(kind.user_type, [name for name, _ in fields]) if postponed else fields
    if dataclasses.is_dataclass(kind):
        return _resolved(kind, [field.name for field in dataclasses.fields(kind)])
    if isinstance(kind, type) and issubclass(kind, tuple) and hasattr(kind, "_fields"):
        return _resolved(kind, kind._fields)
    return None


def _resolved(user_type: Any, names: Iterable[str]) -> list[tuple[str, Any]]:
    """Fields and types of a class whose annotations may be strings, by ``from __future__ import annotations``."""
    try:
        hints = get_type_hints(user_type)
    except (NameError, TypeError):  # a name local to a function, or one that only type checkers import
        hints = {}
    return [(name, hints.get(name, Any)) for name in names]


def _row_types(row: list[tuple[str, Any]], options: ElementOptions, spec: OutputSpec) -> ResultTypes:
    fields = [(name, _schema_type(kind)) for name, kind in row]
    names = [name for name, _ in fields]
    for argument in ("image",) if options.image else ("uri",):
        wanted = getattr(options, argument)
        if wanted not in names:
            raise TypeError(
                f"{argument}={wanted!r}: the elements have no such field; their fields are {', '.join(names)}"
            )
    if taken := taken_names(names, options.prefix):
        raise ValueError(
            f"prefix={options.prefix!r}: the elements already have a field {taken[0]!r}, which a result adds; "
            "set prefix to rename the added fields"
        )
    labeled, failed = get_type_hints(LabeledImage), get_type_hints(FailedImage)
    # A row has a field only if the module fills it, so the field is never null.
    required = {
        name: _without_none(labeled[name]) for name in ("label", "score", "labels", "class_ids", "scores")
    }
    required["embedding"] = _without_none(labeled["embedding"])
    labeled |= required
    return ResultTypes(
        RowTypeConstraint.from_fields(
            [*fields, *((options.prefix + name, labeled[name]) for name in added_fields(spec))]
        ),
        RowTypeConstraint.from_fields(
            [*fields, *((options.prefix + name, failed[name]) for name in FAILURE_FIELDS)]
        ),
    )


def _schema_type(kind: Any) -> Any:
    """The type in a form for Beam's schemas, which turn ``str | None`` into pickled Python, not a nullable string."""
    beam_type = native_type_compatibility.convert_to_beam_type(kind)
    # Of a union of several types, schemas pick one and fail on values of the others.
    union = isinstance(beam_type, typehints.UnionConstraint)
    if union and len(set(beam_type.inner_types()) - {type(None)}) > 1:
        return Any
    return native_type_compatibility.convert_to_python_type(beam_type)


def _without_none(kind: Any) -> Any:
    (inner,) = (part for part in get_args(kind) if part is not type(None))
    return inner
