"""The facts of a run that ``publish`` needs, even in another process."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import platform
from collections.abc import Mapping
from typing import Any

from beamlabel import __version__
from beamlabel.pipeline.job.label_job import LabelJob
from beamlabel.pipeline.options.job_options import JobOptions
from beamlabel.transforms import storage
from beamlabel.transforms.inference.artifact import Artifact
from beamlabel.transforms.rows import schema
from beamlabel.transforms.rows.schema import arrow_schema
from beamlabel.transforms.rows.tf_examples import schema_pbtxt
from beamlabel.transforms.secrets.text import public_values

_PACKAGES = ("apache-beam", "ai-edge-litert", "openvino", "nncf", "tensorflow", "tensorflow-hub", "tfx-bsl", "pyarrow",
             "numpy", "opencv-python-headless", "pillow", "simplejpeg", "google-cloud-storage")  # fmt: skip


def facts_of(
    job: LabelJob, options: JobOptions, artifact: Artifact, preprocessing: Mapping[str, Any]
) -> dict[str, Any]:
    """Collects the facts of a run that ``publish`` needs, even in another process."""
    tfrecord = job.spec.format == "tfrecord"
    manifest: dict[str, Any] = {
        "schema_version": schema.CURRENT_SCHEMA_VERSION,
        "run_id": job.run_id,
        "plan_id": job.plan_id,
        "module": dataclasses.asdict(artifact.spec),
        "preprocessing": preprocessing,
        "metadata": job.spec.metadata,
        "labeled_at": job.spec.labeled_at,
        "options": {
            **options.flat(),
            "input": [storage.absolute(pattern) for pattern in options.inputs.input],
            "base_dir": job.source.base_dir,
            # Header values are secrets.
            "http_header": [header.name for header in options.loading.http_header],
        },
        "kept_columns": {name: str(kind) for name, kind in job.spec.kept_fields},
        "input_files": [dataclasses.asdict(dataclasses.replace(file, table=None)) for file in job.files],
        "versions": versions(),
    }
    if job.only_rows is not None:
        manifest["retried_failures"] = job.only_rows
    return {
        "run_id": job.run_id,
        "max_error_rate": options.run.max_error_rate,
        "min_failures": options.run.min_failures,
        "min_input": options.run.min_input,
        "schema_pbtxt": schema_pbtxt(arrow_schema(job.spec)) if tfrecord else None,
        "manifest": public_values(manifest),
    }


def versions() -> dict[str, str]:
    """The versions of beamlabel, Python and the packages that affect the results of a run."""
    found = {"beamlabel": __version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
