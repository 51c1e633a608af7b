"""Turns decoded images into predictions: the model handler that Beam's RunInference drives."""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from apache_beam.metrics import Metrics
from apache_beam.ml.inference.base import ModelHandler

from beamlabel.transforms.deadline import timeouts
from beamlabel.transforms.deadline.watchdog import watched
from beamlabel.transforms.inference.artifact import LINEAR
from beamlabel.transforms.inference.engines import Engine, open_engine
from beamlabel.transforms.inference.options import PredictOptions, fitted
from beamlabel.transforms.inference.relabel import relabel_rows
from beamlabel.transforms.inference.top_k import l2_normalized, top_k
from beamlabel.transforms.prediction_blocks import one_by_one
from beamlabel.transforms.records import (
    Block,
    EmbeddedRows,
    Failure,
    Labeled,
    Loaded,
    LoadedImage,
    Prediction,
    PredictionBlock,
    Reason,
    Skipped,
    Stage,
    UnitEnd,
    unknown_element,
)
from beamlabel.transforms.row_batches import places_in_batch
from beamlabel.transforms.secrets.logs import get_logger
from beamlabel.transforms.storage.billing import set_billing_project
from beamlabel.transforms.storage.uris import public_uri
from beamlabel.transforms.worker import metrics

_DETAIL_CHARACTERS = 1000

_LOGGER = get_logger(__name__)


def predict(
    images: Sequence[LoadedImage], engine: Engine, options: PredictOptions
) -> list[Prediction | Failure]:
    """One prediction or failure per image, in order.

    Raises:
      WishError: the module does not allow a value of the options.
    """
    outcomes: list[Prediction | Failure] = []
    for part in predict_blocks(images, engine, options):
        predictions = iter(one_by_one(part.block))
        count = len(part.block) + len(part.failures)
        outcomes += [part.failures.get(place) or next(predictions) for place in range(count)]
    return outcomes


class PredictedImages(NamedTuple):
    """The outcomes of some images.

    Attributes:
      block: the predictions, in the order of their images.
      failures: the failures of the other images, by their index among the images.
    """

    block: PredictionBlock
    failures: dict[int, Failure]


def predict_blocks(
    images: Sequence[LoadedImage], engine: Engine, options: PredictOptions
) -> list[PredictedImages]:
    """Computes the outcomes of images in order, in one block for all or in one for each.

    If a batch raises, its images are tried again one by one, so that one bad image only fails itself. An image whose
    outputs are not finite numbers fails. A batch that hangs ends the process, see ``watchdog``; images that were in
    such a batch before are computed one by one.

    Raises:
      WishError: the module does not allow a value of the options.
    """
    if not images:
        return []
    if options.is_open:
        options = fitted(options, engine.spec)
    runs = timeouts.runs(images)
    if len(runs) > 1:
        return [part for run in runs for part in predict_blocks(run, engine, options)]
    try:
        return [_predict_batch(images, engine, options)]
    except Exception as error:
        if len(images) == 1:
            failure = _failure(images[0], f"{type(error).__name__}: {error}")
            return [PredictedImages(PredictionBlock([], []), {0: failure})]
        _LOGGER.warning("A batch of %d images failed (%s); trying them one by one", len(images), error)
        return [part for image in images for part in predict_blocks([image], engine, options)]


def _predict_batch(images: Sequence[LoadedImage], engine: Engine, options: PredictOptions) -> PredictedImages:
    with watched(images, options.deadline):
        logits, features = engine([image.pixels for image in images])
    finite = np.ones(len(images), bool)
    ids = scores = labels = embeddings = None
    if logits is not None and options.top_k:
        finite &= np.isfinite(logits).all(axis=1)
        ids, scores = top_k(logits, options.top_k, options.scores)
        if options.class_names is not None:
            labels = _name_array(options.class_names)[ids]
    if features is not None and options.embeddings:
        finite &= np.isfinite(features).all(axis=1)
        embeddings = l2_normalized(features) if options.normalize_embeddings else features
    block = PredictionBlock(
        [image.ref for image in images],
        [image.info for image in images],
        ids,
        scores,
        labels,
        embeddings,
        engine.computed_by,
        [image.pixels for image in images] if options.keep_pixels else None,
    )
    if finite.all():
        return PredictedImages(block, {})
    detail = "the module's output has NaN or infinity"
    failures = {place: _failure(images[place], detail) for place in np.flatnonzero(~finite).tolist()}
    return PredictedImages(block.take(np.flatnonzero(finite).tolist()), failures)


@functools.lru_cache(maxsize=4)
def _name_array(names: tuple[str, ...]) -> np.ndarray:
    """Class names as object[C]."""
    array = np.empty(len(names), object)
    array[:] = names
    return array


