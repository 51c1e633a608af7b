"""Checks the requirements of a Dataflow job."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import secrets
from pathlib import Path
from typing import Any

from apache_beam.options.pipeline_options import (
    GoogleCloudOptions,
    PipelineOptions,
    SetupOptions,
    WorkerOptions,
)
from apache_beam.options.pipeline_options_validator import PipelineOptionsValidator
from apache_beam.runners import create_runner

from beamlabel.pipeline.errors import UsageError
from beamlabel.transforms import storage
from beamlabel.transforms.extras.install import install_extra

_CLIENT = "apache_beam.runners.dataflow.internal.apiclient"


def check_dataflow(options: PipelineOptions) -> None:
    """Refuses mistakes that Dataflow or Beam's client for it would report only after the submission.

    Raises:
      UsageError: a requirement is missing; the message names the option to set.
    """
    _check_client()
    cloud = options.view_as(GoogleCloudOptions)
    if not cloud.project:
        raise UsageError("--runner DataflowRunner needs --project, the Google Cloud project that pays")
    # Beam's own rule for the region, without asking gcloud for it.
    if not cloud.region and not os.environ.get("CLOUDSDK_COMPUTE_REGION"):
        raise UsageError("--runner DataflowRunner needs --region, such as us-central1")
    for name in ("temp_location", "staging_location", "template_location"):
        value = getattr(cloud, name)
        if value and not value.startswith("gs://"):
            raise UsageError(f"--{name} {value!r}: Dataflow needs it on gs://")
    if not cloud.temp_location:
        raise UsageError("--runner DataflowRunner needs --temp_location, a directory on gs://")
    setup = options.view_as(SetupOptions)
    if setup.setup_file and not Path(setup.setup_file).is_file():
        raise UsageError(f"--setup_file {setup.setup_file!r}: there is no such file")
    brings = (setup.setup_file, setup.extra_packages, setup.requirements_file)
    if not any((*brings, options.view_as(WorkerOptions).sdk_container_image)):
        raise UsageError(
            "--runner DataflowRunner: its workers have no beamlabel; use --sdk_container_image with an image that "
            "contains it, or --setup_file ./setup.py"
        )
    _check_by_beams_rules(options, cloud)
    for name in ("temp_location", "staging_location"):
        if value := getattr(cloud, name):
            _check_writable(f"--{name}", value)
    if cloud.template_location:
        _check_writable("--template_location", cloud.template_location.rpartition("/")[0])


def _check_client() -> None:
    # Without google_auth_httplib2, Beam would only warn, and then send requests without credentials.
    missing = "" if importlib.util.find_spec("google_auth_httplib2") else "google_auth_httplib2"
    try:
        importlib.import_module(_CLIENT)
    except ImportError as error:
        missing = str(error)
    if missing:
        raise UsageError(
            f"--runner DataflowRunner needs Beam's Dataflow client: {install_extra('dataflow')} (missing: {missing})"
        )


def _check_by_beams_rules(options: PipelineOptions, cloud: Any) -> None:
    """Applies Beam's own checks early; with a bad temp_location, Beam would even create a bucket."""
    validator = PipelineOptionsValidator(options, create_runner("DataflowRunner"))
    if not validator.is_service_runner():
        return  # --dataflow_endpoint names a service on this machine, which Beam does not check
    worker = options.view_as(WorkerOptions)
    errors = validator.validate_gcs_path(cloud, "temp_location")
    if cloud.staging_location:
        errors += validator.validate_gcs_path(cloud, "staging_location")
    errors += validator.validate_cloud_options(cloud)
    errors += validator.validate_num_workers(worker) + validator.validate_worker_region_zone(worker)
    if errors:
        raise UsageError(f"--runner DataflowRunner: {errors[0]}")


def _check_writable(option: str, directory: str) -> None:
    probe = storage.join(directory, f"beamlabel-probe-{secrets.token_hex(4)}")
    try:
        storage.write_bytes(probe, b"")
    except (OSError, ValueError) as error:
        raise UsageError(f"{option} {directory!r} cannot be written: {error}") from error
    with contextlib.suppress(
        OSError
    ):  # permission to create objects need not include permission to delete them
        storage.delete(probe)
