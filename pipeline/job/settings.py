"""The options and the module → the settings of each step, and the columns of the output."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from typing import Any

from beamlabel import __version__
from beamlabel.pipeline.errors import UsageError
from beamlabel.pipeline.job.preflight import Inputs
from beamlabel.pipeline.options.job_options import (
    InputOptions,
    JobOptions,
    LoadingOptions,
    ModuleOptions,
    OutputOptions,
)
from beamlabel.transforms import storage
from beamlabel.transforms.decoding.decode import DECODER_VERSION, DecodeOptions
from beamlabel.transforms.derive import Derived, derive
from beamlabel.transforms.inference.artifact import Artifact, ModelSpec
from beamlabel.transforms.inference.options import AUTO, PredictOptions, WishError
from beamlabel.transforms.inputs.plan_units import SourceOptions
from beamlabel.transforms.loading.fetch import FetchOptions
from beamlabel.transforms.loading.load_images import LoadOptions
from beamlabel.transforms.rows import schema
from beamlabel.transforms.rows.schema import OutputSpec
from beamlabel.transforms.storage.uris import public_uri

# Decoded images that wait for inference: 20 MB at 160 × 160 pixels.
WINDOW = 256

# The command's names for what `derive` calls otherwise.
_OPTIONS = {"class_names": "labels", "embeddings": "no_embeddings"}


def canonical_sha256(value: object) -> str:
    """SHA-256 of the canonical JSON: sorted keys, no spaces, UTF-8."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def source_options(options: InputOptions, inputs: Inputs, shard_rows: int | None) -> SourceOptions:
    """How inputs become references."""
    return SourceOptions(
        base_dir=storage.absolute(options.base_dir or os.getcwd()),  # noqa: PTH109 (a string is wanted)
        columns=inputs.columns,
        limit=options.limit,
        sample=options.sample,
        shard_rows=shard_rows,
    )


def load_options(options: LoadingOptions, decode: DecodeOptions) -> LoadOptions:
    """How images are loaded."""
    return LoadOptions(
        FetchOptions(
            max_bytes=options.max_bytes,
            deadline=options.fetch_deadline,
            allow_http=options.allow_http,
            allow_private_hosts=options.allow_private_hosts,
        ),
        decode,
        threads=options.load_threads,
        window=max(WINDOW, 2 * options.load_threads),
        worker_threads=options.worker_threads,
    )


def derived_options(options: JobOptions, artifact: Artifact) -> Derived:
    """What the module and the options come to; errors name the command's options."""
    module = options.module
    try:
        return derive(
            artifact,
            top_k=module.top_k,
            scores=module.scores,
            class_names=AUTO if module.labels is None else module.labels,
            embeddings=not module.no_embeddings,
            normalize_embeddings=module.normalize_embeddings,
            crop=module.crop,
            color_profile=module.color_profile,
            max_pixels=options.loading.max_pixels,
            batch_size=options.inference.batch_size,
            worker_threads=options.loading.worker_threads,
            keep_pixels=options.run.report,
        )
    except WishError as error:
        raise UsageError(f"--{_OPTIONS.get(error.argument, error.argument)}{error.detail}") from error
    except OSError as error:
        raise UsageError(f"--labels {module.labels!r}: {error}") from error


def preprocessing_of(options: ModuleOptions, artifact: Artifact, predict: PredictOptions) -> dict[str, Any]:
    """What, beside the module, decides the numbers in a row."""
    spec = artifact.spec
    return {
        "height": spec.height,
        "width": spec.width,
        "crop": options.crop,
        "color_profile": options.color_profile,
        "resize": "bilinear",
        "input_range": list(spec.input_range),
        "precision": spec.precision,
        "scores": predict.scores if predict.top_k else None,
        "normalize_embeddings": predict.normalize_embeddings,
        "decoder": DECODER_VERSION,
    }


def output_spec_of(
    options: OutputOptions,
    inputs: Inputs,
    artifact: Artifact,
    predict: PredictOptions,
    preprocessing: Mapping[str, Any],
) -> OutputSpec:
    """The columns of the output, and the metadata of its files."""
    spec = artifact.spec
    dimension = spec.embedding_dim if predict.embeddings else None
    names = predict.class_names
    facts: dict[str, Any] = {
        schema.SCHEMA_VERSION: schema.CURRENT_SCHEMA_VERSION,
        schema.VERSION: __version__,
        schema.MODULE_HANDLE: public_uri(spec.handle),
        schema.MODULE_FINGERPRINT: spec.fingerprint,
        schema.PREPROCESSING: json.dumps(preprocessing, sort_keys=True),
        schema.PREPROCESSING_ID: canonical_sha256(preprocessing),
        schema.ENGINE: spec.engine,
        schema.PRECISION: spec.precision,
        schema.SCORES: predict.scores if predict.top_k else None,
        schema.SCORES_REASON: _why_scores(spec, predict),
        schema.EMBEDDING_DIM: dimension,
        schema.EMBEDDING_NORMALIZED: json.dumps(predict.normalize_embeddings) if dimension else None,
        schema.NUM_CLASSES: spec.num_classes,
        schema.TOP_K: predict.top_k or None,
        schema.LABELS_SHA256: canonical_sha256(names) if names else None,
    }
    return OutputSpec(
        format=options.output_format,
        compression=options.tfrecord_compression,
        kept_fields=inputs.kept,
        has_labels=names is not None,
        top_k=predict.top_k or 0,
        num_classes=spec.num_classes,
        embedding_dim=dimension,
        module_handle=facts[schema.MODULE_HANDLE],
        module_fingerprint=spec.fingerprint,
        preprocessing_id=facts[schema.PREPROCESSING_ID],
        metadata={name: str(value) for name, value in facts.items() if value is not None},
    )


def _why_scores(spec: ModelSpec, predict: PredictOptions) -> str | None:
    return f"{spec.score_kind}: {spec.scores_reason}" if predict.top_k else None
