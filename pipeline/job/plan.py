"""Options → everything that the graph needs: the module compiled, the plan named."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import json
import os
import platform
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from beamlabel import __version__
from beamlabel.pipeline import layout
from beamlabel.pipeline.errors import UsageError
from beamlabel.pipeline.job.preflight import Inputs
from beamlabel.pipeline.job.prepare_module import prepare_artifact
from beamlabel.pipeline.job.retry_failures import FailedReferences
from beamlabel.pipeline.job.skip_labeled import LocalIndex, labeled_index
from beamlabel.pipeline.options.job_options import (
    EarlierRunOptions,
    InputOptions,
    JobOptions,
    LoadingOptions,
    ModuleOptions,
    OutputOptions,
)
from beamlabel.pipeline.output import staging
from beamlabel.transforms import storage
from beamlabel.transforms.decoding.decode import DECODER_VERSION, DecodeOptions
from beamlabel.transforms.derive import Derived, derive
from beamlabel.transforms.inference.artifact import Artifact, ModelSpec
from beamlabel.transforms.inference.options import AUTO, PredictOptions, WishError
from beamlabel.transforms.inputs.plan_units import SourceOptions
from beamlabel.transforms.inputs.selection import SelectionOptions, StagedIndex
from beamlabel.transforms.inputs.time_limit import TimeLimit
from beamlabel.transforms.loading.fetch import FetchOptions
from beamlabel.transforms.loading.load_images import LoadOptions
from beamlabel.transforms.records import InputFile
from beamlabel.transforms.rows import schema
from beamlabel.transforms.rows.schema import OutputSpec, arrow_schema
from beamlabel.transforms.rows.tf_examples import check_installed, schema_pbtxt
from beamlabel.transforms.storage.uris import public_uri

# Decoded images that wait for inference: 20 MB at 160 × 160 pixels.
WINDOW = 256

# The command's names for what `derive` calls otherwise.
_OPTIONS = {"class_names": "labels", "embeddings": "no_embeddings"}

_PACKAGES = ("apache-beam", "ai-edge-litert", "openvino", "tensorflow", "tensorflow-hub", "tfx-bsl", "pyarrow",
             "numpy", "opencv-python-headless", "pillow", "simplejpeg", "google-cloud-storage")  # fmt: skip


@dataclass(frozen=True)
class LabelJob:
    """One run of the labeling job, as the graph sees it.

    Attributes:
      time_limit: after which no unit is begun any more; None for none.
      only_rows: how many references count, where an earlier run's failures are the only ones.
      heartbeats: whether workers tell in the staging folder how far they are.
    """

    output: str
    staging_dir: str
    plan_id: str
    run_id: str
    files: tuple[InputFile, ...]
    source: SourceOptions
    load: LoadOptions
    predict: PredictOptions
    spec: OutputSpec
    time_limit: TimeLimit | None = None
    only_rows: int | None = None
    heartbeats: bool = False
    report: bool = False

    def for_workers(self, *, elsewhere: bool, later: bool) -> LabelJob:
        """The job for workers that are in other processes, or begin at some later time."""
        limit = self.time_limit
        if limit is not None and later:
            limit = dataclasses.replace(limit, begun_at=None)
        return dataclasses.replace(self, heartbeats=elsewhere, time_limit=limit)


@dataclass(frozen=True)
class Plan:
    """A job before anything of it is written.

    Attributes:
      job: as the graph will see it.
      staged: what workers open, by its path in the staging folder; the files are on this machine.
      facts: what ``publish`` has to know of the run, also when another process publishes it.
    """

    job: LabelJob
    staged: dict[str, Path]
    facts: dict[str, Any]


def canonical_sha256(value: object) -> str:
    """SHA-256 of the canonical JSON: sorted keys, no spaces, UTF-8."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def plan(
    options: JobOptions,
    inputs: Inputs,
    scratch: Path,
    started_at: float | None = None,
    failed: FailedReferences | None = None,
) -> Plan:
    """Makes the job; writes nothing but the cache, and in ``scratch``.

    Args:
      options: the job's, as ``options.parse`` gives them.
      inputs: as ``preflight.check_inputs`` gives them.
      scratch: a temporary folder that is there until the plan is staged.
      started_at: when the run began, in seconds since 1970; None: now.
      failed: the only references that count; None for all.

    Raises:
      UsageError: the options do not fit the module.
    """
    started_at = time.time() if started_at is None else started_at
    if options.output.output_format == "tfrecord":
        try:
            check_installed()
        except ImportError as error:
            raise UsageError(f"--output_format tfrecord: {error}") from error
    artifact = prepare_artifact(options.module, options.inference)
    output = storage.absolute(options.output.output).rstrip("/")
    try:
        derived = _derived(options, artifact)
        predict = derived.predict
        source = _source_options(options.inputs, inputs, options.output.shard_rows)
        load = _load_options(options.loading, derived.decode)
        preprocessing = _preprocessing(options.module, artifact, predict)
        output_spec = _output_spec(options.output, inputs, artifact, predict, preprocessing)
    except (OSError, ValueError) as error:
        raise UsageError(str(error)) from error
    indexes = {
        layout.LABELED: _labeled(options.earlier, output_spec, output, scratch),
        layout.ONLY: None if failed is None else failed.index(scratch),
    }
    source = dataclasses.replace(source, selection=_selection(indexes, changed=options.earlier.changed))
    plan_id = _plan_id(
        inputs, source, load, output_spec, [options.module.logits_output, options.module.features_output]
    )
    metadata = {**output_spec.metadata, schema.PLAN_ID: plan_id}
    output_spec = dataclasses.replace(output_spec, metadata=metadata, labeled_at=labeled_at(started_at))
    staging_dir = storage.join(staging.root(output), plan_id)
    staged_artifact = storage.join(staging_dir, layout.ARTIFACT)
    predict = dataclasses.replace(predict, artifact_path=staged_artifact)
    source = dataclasses.replace(
        source, selection=_selection(indexes, staging_dir, changed=options.earlier.changed)
    )
    run_id = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime()) + "-" + secrets.token_hex(3)
    time_limit = options.run.time_limit
    limit = None if time_limit is None else TimeLimit(time_limit, run_id, started_at)
    only_rows = None if failed is None else len(failed.ref_ids)
    # A report is no part of the plan: it changes no shard, and a run with one may go on where one without stopped.
    job = LabelJob(
        output, staging_dir, plan_id, run_id, inputs.files, source, load, predict, output_spec, limit, only_rows,
        report=options.run.report,
    )  # fmt: skip
    facts = {"started_at": started_at, **_facts(job, options, artifact, preprocessing)}
    if failed is not None:
        facts["manifest"]["retried_failures"] = len(failed.ref_ids)
    staged = {storage.join(staging_dir, name): index.path for name, index in indexes.items() if index}
    return Plan(job, {staged_artifact: Path(artifact.path), **staged}, facts)


