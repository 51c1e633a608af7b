"""Turns options into everything that the graph needs: compiles the module and names the plan."""

from __future__ import annotations

import dataclasses
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from beamlabel.pipeline import layout
from beamlabel.pipeline.earlier.chosen_outputs import ChosenOutputs
from beamlabel.pipeline.earlier.features import WantedFeatures
from beamlabel.pipeline.earlier.indexes import LocalIndex, earlier_indexes, later_than
from beamlabel.pipeline.earlier.reuse_features import head_of, wanted_features
from beamlabel.pipeline.earlier.tombstones import TombstoneOptions
from beamlabel.pipeline.earlier.wanted import NamedInput, Wanted
from beamlabel.pipeline.errors import UsageError
from beamlabel.pipeline.job.facts import facts_of, versions
from beamlabel.pipeline.job.label_job import LabelJob
from beamlabel.pipeline.job.preflight import Inputs
from beamlabel.pipeline.job.prepare_head import prepare_head
from beamlabel.pipeline.job.prepare_module import module_process, prepare_artifact, resolve_chosen
from beamlabel.pipeline.job.retry_failures import FailedReferences
from beamlabel.pipeline.job.settings import (
    derived_options,
    input_images,
    load_options,
    named_input,
    output_spec,
    source_options,
)
from beamlabel.pipeline.options.job_options import (
    INT8,
    INT8_OR_FLOAT32,
    EarlierRunOptions,
    JobOptions,
    ModuleOptions,
)
from beamlabel.pipeline.output import staging
from beamlabel.pipeline.output.place import output_place
from beamlabel.pipeline.quantize.prepare import check_nncf, prepare_int8
from beamlabel.transforms import storage
from beamlabel.transforms.deadline import timeouts
from beamlabel.transforms.deadline.watchdog import BatchDeadline
from beamlabel.transforms.hub.resolve import ResolvedModule
from beamlabel.transforms.inference.artifact import Artifact
from beamlabel.transforms.inference.options import HeadArtifact, PredictOptions
from beamlabel.transforms.inputs.selection import SelectionOptions, StagedIndex
from beamlabel.transforms.inputs.sources.source import SourceOptions
from beamlabel.transforms.loading.load_options import LoadOptions
from beamlabel.transforms.module_process.process import ModuleProcess
from beamlabel.transforms.output_spec import canonical_sha256, labeled_at, preprocessing_of
from beamlabel.transforms.rows import metadata_keys
from beamlabel.transforms.rows.schema import OutputSpec, arrow_schema
from beamlabel.transforms.rows.tf_examples import check_installed
from beamlabel.transforms.units.time_limit import TimeLimit

_OF_FEATURES = (layout.FEATURES, layout.FEATURE_SHARDS)


@dataclass(frozen=True)
class Plan:
    """A job before anything is written.

    Attributes:
      job: the settings for the graph.
      staged: local files that workers open, by their path in the staging directory.
      facts: the facts of the run that ``publish`` needs, even in another process.
    """

    job: LabelJob
    staged: dict[str, Path]
    facts: dict[str, Any]


def plan(
    options: JobOptions,
    inputs: Inputs,
    scratch: Path,
    started_at: float | None = None,
    failed: FailedReferences | None = None,
) -> Plan:
    """Makes the job; writes only to the cache and to ``scratch``.

    Args:
      options: the job's options, from ``options.parse``.
      inputs: the result of ``preflight.check_inputs``.
      scratch: a temporary directory that exists until the plan is staged.
      started_at: start of the run, in seconds since 1970; None: now.
      failed: the only references to label; None for all.

    Raises:
      UsageError: the options do not fit the module.
    """
    started_at = time.time() if started_at is None else started_at
    _check_installed(options.output.output_format)
    with module_process(options.module) as process:
        return _plan(options, inputs, scratch, started_at, failed, process)


