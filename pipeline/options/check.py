"""Checks between options, and the values that follow from other options."""

from __future__ import annotations

import dataclasses
from datetime import datetime, timezone

from beamlabel.pipeline.errors import UsageError
from beamlabel.pipeline.options.job_options import (
    DEFAULT_CALIBRATION_IMAGES,
    INT8,
    INT8_OR_FLOAT32,
    JobOptions,
)
from beamlabel.transforms.loading.web.http_options import check_headers
from beamlabel.transforms.storage import beam_setup
from beamlabel.transforms.storage.uris import scheme


def checked(options: JobOptions) -> JobOptions:
    """Returns the options with ``run_date`` set, and with ``{date}`` in ``output`` replaced by it.

    Raises:
      UsageError: an option is empty or conflicts with another.
    """
    _check_not_empty(options)
    _check_libraries(options)
    _check_references(options)
    _check_formats(options)
    _check_calibration(options)
    _check_web(options)
    date = options.run.run_date or datetime.now(timezone.utc).date().isoformat()
    output = options.output.output.replace("{date}", date)
    return dataclasses.replace(
        options,
        run=dataclasses.replace(options.run, run_date=date),
        output=dataclasses.replace(options.output, output=output),
    )


def _check_libraries(options: JobOptions) -> None:
    """Refuses a path, in any option, of a storage system that this installation cannot read."""
    for group in dataclasses.fields(options):
        for name, value in vars(getattr(options, group.name)).items():
            for text in value if isinstance(value, tuple) else (value,):
                kind = scheme(text) if isinstance(text, str) else None
                if kind is not None and beam_setup.is_lacking(kind):
                    raise UsageError(f"--{name} {text!r}: {beam_setup.lacking(kind)}")


def _check_not_empty(options: JobOptions) -> None:
    named = {
        "input": options.inputs.input,
        "output": (options.output.output,),
        "module": (options.module.module,),
        "base_dir": (options.inputs.base_dir,),
    }
    for name, values in named.items():
        if "" in values:
            raise UsageError(f"--{name} is empty")


def _check_references(options: JobOptions) -> None:
    inputs, earlier = options.inputs, options.earlier
    if not inputs.input and not earlier.retry_failures:
        raise UsageError("the following arguments are required: --input")
    for name in ("changed", "retry_known_failures", "tombstones"):
        if getattr(earlier, name) and not earlier.skip_labeled:
            raise UsageError(f"--{name} needs --skip_labeled, which names the earlier outputs")
    if earlier.tombstones:
        partial = {
            "limit": inputs.limit,
            "sample": inputs.sample < 1,
            "retry_failures": earlier.retry_failures,
        }
        if named := next((name for name, value in partial.items() if value), None):
            raise UsageError(f"--tombstones needs the whole input, but --{named} selects a part of it")
    least = options.run.min_input
    if least is not None and inputs.limit is not None and least > inputs.limit:
        raise UsageError(f"--min_input {least} is greater than --limit {inputs.limit}")
    if earlier.reasons and not earlier.retry_failures:
        raise UsageError(f"--reasons {','.join(earlier.reasons)} needs --retry_failures")
    if inputs.input_format == "images":
        for name, value in (("uri_column", inputs.uri_column), ("image_column", inputs.image_column)):
            if value:
                raise UsageError(f"--{name} is for inputs with columns, not for --input_format images")


def _check_formats(options: JobOptions) -> None:
    output, inference = options.output, options.inference
    if output.tfrecord_compression != "none" and output.output_format != "tfrecord":
        raise UsageError(
            f"--tfrecord_compression {output.tfrecord_compression} needs --output_format tfrecord"
        )
    if inference.precision != "float32" and inference.engine not in ("auto", "openvino"):
        raise UsageError(
            f"--precision {inference.precision} does not work with --engine {inference.engine}; use --engine auto"
        )


def _check_calibration(options: JobOptions) -> None:
    inference = options.inference
    quantizes = inference.precision in (INT8, INT8_OR_FLOAT32)
    if inference.calibration_images != DEFAULT_CALIBRATION_IMAGES and not quantizes:
        raise UsageError(f"--calibration_images {inference.calibration_images} needs --precision {INT8}")


def _check_web(options: JobOptions) -> None:
    loading = options.loading
    try:
        check_headers([(one.name, one.value) for one in loading.http_header], "--http_header")
    except ValueError as error:
        raise UsageError(str(error)) from None
    needed = {
        "http_header": bool(loading.http_header),
        "user_agent": loading.user_agent is not None,
        "ignore_robots_tag": loading.ignore_robots_tag,
    }
    for name, is_given in needed.items():
        if is_given and not loading.allow_http:
            raise UsageError(f"--{name} needs --allow_http; without it, no http URI is fetched")