def labeled_at(started_at: float) -> int:
    """The column ``labeled_at``: the start of the run, in microseconds since 1970, UTC.

    ``SOURCE_DATE_EPOCH``, in seconds since 1970, takes its place, so that two runs can write equal bytes; see
    https://reproducible-builds.org/specs/source-date-epoch/.

    Raises:
      UsageError: ``SOURCE_DATE_EPOCH`` is no whole number.
    """
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    if epoch is None:
        return round(started_at * 1e6)
    if not epoch.isdecimal():
        raise UsageError(f"SOURCE_DATE_EPOCH={epoch!r} is not a whole number of seconds since 1970")
    return int(epoch) * 1_000_000


def _labeled(options: EarlierRunOptions, spec: OutputSpec, output: str, scratch: Path) -> LocalIndex | None:
    if not options.skip_labeled:
        return None
    return labeled_index(options.skip_labeled, spec, output, changed=options.changed, folder=scratch)


def _selection(
    indexes: Mapping[str, LocalIndex | None], staging_dir: str = "", *, changed: bool
) -> SelectionOptions:
    """What of the references counts; without ``staging_dir`` as it is part of the plan's name."""
    labeled, only = (
        None if index is None else StagedIndex(staging_dir and storage.join(staging_dir, name), index.sha256)
        for name, index in indexes.items()
    )
    return SelectionOptions(labeled, changed, only)


def _source_options(options: InputOptions, inputs: Inputs, shard_rows: int | None) -> SourceOptions:
    return SourceOptions(
        base_dir=storage.absolute(options.base_dir or os.getcwd()),  # noqa: PTH109 (a string is wanted)
        columns=inputs.columns,
        limit=options.limit,
        sample=options.sample,
        shard_rows=shard_rows,
    )


def _load_options(options: LoadingOptions, decode: DecodeOptions) -> LoadOptions:
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


def _derived(options: JobOptions, artifact: Artifact) -> Derived:
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
            max_pixels=options.loading.max_pixels,
            batch_size=options.inference.batch_size,
            worker_threads=options.loading.worker_threads,
            keep_pixels=options.run.report,
        )
    except WishError as error:
        raise UsageError(f"--{_OPTIONS.get(error.argument, error.argument)}{error.detail}") from error
    except OSError as error:
        raise UsageError(f"--labels {module.labels!r}: {error}") from error


def _preprocessing(options: ModuleOptions, artifact: Artifact, predict: PredictOptions) -> dict[str, Any]:
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
    options: OutputOptions,
    inputs: Inputs,
    artifact: Artifact,
    predict: PredictOptions,
    preprocessing: Mapping[str, Any],
) -> OutputSpec:
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
    job: LabelJob, options: JobOptions, artifact: Artifact, preprocessing: Mapping[str, Any]
) -> dict[str, Any]:
    """What ``publish`` has to know of a run, also when another process publishes it."""
    tfrecord = job.spec.format == "tfrecord"
    manifest = {
        "schema_version": schema.CURRENT_SCHEMA_VERSION,
        "run_id": job.run_id,
        "plan_id": job.plan_id,
        "module": {**dataclasses.asdict(artifact.spec), "handle": public_uri(artifact.spec.handle)},
        "preprocessing": preprocessing,
        "metadata": job.spec.metadata,
        "options": {
            **options.flat(),
            "module": public_uri(options.module.module),
            "input": [storage.absolute(pattern) for pattern in options.inputs.input],
            "base_dir": job.source.base_dir,
        },
        "kept_columns": {name: str(kind) for name, kind in job.spec.kept_fields},
        "input_files": [dataclasses.asdict(file) for file in job.files],
        "versions": {"beamlabel": __version__, "python": platform.python_version(), **_versions()},
    }
    return {
        "run_id": job.run_id,
        "max_error_rate": options.run.max_error_rate,
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
