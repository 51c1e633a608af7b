"""Turns decoded images into predictions, with a module on RunInference."""

from __future__ import annotations

import os
from collections.abc import Sequence

import apache_beam as beam
from apache_beam.ml.inference.base import RunInference

from beamlabel.transforms.arguments import checked_arguments
from beamlabel.transforms.decoding.resize import Target, resized
from beamlabel.transforms.inference.options import AUTO, PredictOptions
from beamlabel.transforms.inference.predict import HubModelHandler
from beamlabel.transforms.module_artifact import (
    artifact_of,
    checked_directory,
    derive_module,
    staged,
    with_artifact,
)
from beamlabel.transforms.module_process.limits import DEADLINE_SECONDS
from beamlabel.transforms.output_spec import output_spec_of
from beamlabel.transforms.records import Labeled, Loaded, LoadedImage
from beamlabel.transforms.rows.schema import OutputSpec
from beamlabel.transforms.worker.block_coder import BLOCKS


class Predict(beam.PTransform):
    """Turns each ``LoadedImage`` into a ``Prediction`` or ``Failure``, in one stream.

    ``Failure`` elements in the input are handed through. Images of another size than the module's are resized.
    ``SplitOutcomes`` turns the stream into ``.predictions`` and ``.failures`` in the form of the original elements.

    Args:
      module, top_k, class_names, embeddings, scores, normalize_embeddings: see ``LabelImages``.
      logits_output, features_output, image_size, input_range, engine, precision: see ``LabelImages``.
      module_fingerprint, allow_unsafe_ops, module_deadline, module_memory: see ``LabelImages``.
      batch_size, worker_threads, artifact_dir: see ``LabelImages``.

    Attributes:
      spec: the fields of a prediction, for ``SplitOutcomes``; None if created by ``with_options``.
      image_size: (height, width) of the module's input in pixels, for ``LoadImages``; None if created by
        ``with_options``.

    Raises:
      ModuleError, WishError, ValueError: see ``LabelImages``.
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
        artifact_dir: str | os.PathLike[str] | None = None,
    ) -> None:
        super().__init__()
        self._options: PredictOptions | None = None
        self._in_blocks = False
        self._artifact = artifact_of(
            module, logits_output=logits_output, features_output=features_output, image_size=image_size,
            input_range=input_range, engine=engine, precision=precision, module_fingerprint=module_fingerprint,
            allow_unsafe_ops=allow_unsafe_ops, module_deadline=module_deadline, module_memory=module_memory,
        )  # fmt: skip
        self._artifact_dir = checked_directory(artifact_dir)
        self._derived = derive_module(
            self._artifact, top_k=top_k, scores=scores, class_names=class_names, embeddings=embeddings,
            normalize_embeddings=normalize_embeddings, batch_size=batch_size, worker_threads=worker_threads,
        )  # fmt: skip
        self.spec: OutputSpec | None = output_spec_of(self._derived)
        self.image_size: tuple[int, int] | None = (self._derived.spec.height, self._derived.spec.width)

    @staticmethod
    def with_options(options: PredictOptions, *, in_blocks: bool = False) -> Predict:
        """Creates the transform from options whose artifact workers can open by its path.

        Args:
          options: the artifact, and the prediction options.
          in_blocks: whether the elements are ``Block``s, as in the labeling job; then the output elements are, too.
        """
        return _PredictOf(options, in_blocks=in_blocks)

    def expand(self, images: beam.PCollection[Loaded]) -> beam.PCollection[Labeled]:
        options = self._options
        if options is None:
            path = staged(self._artifact, images.pipeline, self._artifact_dir)
            options, spec = with_artifact(self._derived, path).predict, self._derived.spec
            images = images | "Resize" >> beam.Map(_resized, (spec.height, spec.width)).with_output_types(
                Loaded
            )
        handler = HubModelHandler(options, in_blocks=self._in_blocks)
        return images | RunInference(handler).with_output_types(BLOCKS if self._in_blocks else Labeled)


class _PredictOf(Predict):
    def __init__(self, options: PredictOptions, *, in_blocks: bool) -> None:
        beam.PTransform.__init__(self)
        self._in_blocks = in_blocks
        self._options: PredictOptions | None = options
        self.spec = self.image_size = None


def _resized(element: Loaded, size: tuple[int, int]) -> Loaded:
    if not isinstance(element, LoadedImage):
        return element
    return LoadedImage(element.ref, resized(element.pixels, Target(*size)), element.info)
