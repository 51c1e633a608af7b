"""The labeling steps as one transform, for pipelines of one's own."""

from __future__ import annotations

from typing import NamedTuple

import apache_beam as beam

from beamlabel.transforms.inference.predict import Predict, PredictOptions
from beamlabel.transforms.loading.load_images import LoadImages, LoadOptions
from beamlabel.transforms.loading.not_found import shown_uri
from beamlabel.transforms.records import Failure, ImageRef, Labeled, Opened, Prediction, unknown_element
from beamlabel.transforms.storage.uris import resolve

_FAILURES = "failures"


class LabeledImages(NamedTuple):
    """What ``LabelImages`` returns: every input is in one of the two."""

    predictions: beam.PCollection[Prediction]
    failures: beam.PCollection[Failure]


class Label(beam.PTransform):
    """References → predictions and failures in one stream, without a branch that would break fusion.

    The labeling job's middle; ``LabelImages`` is the same with the stream split in two.

    Args:
      load: how images are loaded.
      predict: the artifact, and how predictions are made.
    """

    def __init__(self, load: LoadOptions, predict: PredictOptions) -> None:
        super().__init__()
        self._load = load
        self._predict = predict

    def expand(self, refs: beam.PCollection[Opened]) -> beam.PCollection[Labeled]:
        return refs | "LoadImages" >> LoadImages(self._load) | "Predict" >> Predict(self._predict)


class LabelImages(beam.PTransform):
    """URI strings, or ``ImageRef``s → ``.predictions`` and ``.failures``.

    Example::

        artifact = compiled(resolve_module(handle, cache), CompileOptions(), cache)
        load = LoadOptions(FetchOptions(), DecodeOptions(artifact.spec.height, artifact.spec.width))
        labeled = uris | LabelImages(load, PredictOptions(artifact.path, artifact.sha256))
        labeled.predictions | ...
        labeled.failures | ...

    Args:
      load: how images are loaded.
      predict: the artifact, and how predictions are made.
      base_dir: what relative paths are relative to.
    """

    def __init__(self, load: LoadOptions, predict: PredictOptions, *, base_dir: str = "") -> None:
        super().__init__()
        self._load = load
        self._predict = predict
        self._base_dir = base_dir

    def expand(self, images: beam.PCollection[str | ImageRef]) -> LabeledImages:
        split = (
            images
            | "ToRef" >> beam.Map(to_ref, self._base_dir).with_output_types(ImageRef)
            | Label(self._load, self._predict)
            | "Split" >> beam.Map(_tagged).with_outputs(_FAILURES, main="predictions")
        )
        return LabeledImages(split.predictions, split[_FAILURES])


def to_ref(image: str | ImageRef, base_dir: str = "") -> ImageRef:
    """A URI as a reference; a reference as it is.

    Raises:
      TypeError: it is neither.
    """
    if isinstance(image, ImageRef):
        return image
    if not isinstance(image, str):
        raise TypeError(unknown_element("LabelImages", image, str, ImageRef))
    return ImageRef(image, shown_uri(image), resolve(image, base_dir))


def _tagged(outcome: Prediction | Failure) -> Prediction | beam.pvalue.TaggedOutput:
    if isinstance(outcome, Failure):
        return beam.pvalue.TaggedOutput(_FAILURES, outcome)
    return outcome