def _plan(
    options: JobOptions,
    inputs: Inputs,
    scratch: Path,
    started_at: float,
    failed: FailedReferences | None,
    process: ModuleProcess,
) -> Plan:
    resolved = resolve_chosen(options.module, process=process)
    options, artifact = _module(options, inputs, resolved, process)
    output = output_place(options.output.output)
    try:
        derived = derived_options(options, artifact)
        if inputs.features is not None:
            derived = dataclasses.replace(derived, decoder=inputs.features.preprocessing["decoder"])
        predict = dataclasses.replace(derived.predict, billing_project=options.loading.billing_project)
        source = source_options(options.inputs, inputs, options.output.shard_rows, options.loading)
        load = load_options(options.loading, derived.decode)
        spec = output_spec(options.output, inputs, derived)
        spec = dataclasses.replace(spec, labeled_at=labeled_at(started_at))
    except (OSError, ValueError) as error:
        raise UsageError(str(error)) from error
    features = wanted_features(resolved, derived) if options.earlier.skip_labeled else None
    if features is None:
        process.close()  # it is not needed any more, and holds memory
    named = _named(options, inputs, source.base_dir)
    spec, indexes = _earlier(options, spec, output, named, scratch, features)
    head = head_of(resolved, artifact, derived, process) if layout.FEATURES in indexes else None
    indexes = _that_count(indexes, failed, scratch, has_head=head is not None)
    source = dataclasses.replace(source, selection=_selection(indexes))
    plan_id = _plan_id(inputs, source, load, spec, options.module)
    spec = dataclasses.replace(spec, metadata={**spec.metadata, metadata_keys.PLAN_ID: plan_id})
    staging_dir = storage.join(staging.root(output), plan_id)
    deadline = BatchDeadline(timeouts.directory(staging_dir), options.inference.inference_deadline)
    predict, staged = _staged(dataclasses.replace(predict, deadline=deadline), staging_dir, artifact, head)
    source = dataclasses.replace(source, selection=_selection(indexes, staging_dir))
    run_id = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime()) + "-" + secrets.token_hex(3)
    limit = None if options.run.time_limit is None else TimeLimit(options.run.time_limit, run_id, started_at)
    # A report changes no shard, so it is not part of the plan: a run with a report may resume a run without one.
    job = LabelJob(
        output, staging_dir, plan_id, run_id, inputs.files, source, load, predict, spec, limit,
        None if failed is None else len(failed.ref_ids), report=options.run.report,
        tombstones=_tombstones(source.selection, indexes, staging_dir, spec, run_id, options.earlier),
    )  # fmt: skip
    facts = facts_of(job, options, artifact, preprocessing_of(derived))
    facts |= {"started_at": started_at, "left_out": inputs.left_out}
    if inputs.features is not None:
        facts["manifest"]["relabeled"] = inputs.features.told()
    staged |= {storage.join(staging_dir, name): index.path for name, index in indexes.items()}
    return Plan(job, staged, facts)


def _module(
    options: JobOptions, inputs: Inputs, resolved: ResolvedModule, process: ModuleProcess
) -> tuple[JobOptions, Artifact]:
    """The artifact that labels the inputs, and its options; for embeddings the module's head, with their options."""
    quantizes = options.inference.precision in (INT8, INT8_OR_FLOAT32)
    if inputs.features is None:
        if not quantizes:
            return options, prepare_artifact(
                options.module, options.inference, resolved=resolved, process=process
            )
        check_nncf()
        artifact = prepare_artifact(options.module, options.inference, resolved=resolved, process=process)
        process.close()
        derived = derived_options(options, artifact)
        images = input_images(options, inputs, derived)
        return options, prepare_int8(
            artifact,
            images,
            calibration_images=options.inference.calibration_images,
            scores=derived.predict.scores,
            or_float32=options.inference.precision == INT8_OR_FLOAT32,
        )
    if quantizes:
        raise UsageError(
            f"--precision {options.inference.precision} does not apply to embeddings: the module's head labels them in "
            "float32, and they keep the precision that they were computed in"
        )
    module, artifact = prepare_head(options.module, options.inference, inputs.features, process)
    return dataclasses.replace(options, module=module), artifact


def _named(options: JobOptions, inputs: Inputs, base_dir: str) -> NamedInput:
    has_lists = any(file.format != "images" for file in inputs.files)
    return named_input(options.inputs, base_dir if has_lists else None)


