"""An element of any kind → the reference to its image."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import apache_beam as beam
from apache_beam.io.fileio import ReadableFile
from apache_beam.utils.windowed_value import WindowedValue

from beamlabel.transforms.elements.result_types import FAILURE_FIELDS, LABEL_FIELDS
from beamlabel.transforms.inputs.uri_length import too_long, too_many_bytes
from beamlabel.transforms.loading.not_found import shown_uri
from beamlabel.transforms.records import Failure, ImageError, ImageRef, Opened, Origin, Reason, Stage
from beamlabel.transforms.storage.uris import resolve

KINDS = (
    "a URI (str or Path), the bytes of an image, a dict, a beam.Row, a NamedTuple, a dataclass, "
    "a fileio.ReadableFile, or a pair of a key and one of these"
)


@dataclasses.dataclass(frozen=True)
class ElementOptions:
    """The fields of the image in an element, and the names of the added fields.

    Attributes:
      uri: field of the URI, in dicts and rows.
      image: field of the encoded image's bytes, in dicts and rows; None: no such field. If its value is null, the URI
        is used.
      base_dir: directory of relative paths: a local one, or a URI such as ``gs://bucket/directory``.
      prefix: before the name of each field that is added to dicts and rows.

    Raises:
      ValueError: a name is empty, or not text.
    """

    uri: str = "uri"
    image: str | None = None
    base_dir: str = ""
    prefix: str = ""

    def __post_init__(self) -> None:
        for name in ("uri", "image"):
            value = getattr(self, name)
            if value is None and name == "image":
                continue
            if not isinstance(value, str) or not value:
                raise ValueError(f"{name} must be the name of a field, not {value!r}")
        if not isinstance(self.prefix, str):
            raise ValueError(f"prefix must be text, not {self.prefix!r}")
        if self.prefix and not self.prefix.isidentifier():
            raise ValueError(
                f"prefix must be letters, digits and underscores, without a digit first, not {self.prefix!r}"
            )
        if self.uri == self.image:
            raise ValueError(f"uri and image must be different fields, not both {self.uri!r}")
        if not isinstance(self.base_dir, str):
            raise ValueError(f"base_dir must be a directory or a URI, not {self.base_dir!r}")


def no_image(kind: Any) -> str:
    """The error message for a type that holds no image, with advice for some types."""
    name = getattr(kind, "__name__", str(kind))
    advice = {
        "FileMetadata": "; put fileio.ReadMatches() before LabelImages",
        "ndarray": "; for arrays of pixels use RunInference(ModelHandler(module))",
    }
    return f"elements of type {name} hold no image; expected {KINDS}{advice.get(name, '')}"


def reference(element: Any, options: ElementOptions, timestamp: Any = None) -> ImageRef | Failure:
    """The reference to an element's image; a ``Failure`` if the element names none.

    Args:
      element: of the kinds in ``KINDS``; None gives a failure. An ``ImageRef`` is used as it is.
      options: the fields of the image.
      timestamp: the element's.

    Raises:
      TypeError: the element is of another kind.
    """
    origin = Origin(element, timestamp)
    value = bare(element)
    if isinstance(value, ImageRef):
        return dataclasses.replace(value, origin=origin)
    try:
        uri, data = _source(value, options)
    except ImageError as error:
        return Failure(_shown(value, options), "", error.stage, error.reason, error.detail, origin=origin)
    name = uri or ""
    return ImageRef(
        name,
        shown_uri(name),
        "" if data is not None else resolve(name, options.base_dir),
        data=data,
        origin=origin,
    )


def bare(element: Any) -> Any:
    """The element without its keys: the value of a pair, also of nested pairs."""
    while is_pair(element):
        element = element[1]
    return element


def is_pair(element: Any) -> bool:
    """Whether it is a pair of a key and a value, and no row."""
    return isinstance(element, tuple) and len(element) == 2 and not hasattr(element, "_fields")


def fields_of(value: Any) -> dict[str, Any] | None:
    """The fields of a dict or a row, in their order; None for any other kind."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, beam.Row):
        return dict(value.as_dict())
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return dict(zip(value._fields, value, strict=True))
    if dataclasses.is_dataclass(value) and not isinstance(value, (type, ImageRef)):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    return None


