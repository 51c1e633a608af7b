"""Options → everything that the graph needs: the module compiled, the plan named, the staging prepared."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import importlib.util
import json
import logging
import os
import platform
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import platformdirs

from pipeline import __version__, layout
from pipeline.options import DEFAULT_TOP_K, UsageError
from pipeline.preflight import Inputs
from transforms import output_schema, storage
from transforms.class_names import load_class_names
from transforms.compile import CompileOptions, compiled
from transforms.decode import DECODER_VERSION, DecodeOptions
from transforms.examples import check_installed, schema_pbtxt
from transforms.fetch import FetchOptions
from transforms.load_images import LoadOptions
from transforms.model_spec import BFLOAT16, OPENVINO, Artifact
from transforms.output_schema import OutputSpec, arrow_schema
from transforms.plan_units import SourceOptions
from transforms.predict import PredictOptions
from transforms.records import InputFile
from transforms.resolve_module import resolve_module
from transforms.uris import public_uri

# Decoded images that wait for inference: 20 MB at 160 × 160 pixels.
WINDOW = 256

_LOGGER = logging.getLogger(__name__)

_PACKAGES = ("apache-beam", "ai-edge-litert", "openvino", "tensorflow", "tensorflow-hub", "tfx-bsl", "pyarrow",
             "numpy", "opencv-python-headless", "pillow", "simplejpeg", "google-cloud-storage")  # fmt: skip


@dataclass(frozen=True)
class LabelJob:
    """One run of the labeling job, as the graph sees it."""

    output: str
    staging_dir: str
    plan_id: str
    run_id: str
    files: tuple[InputFile, ...]
    source: SourceOptions
    load: LoadOptions
    predict: PredictOptions
    spec: OutputSpec
    report: bool = False


def cache_dir() -> Path:
    """The per-user cache of modules and artifacts; ``BEAMLABEL_CACHE`` overrides it."""
    return Path(os.environ.get("BEAMLABEL_CACHE") or platformdirs.user_cache_dir("beamlabel"))


def canonical_sha256(value: object) -> str:
    """SHA-256 of the canonical JSON: sorted keys, no spaces, UTF-8."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def prepare_artifact(options: Any) -> Artifact:
    """Resolves, checks and compiles ``--module``.

    Raises:
      UsageError: the module cannot be had, or the options do not fit it.
    """
    wants_openvino = options.engine == OPENVINO or options.precision == BFLOAT16
    if wants_openvino and importlib.util.find_spec("openvino") is None:
        asked = "--engine openvino" if options.engine == OPENVINO else "--precision bfloat16"
        raise UsageError(f"{asked} needs OpenVINO: pip install 'beamlabel[openvino]'")
    cache = cache_dir()
    handle = options.module
    try:
        if handle == "demo":
            from pipeline.demo_module import demo_module

            handle = str(demo_module(cache / "modules"))
        resolved = dataclasses.replace(resolve_module(handle, cache), handle=options.module)
        compile_options = CompileOptions(
            logits_output=options.logits_output,
            features_output=options.features_output,
            image_size=options.image_size,
            input_range=options.input_range,
            engine=options.engine,
            precision=options.precision,
        )
        return compiled(resolved, compile_options, cache)
    except (ValueError, ModuleNotFoundError, RuntimeError) as error:
        raise UsageError(f"--module: {error}") from error


