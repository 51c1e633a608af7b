"""Inspects and tries a module on this machine. Another process loads it to read its signatures."""

from __future__ import annotations

import dataclasses
import io
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from beamlabel.pipeline.commands.own_facts import named_by, own_facts
from beamlabel.pipeline.errors import UsageError
from beamlabel.pipeline.job.prepare_module import module_process, prepare_artifact, resolve_chosen
from beamlabel.pipeline.options.job_options import InferenceOptions, ModuleOptions
from beamlabel.transforms.decoding.decode import DecodeOptions, decode
from beamlabel.transforms.hub.files import scan
from beamlabel.transforms.inference.artifact import Artifact, ModelSpec, ModuleError
from beamlabel.transforms.inference.engines import Engine, open_engine
from beamlabel.transforms.inference.probe import probe_batch
from beamlabel.transforms.module.class_names import load_class_names
from beamlabel.transforms.module.score_kind import PROBABILITIES
from beamlabel.transforms.module_process.prepare import looked_at, subject_of
from beamlabel.transforms.secrets.logs import get_logger
from beamlabel.transforms.worker.compute_pool import compute_pool
from beamlabel.transforms.worker.cpu import available_cores

# For each of the two measurements.
_SECONDS = 3.0
# The usual size of ImageNet's photographs.
_PHOTO_HEIGHT, _PHOTO_WIDTH, _PHOTO_QUALITY = 375, 500, 90


@dataclass(frozen=True)
class Inspection:
    """The findings about a module.

    Attributes:
      handle, format, fingerprint: the module's; the format as ``HubModule`` names it.
      files, bytes: of the module on disk.
      artifact_bytes: of the compiled module, which workers open.
      height, width: pixels of the input; ``input_range`` holds the values that 0 and 255 become.
      logits, features: ``SIGNATURE:KEY``; None if there are none.
      gives_probabilities: whether the logits are probabilities already.
      score_kind, scores_reason: the kind of the logits and the evidence for it, see ``score_kind``.
      scores: the result of --scores auto; None if it is unclear.
      num_classes, embedding_dim: their sizes.
      class_names: origin of the classes' names; None if they have none.
      engine, precision: those that really compute on this machine.
      notes: how images are fitted to the module's input, and why engine or precision differ from the requested ones,
        in words.
      cores, batch_size: those of the speed measurements.
      images_per_second: of the module alone, from pixels to numbers.
      images_per_second_decoded: with the decoding of ``decoded``.
      signatures: name, inputs and outputs of each; a tensor has key, dtype and shape (None: any).
      own: facts of a module of ``beamlabel train``, see ``own_facts``.
    """

    handle: str
    format: str
    fingerprint: str
    files: int
    bytes: int
    artifact_bytes: int
    height: int
    width: int
    input_range: tuple[float, float]
    logits: str | None
    gives_probabilities: bool
    score_kind: str | None
    scores: str | None
    scores_reason: str
    num_classes: int | None
    class_names: str | None
    features: str | None
    embedding_dim: int | None
    engine: str
    precision: str
    notes: tuple[str, ...]
    cores: int
    batch_size: int
    images_per_second: float
    images_per_second_decoded: float
    decoded: str
    signatures: tuple[dict[str, Any], ...]
    own: dict[str, Any] | None

    def to_json(self) -> dict[str, Any]:
        """A plain dict for ``json.dumps``."""
        return dataclasses.asdict(self)