def _source(value: Any, options: ElementOptions) -> tuple[str | None, bytes | None]:
    """The URI and the bytes of an element's image; at least one of the two is set.

    Raises:
      ImageError: it has neither.
      TypeError: its kind holds no image.
    """
    if value is None:
        raise _refused(Reason.NULL_URI, "the element is None")
    if isinstance(value, (str, os.PathLike)):
        return _uri(value, "the element"), None
    if isinstance(value, (bytes, bytearray, memoryview)):
        return None, bytes(value)
    if isinstance(value, ReadableFile):
        return _uri(value.metadata.path, "the file's path"), None
    fields = fields_of(value)
    if fields is None:
        raise TypeError(no_image(type(value)))
    _check_free(fields, options)
    return _source_of_fields(fields, options)


def _source_of_fields(fields: Mapping[str, Any], options: ElementOptions) -> tuple[str | None, bytes | None]:
    data = fields.get(options.image) if options.image else None
    uri = fields.get(options.uri)
    if not _is_null(data):
        if not isinstance(data, (bytes, bytearray, memoryview)):
            detail = f"the field {options.image!r} holds {type(data).__name__}, not the bytes of an image"
            raise _refused(Reason.NOT_AN_IMAGE, detail)
        return None if _is_null(uri) else str(uri), bytes(data)
    if options.uri not in fields:
        raise _refused(
            Reason.NULL_URI, f"the element has no field {options.uri!r}; set uri to the name of its field"
        )
    return _uri(uri, f"the field {options.uri!r}"), None


def _uri(value: Any, place: str) -> str:
    if _is_null(value):
        raise _refused(Reason.NULL_URI, f"{place} is null")
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if isinstance(value, (bytes, bytearray)):
        try:
            value = value.decode()
        except UnicodeDecodeError as error:
            raise _refused(Reason.INVALID_URI, f"{place} is not UTF-8: {error.reason}") from error
    if not isinstance(value, str):
        raise _refused(Reason.INVALID_URI, f"{place} has the type {type(value).__name__}, not text")
    if not value:
        raise _refused(Reason.NULL_URI, f"{place} is empty")
    if (size := too_many_bytes(value)) is not None:
        raise _refused(Reason.URI_TOO_LONG, too_long(size))
    return value


def _is_null(value: Any) -> bool:
    # pandas writes NaN for missing text.
    return value is None or (isinstance(value, float) and math.isnan(value))


def _check_free(fields: Mapping[str, Any], options: ElementOptions) -> None:
    taken = taken_names(fields, options.prefix)
    if taken:
        detail = (
            f"the element already has a field {taken[0]!r}, which a result adds; set prefix to rename the added "
            "fields"
        )
        raise _refused(Reason.FIELD_TAKEN, detail)


def taken_names(fields: Iterable[str], prefix: str) -> list[str]:
    """The names that a result would add, too."""
    added = {prefix + name for name in (*LABEL_FIELDS, *FAILURE_FIELDS)}
    return [name for name in fields if name in added]


def _refused(reason: Reason, detail: str) -> ImageError:
    return ImageError(Stage.OPEN, reason, detail)


def _shown(value: Any, options: ElementOptions) -> str | None:
    """A failed element's URI, if it has one that is text."""
    if not isinstance(value, str):
        fields = fields_of(value) or {}
        value = fields.get(options.uri)
    if not isinstance(value, str) or not value or too_many_bytes(value) is not None:
        return None
    return shown_uri(value)


class _ToReferences(beam.DoFn):
    def __init__(self, options: ElementOptions) -> None:
        self._options = options

    def process(
        self, element: Any, timestamp: Any = beam.DoFn.TimestampParam, window: Any = beam.DoFn.WindowParam
    ) -> Iterator[WindowedValue]:
        yield WindowedValue(reference(element, self._options, timestamp), timestamp, (window,))


class ToReferences(beam.PTransform):
    """Elements of any kind → ``ImageRef`` or ``Failure``, each with the element as its ``origin``.

    Args:
      options: the fields of the image.
    """

    def __init__(self, options: ElementOptions) -> None:
        super().__init__()
        self._options = options

    def expand(self, elements: beam.PCollection[Any]) -> beam.PCollection[Opened]:
        return elements | beam.ParDo(_ToReferences(self._options)).with_output_types(Opened)
