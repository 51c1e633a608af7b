"""``beamlabel train``: rows with a truth → a head → a module, with its record and report."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from beamlabel.pipeline import layout
from beamlabel.pipeline.errors import UsageError
from beamlabel.pipeline.job.facts import versions
from beamlabel.pipeline.options.fetch_rights import FetchRights
from beamlabel.pipeline.output.place import output_place
from beamlabel.pipeline.places.outputs import check_directory
from beamlabel.pipeline.report.thumbnails import load_options_of
from beamlabel.pipeline.train.findings.evaluate_head import findings_of, proportion, right
from beamlabel.pipeline.train.findings.findings import SPLITS, CurvePoint, Findings
from beamlabel.pipeline.train.findings.suspects import suspects_of
from beamlabel.pipeline.train.head.fit_head import FittedHead, fit_head, probabilities_of
from beamlabel.pipeline.train.module.base_module import description_of, load_base
from beamlabel.pipeline.train.module.export import ExportBase, export_module
from beamlabel.pipeline.train.report.page import training_page
from beamlabel.pipeline.train.report.pictures import pictures_of
from beamlabel.pipeline.train.rows.features import features_of
from beamlabel.pipeline.train.rows.options import HeadOptions, ResultOptions, RowsOptions
from beamlabel.pipeline.train.rows.rows import TrainingRows, gather_rows
from beamlabel.pipeline.train.rows.split import TEST, VALIDATION
from beamlabel.pipeline.truth.options import TruthOptions
from beamlabel.transforms import storage
from beamlabel.transforms.hub.files import SAVED_MODEL
from beamlabel.transforms.module_process.process import ModuleProcess
from beamlabel.transforms.own_module.description import Description
from beamlabel.transforms.own_module.head import Head

_PACKAGES = ("keras", "scikit-learn", "scipy", "cleanlab")

Progress = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """All options for training a head."""

    rows: RowsOptions
    truth: TruthOptions
    head: HeadOptions
    result: ResultOptions
    rights: FetchRights = field(default_factory=FetchRights)


def train(options: TrainOptions, progress: Progress = lambda text: None) -> Findings:
    """Trains a head and writes base and head as a module, with ``_TRAINING.json`` and ``_report.html``.

    Args:
      options: options of rows, truth, head and result.
      progress: receives lines of progress.

    Raises:
      UsageError: outputs, truth, module or ``--output`` are unsuitable.
      OSError, ValueError: a file cannot be read or written; nothing is left at ``--output``.
    """
    check_is_new(options.result.output)
    rows = gather_rows(options.rows, options.truth)
    sizes = np.bincount(rows.split, minlength=3)
    progress(
        f"{len(rows)} of {rows.read} rows, {len(rows.classes)} classes: "
        + ", ".join(f"{size} {name}" for size, name in zip(sizes, SPLITS, strict=True))
    )
    for problem in rows.problems:
        examples = f": {', '.join(problem.examples)}" if problem.examples else ""
        progress(f"{problem.count} {problem.what}{examples}")
    with ModuleProcess(options.rows.limits) as process:
        module = load_base(
            rows.base,
            options.rows.module,
            process,
            fingerprint=options.rows.module_fingerprint,
            allow_unsafe_ops=options.rows.allow_unsafe_ops,
        )
    features = features_of(rows)
    fitted = fit_head(features, rows, options.head, progress)
    progress("evaluating")
    findings = _findings(features, rows, fitted, options)
    description = description_of(module, rows.base, fitted.head, rows.classes)
    base = ExportBase.of_module(module)
    write_module(base, fitted.head, description, findings, rows, options, progress)
    return findings


def write_module(
    base: ExportBase,
    head: Head,
    description: Description,
    findings: Findings,
    rows: TrainingRows,
    options: TrainOptions,
    progress: Progress,
) -> None:
    """Writes the module with its record and its report, atomically."""
    output, rights = options.result.output, options.rights
    progress("fetching pictures for the report")
    load = load_options_of(rows.base.options, rows.base.preprocessing, rights)
    page = training_page(findings, pictures_of(findings, load))
    beside = {layout.TRAINING: findings.to_json().encode(), layout.REPORT: page.encode()}
    progress("writing the module")
    try:
        export_module(base, head, description, output, beside=beside)
    except FileExistsError as error:
        raise UsageError(f"--output {output!r}: {error}") from error


def check_is_new(output: str) -> None:
    """Refuses an output that exists or cannot be written, before the training instead of after it.

    Raises:
      UsageError: the output exists or cannot be checked, or a local directory cannot be made there or is inside the
        output of a run.
    """
    try:
        output_place(output)
        path = storage.absolute(output).rstrip("/")
        is_there = (
            os.path.lexists(path)
            if storage.is_local(path)
            else storage.exists(storage.join(path, SAVED_MODEL))
        )
    except (OSError, ValueError) as error:
        raise UsageError(f"--output {output!r}: {error}") from error
    if is_there:
        raise UsageError(f"--output {output!r} exists: name another directory or delete it")
    check_directory("--output", output)
    if storage.is_local(path):
        around = [
            directory
            for directory in Path(os.path.realpath(path)).parents
            if (directory / layout.MANIFEST).exists()
        ]
        if around:
            raise UsageError(
                f"--output {output!r} is inside {around[0]}, the output of a run; name another directory"
            )


def _findings(
    features: np.ndarray, rows: TrainingRows, fitted: FittedHead, options: TrainOptions
) -> Findings:
    test = np.flatnonzero(rows.split == TEST)
    probabilities = probabilities_of(features, fitted.head)
    # That head was trained on the validation images, so these are evaluated with the earlier head.
    asked = np.flatnonzero(rows.split == VALIDATION)
    probabilities[asked] = probabilities_of(features, fitted.validated, places=asked)
    uncalibrated = probabilities_of(features, fitted.head, fitted.temperature, places=test)
    tested = [(images, probabilities_of(features, head, places=test)) for images, head in fitted.curve]
    return findings_of(
        probabilities,
        rows,
        temperature=fitted.temperature,
        uncalibrated=uncalibrated,
        suspects=suspects_of(fitted.out_of_sample, rows, options.result.max_suspects),
        curve=[CurvePoint(images, proportion(right(said, rows.targets[test]))) for images, said in tested],
        history=fitted.history,
        facts={**facts_of(rows, options.rows, options.truth), "head": _head_facts(fitted, options.head)},
    )


def facts_of(rows: TrainingRows, options: RowsOptions, truth: TruthOptions) -> dict[str, Any]:
    """The entries of ``_TRAINING.json`` besides the numbers: base, truth, split, options, versions."""
    base = rows.base
    sizes = np.bincount(rows.split, minlength=3)
    return {
        "base": {
            "handle": base.handle,
            "fingerprint": base.fingerprint,
            "features_id": base.features_id,
            "embedding_dim": base.embedding_dim,
            "normalized": base.normalized,
            "preprocessing": base.preprocessing,
        },
        "truth": {
            "from": list(truth.truth),
            "sha256": truth_sha256(rows),
            "images": len(rows),
            "rows": rows.read,
        },
        "split": {
            "by": options.split_column or "content_hash",
            "seed": rows.seed,
            "shares": None if options.split_column else list(options.split),
            **{name: int(size) for name, size in zip(SPLITS, sizes, strict=True)},
        },
        "options": {"outputs": list(options.outputs), "min_images": options.min_images},
        "versions": {**versions(), **_versions()},
    }


def truth_sha256(rows: TrainingRows) -> str:
    """A hash of each image's ``image_id``, classes and split: equal if the same images had the same truth."""

    digest = hashlib.sha256("\0".join(rows.classes).encode())
    digest.update("".join(rows.table.column("image_id").to_pylist()).encode())
    digest.update(np.ascontiguousarray(rows.targets).tobytes())
    digest.update(rows.split.tobytes())
    return digest.hexdigest()


def _head_facts(fitted: FittedHead, options: HeadOptions) -> dict[str, Any]:
    return {
        "l2": fitted.l2,
        "epochs": fitted.epochs,
        "temperature": fitted.temperature,
        "class_weights": options.class_weights,
        "trained_on": ["train", "validation"],
    }


def _versions() -> dict[str, str]:
    return {package: importlib.metadata.version(package) for package in _PACKAGES}
