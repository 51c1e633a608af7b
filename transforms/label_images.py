"""The labeling steps as one transform, for pipelines of one's own."""

from __future__ import annotations

from typing import NamedTuple

import apache_beam as beam

from beamlabel.transforms.derive import fit
from beamlabel.transforms.inference.artifact import ModuleError
from beamlabel.transforms.inference.engines import read_spec
from beamlabel.transforms.inference.options import PredictOptions
from beamlabel.transforms.inference.predict import Predict
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
        derived = derive(artifact, top_k=3)
        labeled = uris | LabelImages(LoadOptions(FetchOptions(), derived.decode), derived.predict)
        labeled.predictions | ...
        labeled.failures | ...

    Args:
      load: how images are loaded.
      predict: the artifact, and how predictions are made; what is open the artifact decides, now if it can be
        read here.
      base_dir: what relative paths are relative to.

    Raises:
      WishError: the module does not allow what ``predict`` says.
      ValueError: images are decoded to another size than the module takes.
    """

    def __init__(self, load: LoadOptions, predict: PredictOptions, *, base_dir: str = "") -> None:
        super().__init__()
        self._load = load
        self._predict = _fitted(load, predict)
        self._base_dir = base_dir

    def expand(self, images: beam.PCollection[str | ImageRef]) -> LabeledImages:
        split = (
            images
            | "ToRef" >> beam.Map(to_ref, self._base_dir).with_output_types(ImageRef)
            | Label(self._load, self._predict)
            | "Split" >> beam.Map(_tagged).with_outputs(_FAILURES, main="predictions")
        )
        return LabeledImages(split.predictions, split[_FAILURES])


def _fitted(load: LoadOptions, predict: PredictOptions) -> PredictOptions:
    try:
        spec = read_spec(predict.artifact_path, predict.artifact_sha256)
    except (OSError, ModuleError):
        # Workers may read what this machine cannot.
        return predict
    if (load.decode.height, load.decode.width) != (spec.height, spec.width):
        raise ValueError(
            f"load: images of {load.decode.height}x{load.decode.width} (height x width), the module takes "
            f"{spec.height}x{spec.width}"
        )
    return fit(predict, spec)


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
