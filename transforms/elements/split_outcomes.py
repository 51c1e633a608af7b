"""Outcomes → the input elements with the fields of a prediction or of a failure added."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import apache_beam as beam
import numpy as np
from apache_beam.io.fileio import ReadableFile
from apache_beam.typehints import typehints
from apache_beam.utils.windowed_value import WindowedValue

from beamlabel.transforms.elements.element_types import ResultTypes, added_fields
from beamlabel.transforms.elements.references import ElementOptions, fields_of, is_pair
from beamlabel.transforms.elements.result_types import FailedImage, LabeledImage, failure_values
from beamlabel.transforms.records import (
    Failure,
    ImageRef,
    Labeled,
    LoadedImage,
    Prediction,
    Reason,
    unknown_element,
)
from beamlabel.transforms.rows.schema import OutputSpec
from beamlabel.transforms.storage.uris import encodable

_FAILURES = "failures"


class LabeledImages(NamedTuple):
    """Two PCollections; each input element is in one of them.

    Attributes:
      predictions: the elements with the fields of ``LabeledImage`` added.
      failures: the elements with the fields of ``FailedImage`` added.
    """

    predictions: beam.PCollection
    failures: beam.PCollection


def labeled_element(prediction: Prediction, spec: OutputSpec, options: ElementOptions) -> Any:
    """The element of a prediction, with its fields added.

    Bare elements become a ``LabeledImage``, pairs keep their key, dicts stay dicts, and rows become a ``beam.Row`` of
    the same fields and ours.
    """
    values = _label_values(prediction, spec)
    names = added_fields(spec)
    element = _element(prediction.ref)
    return _with_fields(
        element, {name: values[name] for name in names}, options, lambda uri: LabeledImage(uri, **values)
    )


def failed_element(failure: Failure, options: ElementOptions) -> Any:
    """The element of a failure, with its fields added; see ``labeled_element``.

    A dict that already has one of the names (reason ``field_taken``) becomes the value of the field ``element``.
    """
    values = failure_values(failure)
    element = failure.uri if failure.origin is None else failure.origin.element
    if failure.reason is Reason.FIELD_TAKEN:
        return _around(element, {options.prefix + name: value for name, value in values.items()})
    return _with_fields(element, values, options, lambda uri: FailedImage(uri, **values))


def _label_values(prediction: Prediction, spec: OutputSpec) -> dict[str, Any]:
    info, labels = prediction.info, prediction.labels
    scores = _numbers(prediction.scores)
    return {
        "image_id": prediction.ref.image_id,
        "label": labels[0] if labels else None,
        "score": scores[0] if scores else None,
        "labels": list(labels) if labels else None,
        "class_ids": _numbers(prediction.class_ids),
        "scores": scores,
        "embedding": _numbers(prediction.embedding),
        "width": info.width,
        "height": info.height,
        "format": info.format,
        "source_bytes": info.source_bytes,
        "source_version": None if info.source_version is None else encodable(info.source_version),
        "content_hash": info.content_hash,
        "module_handle": spec.module_handle,
        "module_fingerprint": spec.module_fingerprint,
        "preprocessing_id": spec.preprocessing_id,
    }


def _numbers(array: np.ndarray | None) -> list[Any] | None:
    """The array as Python numbers, which JSON, BigQuery and every Beam coder accept."""
    return None if array is None else array.tolist()


def _element(ref: ImageRef) -> Any:
    return ref if ref.origin is None else ref.origin.element


def _with_fields(
    element: Any, values: Mapping[str, Any], options: ElementOptions, make: Callable[[str | None], Any]
) -> Any:
    if is_pair(element):
        return (element[0], _with_fields(element[1], values, options, make))
    fields = fields_of(element)
    if fields is None:
        return make(_uri(element))
    added = {options.prefix + name: value for name, value in values.items()}
    return {**element, **added} if isinstance(element, Mapping) else beam.Row(**fields, **added)


def _around(element: Any, values: Mapping[str, Any]) -> Any:
    if is_pair(element):
        return (element[0], _around(element[1], values))
    return {"element": element, **values}


def _uri(element: Any) -> str | None:
    """A bare element's URI."""
    if isinstance(element, (ImageRef, LoadedImage)):
        return encodable((element if isinstance(element, ImageRef) else element.ref).uri)
    if element is None or isinstance(element, (bytes, bytearray, memoryview)):
        return None
    return encodable(str(element.metadata.path if isinstance(element, ReadableFile) else element))


class _SplitDoFn(beam.DoFn):
    def __init__(self, spec: OutputSpec, options: ElementOptions) -> None:
        # Workers need only the columns of the spec; its metadata may be long.
        self._spec = dataclasses.replace(spec, metadata={})
        self._options = options

    def process(
        self, outcome: Labeled, timestamp: Any = beam.DoFn.TimestampParam, window: Any = beam.DoFn.WindowParam
    ) -> Iterator[WindowedValue | beam.pvalue.TaggedOutput]:
        origin = outcome.ref.origin if isinstance(outcome, Prediction) else getattr(outcome, "origin", None)
        if origin is not None and origin.timestamp is not None:
            timestamp = origin.timestamp  # RunInference's batches have the end of their window
        if isinstance(outcome, Prediction):
            element = labeled_element(outcome, self._spec, self._options)
            yield WindowedValue(element, timestamp, (window,))
        elif isinstance(outcome, Failure):
            element = failed_element(outcome, self._options)
            yield beam.pvalue.TaggedOutput(_FAILURES, WindowedValue(element, timestamp, (window,)))
        else:
            raise TypeError(unknown_element("SplitOutcomes", outcome, Prediction, Failure))


class SplitOutcomes(beam.PTransform):
    """``Prediction`` and ``Failure`` → ``LabeledImages``, in the form of the input elements.

    Args:
      spec: the fields of a prediction; ``Predict.spec``.
      options: the names of the added fields.
      types: of the results; None: any.
    """

    def __init__(
        self, spec: OutputSpec, options: ElementOptions | None = None, *, types: ResultTypes | None = None
    ) -> None:
        super().__init__()
        self._spec, self._options = spec, options or ElementOptions()
        self._types = types or ResultTypes(typehints.Any, typehints.Any)

    def expand(self, outcomes: beam.PCollection[Labeled]) -> LabeledImages:
        split = outcomes | "Split" >> beam.ParDo(_SplitDoFn(self._spec, self._options)).with_outputs(
            _FAILURES, main="predictions"
        )
        predictions, failures = split.predictions, split[_FAILURES]
        predictions.element_type, failures.element_type = self._types
        return LabeledImages(predictions, failures)