def prepare(options: Any, inputs: Inputs, started_at: float | None = None) -> LabelJob:
    """Makes the job and stages what workers open: the artifact, and the facts of the run for ``publish``.

    Args:
      options: the job's, as ``options.parse`` gives them.
      inputs: as ``preflight.check_inputs`` gives them.
      started_at: when the run began, in seconds since 1970; None: now.

    Raises:
      UsageError: the options do not fit the module, or the output cannot be written.
    """
    started_at = time.time() if started_at is None else started_at
    if options.output_format == "tfrecord":
        try:
            check_installed()
        except ImportError as error:
            raise UsageError(f"--output_format tfrecord: {error}") from error
    artifact = prepare_artifact(options)
    output = storage.absolute(options.output).rstrip("/")
    try:
        predict = _predict_options(options, artifact)
        source = SourceOptions(
            base_dir=storage.absolute(options.base_dir or os.getcwd()),  # noqa: PTH109 (a string is wanted)
            columns=inputs.columns,
            limit=options.limit,
            sample=options.sample,
            shard_rows=options.shard_rows,
        )
        spec = artifact.spec
        load = LoadOptions(
            FetchOptions(
                max_bytes=options.max_bytes,
                deadline=options.fetch_deadline,
                allow_http=options.allow_http,
                allow_private_hosts=options.allow_private_hosts,
            ),
            DecodeOptions(
                height=spec.height, width=spec.width, crop=options.crop, max_pixels=options.max_pixels
            ),
            threads=options.load_threads,
            window=max(WINDOW, 2 * options.load_threads),
        )
    except (OSError, ValueError) as error:
        raise UsageError(str(error)) from error
    preprocessing = _preprocessing(options, artifact, predict)
    output_spec = _output_spec(options, inputs, artifact, predict, preprocessing)
    plan_id = _plan_id(inputs, source, load, output_spec, [options.logits_output, options.features_output])
    metadata = {**output_spec.metadata, output_schema.PLAN_ID: plan_id}
    output_spec = dataclasses.replace(output_spec, metadata=metadata)
    staging_dir = storage.join(output, layout.STAGING, plan_id)
    staged_artifact = storage.join(staging_dir, layout.ARTIFACT)
    predict = dataclasses.replace(predict, artifact_path=staged_artifact)
    run_id = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime()) + "-" + secrets.token_hex(3)
    # A report is no part of the plan: it changes no shard, and a run with one may go on where one without stopped.
    job = LabelJob(
        output, staging_dir, plan_id, run_id, inputs.files, source, load, predict, output_spec, options.report
    )
    facts = {"started_at": started_at, **_facts(job, options, artifact, preprocessing)}
    try:
        # All that could be wrong with the options is known by now; only now may leftovers go.
        storage.delete_tree(storage.join(output, layout.STAGING))
        storage.write_bytes(staged_artifact, Path(artifact.path).read_bytes())
        storage.write_bytes(
            storage.join(staging_dir, layout.JOB), json.dumps(facts, indent=1, default=str).encode()
        )
    except OSError as error:
        raise UsageError(f"--output {options.output!r} cannot be written: {error}") from error
    return job


def _predict_options(options: Any, artifact: Artifact) -> PredictOptions:
    spec = artifact.spec
    classes = spec.num_classes
    if classes is None and options.top_k:
        raise ValueError(f"--top_k {options.top_k}: the module has no logits")
    if classes is not None and (options.top_k or 0) > classes:
        raise ValueError(f"--top_k {options.top_k}: the module has {classes} classes")
    if options.no_embeddings and classes is None:
        raise ValueError("--no_embeddings: the module has no logits, so nothing would be left")
    if options.normalize_embeddings and (options.no_embeddings or spec.embedding_dim is None):
        raise ValueError("--normalize_embeddings: there are no embeddings to normalize")
    scores = options.scores
    if scores == "auto":
        scores = "none" if spec.looks_like_probabilities else "softmax"
    return PredictOptions(
        artifact_path=str(artifact.path),
        artifact_sha256=artifact.sha256,
        top_k=min(options.top_k or DEFAULT_TOP_K, classes) if classes else 0,
        scores=scores,
        class_names=_class_names(options.labels, classes),
        embeddings=not options.no_embeddings,
        normalize_embeddings=options.normalize_embeddings,
        batch_size=options.batch_size,
        keep_pixels=options.report,
    )


def _class_names(labels: str | None, classes: int | None) -> tuple[str, ...] | None:
    try:
        return load_class_names(labels, classes)
    except (OSError, ValueError) as error:
        raise UsageError(f"--labels {labels!r}: {error}") from error