def _failure(image: LoadedImage, detail: str) -> Failure:
    ref = image.ref
    # TensorFlow's messages have many lines, and the informative one is not the first.
    one_line = " ".join(detail.split())
    if len(one_line) > _DETAIL_CHARACTERS:
        one_line = f"{one_line[:200]} … {one_line[-_DETAIL_CHARACTERS + 200 :]}"
    uri = public_uri(ref.uri)
    return Failure(
        uri,
        ref.ref_id,
        Stage.INFERENCE,
        Reason.INFERENCE_ERROR,
        one_line,
        ref.row,
        ref.unit_id,
        ref.image_id,
        image.info.source_bytes,
        image.info.source_version,
        image.info.content_hash,
        ref.origin,
    )


class HubModelHandler(ModelHandler[Loaded, Labeled, Engine]):
    """Opens the staged artifact once per worker process and labels batches of one size with it.

    Elements carry their identity, so the handler is unkeyed. It hands failures and unit ends among the elements
    through, and drops pixels unless asked to keep them. ``EmbeddedRows`` are a batch of their own, and the head labels
    all their rows.

    Args:
      options: the artifact, and the prediction options.
      in_blocks: whether the elements are ``Block``s, as in the job: each is a batch and yields one ``Block``.
    """

    def __init__(self, options: PredictOptions, *, in_blocks: bool = False) -> None:
        super().__init__(
            min_batch_size=options.batch_size,
            max_batch_size=options.batch_size,
            element_size_fn=functools.partial(_places, options.batch_size),
        )
        self._options = options
        self._in_blocks = in_blocks

    def should_skip_batching(self) -> bool:
        """Whether elements are batches already, which blocks are."""
        return self._in_blocks

    def load_model(self) -> Engine:
        """Opens the artifact; Beam's ``Shared`` keeps one for all threads of the process."""
        options = self._options
        if options.billing_project is not None:  # no step before this one may have set it yet
            set_billing_project(options.billing_project)
        with watched((), options.deadline):
            engine = open_engine(options.artifact_path, options.artifact_sha256, options.worker_threads)
        # A misfit ends the run, instead of failing each image.
        fitted(options, engine.spec)
        if options.head is not None:
            engine.head = open_engine(options.head.path, options.head.sha256)
        elif engine.spec.engine == LINEAR:
            engine.head = engine
        return engine

    def run_inference(
        self, batch: Sequence[Loaded], model: Engine, inference_args: Mapping[str, Any] | None = None
    ) -> list[Labeled]:
        """One outcome per element, in order; for ``EmbeddedRows`` the labeled rows, then the other rows' failures.

        A ``Block`` yields one ``Block`` with everything, the predictions as ``PredictionBlock``s.

        Returns a list, because Beam counts errors that are raised while it is created.

        Raises:
          TypeError: an element is neither an image nor of a type that is handed through.
        """
        for element in batch:
            if not isinstance(element, (LoadedImage, EmbeddedRows, Failure, Skipped, UnitEnd)):
                raise TypeError(unknown_element("Predict", element, LoadedImage, Failure, UnitEnd))
        images = [element for element in batch if isinstance(element, LoadedImage)]
        outcomes = self._block(batch, images, model) if self._in_blocks else self._each(batch, images, model)
        if images or any(isinstance(element, EmbeddedRows) for element in batch):
            predicted_at = Metrics.distribution(metrics.NAMESPACE, metrics.PREDICTED_AT_MSEC)
            predicted_at.update(round(time.time() * 1e3))
        return outcomes

    def _each(self, batch: Sequence[Loaded], images: list[LoadedImage], model: Engine) -> list[Labeled]:
        """Outcomes in the order of the batch: wrappers such as Beam's KeyedModelHandler match them by their
        positions."""
        predicted = iter(predict(images, model, self._options))
        outcomes: list[Labeled] = []
        for element in batch:
            if isinstance(element, LoadedImage):
                outcomes.append(next(predicted))
            elif isinstance(element, EmbeddedRows):
                outcomes += relabel_rows(element, model, self._options)
            else:
                outcomes.append(element)
        return outcomes

    def _block(self, batch: Sequence[Loaded], images: list[LoadedImage], model: Engine) -> list[Any]:
        """All outcomes in one element, in any order."""
        outcomes = Block()
        for block, failures in predict_blocks(images, model, self._options):
            if len(block):
                outcomes.append(block)
                outcomes.nbytes += block.nbytes
            outcomes += failures.values()
        for element in batch:
            if isinstance(element, EmbeddedRows):
                outcomes += relabel_rows(element, model, self._options)
            elif not isinstance(element, LoadedImage):
                outcomes.append(element)
        return [outcomes]

    def get_num_bytes(self, batch: Sequence[Loaded]) -> int:
        """Bytes of pixels, and of rows with known features, in a batch."""
        pixels = sum(element.pixels.nbytes for element in batch if isinstance(element, LoadedImage))
        return pixels + sum(element.batch.nbytes for element in batch if isinstance(element, EmbeddedRows))

    def get_metrics_namespace(self) -> str:
        """The namespace of RunInference's own metrics."""
        return "beamlabel.RunInference"


def _places(batch_size: int, element: Loaded) -> int:
    """How many places of a batch an element takes; rows with known features take all of them."""
    if isinstance(element, LoadedImage):
        return places_in_batch(batch_size, element.pixels.nbytes)
    return batch_size if isinstance(element, EmbeddedRows) else 1
