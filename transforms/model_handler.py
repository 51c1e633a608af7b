"""A module as a model handler for Beam's RunInference, for pipelines that already have pixels."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Union

import numpy as np
from apache_beam.ml.inference.base import ModelHandler as BeamModelHandler
from apache_beam.ml.inference.base import PredictionResult

from beamlabel.transforms import storage
from beamlabel.transforms.arguments import checked_arguments, checked_wait
from beamlabel.transforms.decoding.resize import Target, resized
from beamlabel.transforms.derive import Derived
from beamlabel.transforms.elements.result_types import FailedImage, failure_values
from beamlabel.transforms.inference.artifact import Artifact
from beamlabel.transforms.inference.engines import Engine, open_engine
from beamlabel.transforms.inference.options import AUTO
from beamlabel.transforms.inference.predict import predict
from beamlabel.transforms.module_artifact import (
    ARTIFACT_SUFFIX,
    artifact_of,
    checked_directory,
    derive_module,
    stage,
)
from beamlabel.transforms.module_process.limits import DEADLINE_SECONDS
from beamlabel.transforms.records import (
    Failure,
    ImageInfo,
    ImageRef,
    LoadedImage,
    Prediction,
    unknown_element,
)

Image = Union[np.ndarray, LoadedImage, Failure]


class LoadedModel:
    """An engine and its settings; an object, since Beam's ``Shared`` holds it by a weak reference."""

    def __init__(self, engine: Engine, derived: Derived, model_id: str) -> None:
        self.engine, self.derived, self.model_id = engine, derived, model_id