def _preprocessing(options: Any, artifact: Artifact, predict: PredictOptions) -> dict[str, Any]:
    """What, beside the module, decides the numbers in a row."""
    spec = artifact.spec
    return {
        "height": spec.height,
        "width": spec.width,
        "crop": options.crop,
        "resize": "bilinear",
        "input_range": list(spec.input_range),
        "precision": spec.precision,
        "scores": predict.scores if predict.top_k else None,
        "normalize_embeddings": predict.normalize_embeddings,
        "decoder": DECODER_VERSION,
    }


def _output_spec(
    options: Any,
    inputs: Inputs,
    artifact: Artifact,
    predict: PredictOptions,
    preprocessing: Mapping[str, Any],
) -> OutputSpec:
    spec = artifact.spec
    dimension = spec.embedding_dim if predict.embeddings else None
    names = predict.class_names
    facts: dict[str, Any] = {
        output_schema.SCHEMA_VERSION: output_schema.CURRENT_SCHEMA_VERSION,
        output_schema.VERSION: __version__,
        output_schema.MODULE_HANDLE: public_uri(spec.handle),
        output_schema.MODULE_FINGERPRINT: spec.fingerprint,
        output_schema.PREPROCESSING: json.dumps(preprocessing, sort_keys=True),
        output_schema.PREPROCESSING_ID: canonical_sha256(preprocessing),
        output_schema.ENGINE: spec.engine,
        output_schema.PRECISION: spec.precision,
        output_schema.SCORES: predict.scores if predict.top_k else None,
        output_schema.EMBEDDING_DIM: dimension,
        output_schema.EMBEDDING_NORMALIZED: json.dumps(predict.normalize_embeddings) if dimension else None,
        output_schema.NUM_CLASSES: spec.num_classes,
        output_schema.LABELS_SHA256: canonical_sha256(names) if names else None,
    }
    return OutputSpec(
        format=options.output_format,
        compression=options.tfrecord_compression,
        kept_fields=inputs.kept,
        has_labels=names is not None,
        top_k=predict.top_k,
        num_classes=spec.num_classes,
        embedding_dim=dimension,
        module_fingerprint=spec.fingerprint,
        preprocessing_id=facts[output_schema.PREPROCESSING_ID],
        metadata={name: str(value) for name, value in facts.items() if value is not None},
    )


def _plan_id(
    inputs: Inputs, source: SourceOptions, load: LoadOptions, spec: OutputSpec, outputs: list[str | None]
) -> str:
    """Names everything that decides which rows a unit gets and what is in them: equal plans may share units."""
    plan = {
        "files": [dataclasses.astuple(file) for file in inputs.files],
        "source": dataclasses.asdict(source),
        "fetch": dataclasses.asdict(load.fetch),
        "max_pixels": load.decode.max_pixels,
        "schema": str(arrow_schema(spec).remove_metadata()),
        "metadata": spec.metadata,
        "top_k": spec.top_k,
        "outputs": outputs,
        "format": spec.file_ending,
    }
    return canonical_sha256(plan)[:16]


def _facts(
    job: LabelJob, options: Any, artifact: Artifact, preprocessing: Mapping[str, Any]
) -> dict[str, Any]:
    """What ``publish`` has to know of a run, also when another process publishes it."""
    tfrecord = job.spec.format == "tfrecord"
    manifest = {
        "schema_version": output_schema.CURRENT_SCHEMA_VERSION,
        "run_id": job.run_id,
        "plan_id": job.plan_id,
        "module": {**dataclasses.asdict(artifact.spec), "handle": public_uri(artifact.spec.handle)},
        "preprocessing": preprocessing,
        "metadata": job.spec.metadata,
        "options": {**vars(options), "module": public_uri(options.module)},
        "input_files": [dataclasses.asdict(file) for file in job.files],
        "versions": {"beamlabel": __version__, "python": platform.python_version(), **_versions()},
    }
    return {
        "run_id": job.run_id,
        "max_error_rate": options.max_error_rate,
        "schema_pbtxt": schema_pbtxt(arrow_schema(job.spec)) if tfrecord else None,
        "manifest": manifest,
    }


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