def _that_count(
    indexes: dict[str, LocalIndex], failed: FailedReferences | None, scratch: Path, *, has_head: bool
) -> dict[str, LocalIndex]:
    """The indexes that the workers use; those of features only if there is a head for them."""
    if not has_head:
        indexes = {name: index for name, index in indexes.items() if name not in _OF_FEATURES}
    if failed is not None:
        # References that the user wants to retry must not be skipped as known failures.
        indexes = {**indexes, layout.ONLY: failed.index(scratch)}
        indexes.pop(layout.FAILED, None)
    return indexes


def _staged(
    predict: PredictOptions, staging_dir: str, artifact: Artifact, head: Artifact | None
) -> tuple[PredictOptions, dict[str, Path]]:
    """The options with the staged paths of the artifacts, and the files to stage, see ``Plan``."""
    path = storage.join(staging_dir, layout.ARTIFACT)
    predict = dataclasses.replace(predict, artifact_path=path)
    if head is None:
        return predict, {path: Path(artifact.path)}
    head_path = storage.join(staging_dir, layout.HEAD)
    predict = dataclasses.replace(predict, head=HeadArtifact(head_path, head.sha256))
    return predict, {path: Path(artifact.path), head_path: Path(head.path)}


def _check_installed(output_format: str) -> None:
    if output_format == "tfrecord":
        try:
            check_installed()
        except ImportError as error:
            raise UsageError(f"--output_format tfrecord: {error}") from error


def _earlier(
    options: JobOptions,
    spec: OutputSpec,
    output: str,
    named: NamedInput,
    scratch: Path,
    features: WantedFeatures | None,
) -> tuple[OutputSpec, dict[str, LocalIndex]]:
    """The spec, dated after the earlier outputs, and their indexes by name in the staging directory."""
    earlier = options.earlier
    if not earlier.skip_labeled:
        return spec, {}
    wanted = Wanted(
        spec, output, named, options.loading.max_bytes, options.loading.max_pixels, versions(),
        changed=earlier.changed, known_failures=not earlier.retry_known_failures, tombstones=earlier.tombstones,
        outputs=ChosenOutputs(
            options.module.logits_output, options.module.features_output, spec.metadata.get(metadata_keys.FEATURES_ID)
        ),
        features=features,
    )  # fmt: skip
    indexes = earlier_indexes(earlier.skip_labeled, wanted, scratch)
    spec = dataclasses.replace(spec, labeled_at=later_than(indexes.newest_at, spec.labeled_at))
    return spec, indexes.by_name()


def _selection(indexes: Mapping[str, LocalIndex], staging_dir: str = "") -> SelectionOptions:
    """The selection of references; without ``staging_dir``, in the form that enters the plan's name."""

    def staged(name: str) -> StagedIndex | None:
        index = indexes.get(name)
        if index is None:
            return None
        return StagedIndex(staging_dir and storage.join(staging_dir, name), index.sha256, index.value_bytes)

    names = (layout.LABELED, layout.FAILED, layout.ONLY, layout.LIVE, *_OF_FEATURES)
    return SelectionOptions(*map(staged, names))


def _tombstones(
    selection: SelectionOptions,
    indexes: Mapping[str, LocalIndex],
    staging_dir: str,
    spec: OutputSpec,
    run_id: str,
    options: EarlierRunOptions,
) -> TombstoneOptions | None:
    if selection.live is None:
        return None
    shards = StagedIndex(storage.join(staging_dir, layout.LIVE_SHARDS), indexes[layout.LIVE_SHARDS].sha256)
    return TombstoneOptions(selection.live, shards, spec.labeled_at, run_id, options.max_deleted_rate)


def _plan_id(
    inputs: Inputs, source: SourceOptions, load: LoadOptions, spec: OutputSpec, module: ModuleOptions
) -> str:
    """A hash of all settings that affect the rows of a unit: equal plans may share units."""
    plan = {
        "files": [dataclasses.astuple(file) for file in inputs.files],
        # The paying project changes no row.
        "source": dataclasses.asdict(dataclasses.replace(source, billing_project=None)),
        "fetch": load.fetch.identity(),
        "max_pixels": load.decode.max_pixels,
        "decode_deadline": load.decode.decode_deadline,
        "schema": str(arrow_schema(spec).remove_metadata()),
        "metadata": spec.metadata,
        "top_k": spec.top_k,
        "outputs": [module.logits_output, module.features_output],
        "format": spec.file_ending,
    }
    return canonical_sha256(plan)[:16]