class ModelHandler(BeamModelHandler[Image, PredictionResult, LoadedModel]):
    """Runs a module on images: ``images | RunInference(ModelHandler(module))``.

    An image is a uint8[H, W, 3] array, RGB, of any size, or a ``LoadedImage``; images of another size than the module's
    are resized as in the job. Each yields a ``PredictionResult``, in order: ``example`` is the image, ``model_id`` the
    module, and ``inference`` a dict with those of these values that the module has:

    - ``class_ids``: int32[k], best first; ``scores``: float32[k]; ``labels``: k names;
    - ``score``, ``label``: of the best class;
    - ``embedding``: float32[D].

    If the module fails on an image, its ``inference`` is a ``FailedImage``; the other images of its batch succeed. A
    ``Failure`` of ``LoadImages`` yields a ``FailedImage`` too.

    It works inside ``KeyedModelHandler``, and with ``RunInference(model_metadata_pcoll=...)``: the ``model_id`` of the
    metadata names a module, or an artifact of ``save_artifact``, which workers open without TensorFlow.

    Args:
      module, top_k, class_names, embeddings, scores, normalize_embeddings, crop: see ``LabelImages``.
      logits_output, features_output, image_size, input_range, engine, precision: see ``LabelImages``.
      module_fingerprint, allow_unsafe_ops, module_deadline, module_memory: see ``LabelImages``.
      batch_size, worker_threads: see ``LabelImages``.
      max_batch_duration_secs: for streams: maximum seconds that an image waits for others, to form a batch.
      artifact_dir: directory that all workers can read; the compiled module is copied there. It is needed if workers
        run on other machines.

    Attributes:
      image_size: (height, width) of the module's input in pixels, for ``LoadImages``.

    Raises:
      ModuleError, WishError, ValueError: see ``LabelImages``.
      TypeError: (when a pipeline runs) an element is not an image.
    """

    @checked_arguments
    def __init__(
        self,
        module: str | os.PathLike[str],
        *,
        top_k: int | None = 5,
        class_names: Sequence[str] | str | os.PathLike[str] | None = None,
        embeddings: bool = True,
        scores: str = AUTO,
        normalize_embeddings: bool = False,
        crop: float | None = None,
        logits_output: str | None = None,
        features_output: str | None = None,
        image_size: tuple[int, int] | None = None,
        input_range: tuple[float, float] | None = None,
        engine: str = AUTO,
        precision: str = "float32",
        module_fingerprint: str | None = None,
        allow_unsafe_ops: bool = False,
        module_deadline: float = DEADLINE_SECONDS,
        module_memory: int | None = None,
        batch_size: int = 128,
        worker_threads: int | None = None,
        max_batch_duration_secs: float | None = None,
        artifact_dir: str | os.PathLike[str] | None = None,
    ) -> None:
        self._compile: dict[str, Any] = {
            "logits_output": logits_output,
            "features_output": features_output,
            "image_size": image_size,
            "input_range": input_range,
            "engine": engine,
            "precision": precision,
            "module_fingerprint": module_fingerprint,
            "allow_unsafe_ops": allow_unsafe_ops,
            "module_deadline": module_deadline,
            "module_memory": module_memory,
        }
        self._wishes: dict[str, Any] = {
            "top_k": top_k,
            "class_names": class_names,
            "embeddings": embeddings,
            "scores": scores,
            "normalize_embeddings": normalize_embeddings,
            "crop": crop,
            "batch_size": batch_size,
            "worker_threads": worker_threads,
        }
        directory = checked_directory(artifact_dir)
        self._artifact = artifact_of(module, **self._compile)
        spec = derive_module(self._artifact, **self._wishes).spec
        self.image_size = (spec.height, spec.width)
        self._model_id = spec.handle
        self._newer: str | None = None
        if directory is not None:
            self._artifact = Artifact(stage(self._artifact, directory), self._artifact.sha256, spec)
        super().__init__(
            min_batch_size=batch_size,
            max_batch_size=batch_size,
            max_batch_duration_secs=checked_wait(max_batch_duration_secs),
        )

    def save_artifact(self, path: str | os.PathLike[str]) -> None:
        """Writes the compiled module to a file: workers open it without TensorFlow, the hub or the module.

        Args:
          path: local or remote path that ends in ``.beamlabel``.

        Raises:
          ValueError: the path has another ending.
          OSError: the file cannot be written.
        """
        path = os.fspath(path)
        if not path.endswith(ARTIFACT_SUFFIX):
            raise ValueError(f"path must end in {ARTIFACT_SUFFIX}, not {path!r}")
        storage.write_bytes(storage.absolute(path), storage.read_bytes(self._artifact.path))

    def load_model(self) -> LoadedModel:
        """Opens the artifact, or the newer module that RunInference has named."""
        artifact = self._artifact if self._newer is None else artifact_of(self._newer, **self._compile)
        derived = derive_module(artifact, **self._wishes)
        engine = open_engine(artifact.path, artifact.sha256, derived.predict.worker_threads)
        return LoadedModel(engine, derived, self._newer or self._model_id)

    def run_inference(
        self,
        batch: Sequence[Image],
        model: LoadedModel,
        inference_args: Mapping[str, Any] | None = None,
    ) -> list[PredictionResult]:
        """One result per image, in order.

        Raises:
          TypeError: an element is neither a uint8[H, W, 3] array nor a ``LoadedImage``.
        """
        images = [_loaded(image, model.derived) for image in batch if not isinstance(image, Failure)]
        predicted = iter(predict(images, model.engine, model.derived.predict))
        outcomes = [image if isinstance(image, Failure) else next(predicted) for image in batch]
        return [
            PredictionResult(image, _inference(outcome), model.model_id)
            for image, outcome in zip(batch, outcomes, strict=True)
        ]

    def validate_inference_args(self, inference_args: dict[str, Any] | None) -> None:
        """Refuses inference arguments; Beam calls this when the pipeline is built.

        Raises:
          ValueError: there are inference arguments.
        """
        if inference_args:
            raise ValueError(f"inference_args must be empty, not {sorted(inference_args)}")

    def update_model_path(self, model_path: str | None = None) -> None:
        """Sets a newer model; Beam calls this with its ``model_id``, see ``model_metadata_pcoll``."""
        self._newer = model_path or self._newer

    def get_num_bytes(self, batch: Sequence[Image]) -> int:
        """Bytes of pixels in a batch."""
        arrays = [image.pixels if isinstance(image, LoadedImage) else image for image in batch]
        return sum(array.nbytes for array in arrays if isinstance(array, np.ndarray))

    def get_metrics_namespace(self) -> str:
        """The namespace of RunInference's own metrics."""
        return "beamlabel.RunInference"


def _loaded(image: np.ndarray | LoadedImage, derived: Derived) -> LoadedImage:
    decode = derived.decode
    target = Target(decode.height, decode.width, decode.crop)
    if isinstance(image, LoadedImage):
        return LoadedImage(image.ref, resized(image.pixels, target), image.info)
    if not isinstance(image, np.ndarray):
        advice = "use KeyedModelHandler(ModelHandler(module)) for pairs, and LabelImages for URIs and files"
        raise TypeError(f"{unknown_element('ModelHandler', image, np.ndarray, LoadedImage)}; {advice}")
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise TypeError(
            f"ModelHandler takes images as uint8[height, width, 3], not {image.dtype}{list(image.shape)}"
        )
    height, width, _ = image.shape
    return LoadedImage(
        ImageRef("", "", ""), resized(image, target), ImageInfo(width, height, "array", image.nbytes)
    )


def _inference(outcome: Prediction | Failure) -> dict[str, Any] | FailedImage:
    if isinstance(outcome, Failure):
        return FailedImage(uri=None, **failure_values(outcome))
    found = {
        "label": outcome.labels[0] if outcome.labels else None,
        "score": None if outcome.scores is None else float(outcome.scores[0]),
        "labels": outcome.labels,
        "class_ids": outcome.class_ids,
        "scores": outcome.scores,
        "embedding": outcome.embedding,
    }
    return {name: value for name, value in found.items() if value is not None}