def inspect(options: ModuleOptions, inference: InferenceOptions) -> Inspection:
    """Compiles a module like the job, opens it like a worker, and measures it for some seconds.

    Args:
      options: the module, its inputs and outputs.
      inference: the engine, its precision, and the size of a batch.

    Raises:
      UsageError: the module is not available, or the options do not fit it.
    """
    notes: list[str] = []
    with _warnings_into(notes), module_process(options) as process:
        resolved = resolve_chosen(options, option="MODULE", process=process)
        artifact = prepare_artifact(options, inference, option="MODULE", resolved=resolved, process=process)
        spec = artifact.spec
        names = _class_names(options.labels, spec)
        try:
            module = looked_at(
                resolved, process, logits_output=options.logits_output, features_output=options.features_output,
                image_size=options.image_size, input_range=options.input_range,
            )  # fmt: skip
            process.close()  # it holds memory
            # TensorFlow may compute it in this process, so the deadline applies here too.
            engine, (speed, decoded_speed, decoded) = process.in_thread(
                lambda: _measured(artifact, inference.batch_size), subject_of(resolved.handle)
            )
        except ModuleError as error:
            raise UsageError(f"MODULE: {error}") from error
    files = scan(resolved.path)
    own = own_facts(resolved)
    return Inspection(
        handle=spec.handle,
        format=spec.kind,
        fingerprint=spec.fingerprint,
        files=len(files),
        bytes=sum(file.size for file in files),
        artifact_bytes=Path(artifact.path).stat().st_size,
        height=spec.height,
        width=spec.width,
        input_range=spec.input_range,
        logits=module["logits"],
        gives_probabilities=spec.score_kind == PROBABILITIES,
        score_kind=spec.score_kind,
        scores=spec.scores,
        scores_reason=spec.scores_reason,
        num_classes=spec.num_classes,
        class_names=None if names is None else options.labels or named_by(own),
        features=module["features"],
        embedding_dim=spec.embedding_dim,
        engine=engine.name,
        precision=engine.precision,
        notes=tuple(dict.fromkeys((*spec.notes(), *notes))),
        cores=available_cores(),
        batch_size=inference.batch_size,
        images_per_second=speed,
        images_per_second_decoded=decoded_speed,
        decoded=decoded,
        signatures=tuple(module["signatures"]),
        own=own,
    )


def _class_names(labels: str | None, spec: ModelSpec) -> tuple[str, ...] | None:
    try:
        if labels is None and spec.class_names is not None:
            return spec.class_names
        return load_class_names(labels, spec.num_classes)
    except (OSError, ValueError) as error:
        raise UsageError(f"--labels {labels!r}: {error}") from error


@contextmanager
def _warnings_into(notes: list[str]) -> Iterator[None]:
    """Collects the warnings of ``transforms``, which explain a change of engine or precision, instead of logging."""

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            notes.append(record.getMessage())

    logger, collector = get_logger("beamlabel.transforms"), Collector(logging.WARNING)
    logger.addHandler(collector)
    propagates, logger.propagate = logger.propagate, False
    try:
        yield
    finally:
        logger.propagate = propagates
        logger.removeHandler(collector)


def _measured(artifact: Artifact, batch_size: int) -> tuple[Engine, tuple[float, float, str]]:
    engine = open_engine(artifact.path, artifact.sha256)
    return engine, _measure(engine, batch_size)


def _measure(engine: Engine, batch_size: int) -> tuple[float, float, str]:
    """Images per second from pixels and from JPEGs, and a description of the JPEGs."""
    spec = engine.spec
    probes = probe_batch(spec.height, spec.width)
    pixels = [probes[number % len(probes)] for number in range(batch_size)]
    photos = [_jpeg(photo) for photo in probe_batch(_PHOTO_HEIGHT, _PHOTO_WIDTH)]
    options = DecodeOptions(spec.height, spec.width)

    def decode_into(place: int) -> None:
        pixels[place] = decode(photos[place % len(photos)], options).pixels

    def decode_and_run() -> None:
        compute_pool().run(decode_into, range(batch_size), urgent=False)
        engine(pixels)

    alone = _per_second(lambda: engine(pixels), batch_size)
    with_decoding = _per_second(decode_and_run, batch_size)
    kilobytes = sum(map(len, photos)) / len(photos) / 1e3
    return alone, with_decoding, f"JPEGs of {_PHOTO_WIDTH}x{_PHOTO_HEIGHT} pixels and {kilobytes:.0f} kB"


def _per_second(run: Callable[[], object], images: int) -> float:
    """Images per second, in whole batches over some seconds, after a first batch that is not counted."""
    run()
    begin, batches = time.perf_counter(), 0
    while (elapsed := time.perf_counter() - begin) < _SECONDS:
        run()
        batches += 1
    return batches * images / elapsed


def _jpeg(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "jpeg", quality=_PHOTO_QUALITY)
    return buffer.getvalue()
