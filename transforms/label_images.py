"""Turns elements into labels and failures: all of the labeling as one transform for any pipeline."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import apache_beam as beam

from beamlabel.transforms.arguments import checked_arguments, checked_wait
from beamlabel.transforms.elements.element_types import result_types
from beamlabel.transforms.elements.references import ToReferences
from beamlabel.transforms.elements.split_outcomes import LabeledImages, SplitOutcomes
from beamlabel.transforms.inference.options import AUTO, PredictOptions
from beamlabel.transforms.load_images import (
    LoadImages,
    element_options,
    fetch_options,
    http_options,
    load_options,
)
from beamlabel.transforms.loading.load_options import LoadOptions
from beamlabel.transforms.loading.web.http_options import PER_HOST
from beamlabel.transforms.module_artifact import (
    artifact_of,
    checked_directory,
    derive_module,
    staged,
    with_artifact,
)
from beamlabel.transforms.module_process.limits import DEADLINE_SECONDS
from beamlabel.transforms.output_spec import output_spec_of
from beamlabel.transforms.predict import Predict
from beamlabel.transforms.records import Labeled, Opened
from beamlabel.transforms.rows.schema import OutputSpec


class Label(beam.PTransform):
    """Turns references into predictions and failures in one stream, without a branch that would prevent fusion.

    This is the middle of the labeling job and of ``LabelImages``.

    Args:
      load: the options for loading images.
      predict: the artifact, and the prediction options.
      in_blocks: whether references come in ``Block``s, as in the job; then the output does, too.
    """

    def __init__(self, load: LoadOptions, predict: PredictOptions, *, in_blocks: bool = False) -> None:
        super().__init__()
        self._load, self._predict, self._in_blocks = load, predict, in_blocks

    def expand(self, refs: beam.PCollection[Opened]) -> beam.PCollection[Labeled]:
        in_batches = self._predict.batch_size if self._in_blocks else None
        loaded = refs | "LoadImages" >> LoadImages.with_options(self._load, in_batches=in_batches)
        return loaded | "Predict" >> Predict.with_options(self._predict, in_blocks=self._in_blocks)


class LabelImages(beam.PTransform):
    """Labels images in any kind of element: ``.predictions`` and ``.failures`` are the same elements with added fields.

    Example::

        labeled = uris | LabelImages("https://tfhub.dev/google/imagenet/mobilenet_v2_075_160/classification/1")
        labeled.predictions | ...
        labeled.failures | ...

    An element is a URI (``str`` or ``Path``), the ``bytes`` of an image, a dict, a ``beam.Row``, a NamedTuple or
    dataclass, a ``fileio.ReadableFile``, or a pair of a key and one of these. URIs, bytes and files become a
    ``LabeledImage`` or a ``FailedImage``; a pair keeps its key; a dict becomes a dict with the fields of these added; a
    row becomes a ``beam.Row`` with the fields added. None, an empty URI and a missing field are failures.

    The module is resolved and compiled when the transform is created. TensorFlow is imported only if the cache does not
    have the artifact yet. Windows and timestamps are kept.

    Args:
      module: a Hub handle, a local directory or ``.tar.gz``, a ``gs://`` path, or an artifact of
        ``ModelHandler.save_artifact``.
      uri: name of the URI field in dicts and rows.
      image: name of the field with the encoded image's bytes in dicts and rows; if it is null, the image is read from
        the URI.
      top_k: number of classes to return, best first; None means 5. If the module has fewer than 5 classes, 5 returns
        all.
      class_names: a name for each class, or a file with one name per line; ``"none"``: no names; None: those of a
        module of ``beamlabel train``, else ImageNet's for 1000 and 1001 classes.
      crop: None stretches the whole image; a fraction in (0, 1] takes the central square, whose side is that fraction
        of the short side. A module of ``beamlabel train`` only accepts the crop that its head was trained with, and
        None selects it.
      embeddings: whether to add the features, if the module has any.
      scores: ``softmax``, ``sigmoid``, ``none``, or ``auto``: the function that fits the module.
      normalize_embeddings: whether embeddings are scaled to L2 length 1.
      color_profile: ``convert`` brings pixels with a color profile to sRGB; ``ignore`` takes them as they are;
        ``auto`` is ``convert``, or the value that the head of a module of ``beamlabel train`` was trained with.
      max_pixels: images whose header claims more are failures.
      decode_deadline: seconds that a child process may take to decode an image that is no usual JPEG, PNG or WebP.
      max_bytes: larger encoded images are failures.
      fetch_deadline: seconds that all attempts to fetch an image may take together.
      allow_http: whether ``http://`` and ``https://`` are fetched.
      allow_private_hosts: whether ``http`` may reach private addresses.
      allowed_schemes: the only schemes whose images are fetched, such as ``["gs", "https"]``; ``file`` stands for local
        paths; None: all.
      http_headers: headers for the hosts of ``http`` URIs, but not for redirect targets, such as
        ``{"Authorization": "Bearer TOKEN"}``; their values never appear in any text.
      user_agent: the User-Agent for ``http`` servers; None: beamlabel, with its address.
      ignore_robots_tag: whether to take images whose server sends ``X-Robots-Tag: noai`` or ``noimageai``.
      http_per_host: number of concurrent requests to one ``http`` host from a worker process.
      billing_project: the project that pays for images on ``gs://``; None: the buckets' own.
      base_dir: the directory that relative paths refer to; None: the current directory.
      prefix: prefix for the name of each added field of dicts and rows, such as ``"mobilenet_"``.
      logits_output, features_output: names of the module's outputs, if they cannot be determined automatically.
      image_size: (height, width), for a module that takes images of any size.
      input_range: the module's values for black and white, such as (-1.0, 1.0); None: (0.0, 1.0).
      engine, precision: the library that computes, and its number format: see ``docs/options.md``.
      module_fingerprint: the fingerprint that the module must have, as ``beamlabel inspect`` shows it; for an artifact
        the SHA-256 of the file; None: any.
      allow_unsafe_ops: whether the module's graph may have operations that read, write or send anything; it runs with
        the rights of this process and of the workers.
      module_deadline: seconds to fetch, load, try and compile the module; its separate process is ended afterwards.
      module_memory: memory limit of that process in bytes; None: the free memory, at least 4 GB.
      batch_size: images in every batch but the last of a bundle.
      load_threads: number of images that each worker thread of the runner loads at a time.
      worker_threads: number of computing threads in each worker process; None: one for each available core.
      max_batch_duration_secs: for streams: maximum seconds that an element waits for others, to form a batch across
        bundles; None: a batch ends with its bundle.
      artifact_dir: directory that all workers can read, to stage the compiled module in; None: the pipeline's
        ``temp_location`` if its workers are elsewhere, and no copy if they are local.

    Attributes:
      spec: the fields of a prediction, and the module's facts.
      elements: the names of the fields.

    Raises:
      ModuleError: the module cannot be fetched or used with these arguments; a ``ValueError`` that names ``module``.
      WishError: the module does not allow an argument; a ``ValueError`` that names it.
      ValueError: an argument is out of range or has the wrong type; the message names it. In ``expand``: an element
        type already has a field that would be added.
      TypeError: an argument is unknown. In ``expand``: the element type cannot hold an image.
    """

    @checked_arguments
    def __init__(
        self,
        module: str | os.PathLike[str],
        *,
        uri: str = "uri",
        image: str | None = None,
        top_k: int | None = 5,
        class_names: Sequence[str] | str | os.PathLike[str] | None = None,
        crop: float | None = None,
        embeddings: bool = True,
        scores: str = AUTO,
        normalize_embeddings: bool = False,
        color_profile: str = AUTO,
        max_pixels: int = 100_000_000,
        decode_deadline: float = 20.0,
        max_bytes: int = 64 << 20,
        fetch_deadline: float = 60.0,
        allow_http: bool = False,
        allow_private_hosts: bool = False,
        allowed_schemes: Sequence[str] | None = None,
        http_headers: Mapping[str, str] | None = None,
        user_agent: str | None = None,
        ignore_robots_tag: bool = False,
        http_per_host: int = PER_HOST,
        billing_project: str | None = None,
        base_dir: str | os.PathLike[str] | None = None,
        prefix: str = "",
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
        load_threads: int = 64,
        worker_threads: int | None = None,
        max_batch_duration_secs: float | None = None,
        artifact_dir: str | os.PathLike[str] | None = None,
    ) -> None:
        super().__init__()
        # Checks that need no module come first, since compiling one may take a minute.
        self.elements = element_options(uri, image, base_dir, prefix)
        fetch = fetch_options(max_bytes, fetch_deadline, allow_http, allow_private_hosts, http_options(
            http_headers, user_agent, ignore_robots_tag, http_per_host), billing_project, allowed_schemes)  # fmt: skip
        self._max_wait = checked_wait(max_batch_duration_secs)
        self._artifact_dir = checked_directory(artifact_dir)
        self._artifact = artifact_of(
            module, logits_output=logits_output, features_output=features_output, module_memory=module_memory,
            image_size=image_size, input_range=input_range, engine=engine, module_deadline=module_deadline,
            precision=precision, module_fingerprint=module_fingerprint, allow_unsafe_ops=allow_unsafe_ops)  # fmt: skip
        self._derived = derive_module(
            self._artifact, top_k=top_k, scores=scores, class_names=class_names, embeddings=embeddings,
            normalize_embeddings=normalize_embeddings, batch_size=batch_size, worker_threads=worker_threads,
            crop=crop, color_profile=color_profile, max_pixels=max_pixels, decode_deadline=decode_deadline)  # fmt: skip
        self._load = load_options(fetch, self._derived.decode, load_threads, worker_threads)
        self.spec: OutputSpec = output_spec_of(self._derived)

    def expand(self, images: beam.PCollection[Any]) -> LabeledImages:
        if not isinstance(images, beam.PCollection):
            raise TypeError(
                "LabelImages takes a PCollection of images; put beam.Create or a source before it"
            )
        types = result_types(images.element_type, self.elements, self.spec)
        path = staged(self._artifact, images.pipeline, self._artifact_dir)
        predict = with_artifact(self._derived, path).predict
        refs = images | "ToReferences" >> ToReferences(self.elements)
        if self._max_wait is not None:
            refs = refs | "Gather" >> Gather(predict.batch_size, self._max_wait)
        return refs | Label(self._load, predict) | SplitOutcomes(self.spec, self.elements, types=types)


class Gather(beam.PTransform):
    """Gathers references across bundles, so that the references of a batch come in one bundle.

    It precedes the loading of images, so that references and not pixels wait in the runner's state.

    Args:
      batch_size: number of references to wait for.
      max_wait: maximum seconds that the first reference of a batch waits.
    """

    def __init__(self, batch_size: int, max_wait: float) -> None:
        super().__init__()
        self._batch_size, self._max_wait = batch_size, max_wait

    def expand(self, refs: beam.PCollection[Opened]) -> beam.PCollection[Opened]:
        batches = refs | beam.BatchElements(
            min_batch_size=self._batch_size,
            max_batch_size=self._batch_size,
            max_batch_duration_secs=self._max_wait,
        )
        return batches | "Ungroup" >> beam.FlatMap(list).with_output_types(Opened)
