"""Derives the settings of each step and the columns of the output from the options and the module."""

from __future__ import annotations

import os
from collections.abc import Sequence

from beamlabel.pipeline.earlier.wanted import NamedInput
from beamlabel.pipeline.errors import UsageError
from beamlabel.pipeline.job.preflight import Inputs
from beamlabel.pipeline.options.declare import declared
from beamlabel.pipeline.options.job_options import (
    InputOptions,
    JobOptions,
    LoadingOptions,
    OutputOptions,
)
from beamlabel.pipeline.quantize.sample_images import InputImages
from beamlabel.transforms import storage
from beamlabel.transforms.decoding.decode import DecodeOptions
from beamlabel.transforms.derive import Derived, derive
from beamlabel.transforms.inference.artifact import Artifact
from beamlabel.transforms.inference.options import AUTO, WishError
from beamlabel.transforms.inputs.sources.source import MAX_UNIT_ROWS, MIN_UNIT_ROWS, SourceOptions
from beamlabel.transforms.loading.fetch import FetchOptions
from beamlabel.transforms.loading.load_options import LoadOptions, window
from beamlabel.transforms.loading.web.http_options import HttpOptions
from beamlabel.transforms.output_spec import output_spec_of
from beamlabel.transforms.records import InputFile
from beamlabel.transforms.rows.schema import OutputSpec
from beamlabel.transforms.secrets.text import public_uri
from beamlabel.transforms.units.shared_units import is_small

# Options that are recorded separately, or that only make the input smaller.
_NOT_OF_THE_NAME = ("input", "base_dir", "limit", "sample")
# The command's names of arguments that `derive` names differently.
_OPTIONS = {"class_names": "labels", "embeddings": "no_embeddings"}


def source_options(
    options: InputOptions, inputs: Inputs, shard_rows: int | None, loading: LoadingOptions
) -> SourceOptions:
    """The settings that turn inputs into references."""
    return SourceOptions(
        base_dir=storage.absolute(options.base_dir or os.getcwd()),  # noqa: PTH109 (a string is wanted)
        columns=inputs.columns,
        limit=options.limit,
        sample=options.sample,
        shard_rows=shard_rows,
        min_unit_rows=least_unit_rows(inputs.files),
        files=inputs.wanted,
        billing_project=loading.billing_project,
        max_bytes=loading.max_bytes,
    )


def least_unit_rows(files: Sequence[InputFile]) -> int:
    """The minimum number of references per unit.

    Each large file begins with small units, which is unnecessary with many files. A thousand files of a million
    references would be 427 units each without this minimum, and are 100 each with it.
    """
    large = sum(not is_small(file) for file in files)
    return min(MIN_UNIT_ROWS * max(large // 4, 1), MAX_UNIT_ROWS)


def input_names() -> frozenset[str]:
    """The options, besides ``input`` and ``base_dir``, that affect the references of an input."""
    return frozenset(one.name for one in declared(InputOptions)) - {*_NOT_OF_THE_NAME}


def named_input(options: InputOptions, base_dir: str | None) -> NamedInput:
    """The name of the input as a manifest records it, without credentials.

    Args:
      options: that name the input.
      base_dir: of relative references, absolute; None if there are none.
    """
    names = input_names()
    others = {
        one.name: (_as_json(getattr(options, one.name)), _as_json(one.default))
        for one in declared(InputOptions)
        if one.name in names
    }
    patterns = frozenset(public_uri(storage.absolute(pattern)) for pattern in options.input)
    return NamedInput(patterns, others, None if base_dir is None else public_uri(base_dir))


def _as_json(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


def load_options(options: LoadingOptions, decode: DecodeOptions) -> LoadOptions:
    """The settings for loading images."""
    return LoadOptions(
        FetchOptions(
            max_bytes=options.max_bytes,
            deadline=options.fetch_deadline,
            allow_http=options.allow_http,
            allow_private_hosts=options.allow_private_hosts,
            http=HttpOptions(
                headers=tuple((one.name, one.value) for one in options.http_header),
                user_agent=options.user_agent,
                ignore_robots_tag=options.ignore_robots_tag,
                per_host=options.http_per_host,
            ),
            billing_project=options.billing_project,
            allowed_schemes=options.allowed_schemes,
        ),
        decode,
        threads=options.load_threads,
        window=window(options.load_threads),
        worker_threads=options.worker_threads,
    )


def input_images(options: JobOptions, inputs: Inputs, derived: Derived) -> InputImages:
    """The job's settings to read and decode its input, to take a sample of it.

    Raises:
      UsageError: an option has a wrong value.
    """
    try:
        source = source_options(options.inputs, inputs, options.output.shard_rows, options.loading)
        return InputImages(inputs.files, source, load_options(options.loading, derived.decode))
    except (OSError, ValueError) as error:
        raise UsageError(str(error)) from error


def derived_options(options: JobOptions, artifact: Artifact) -> Derived:
    """Derives the settings from the module and the options; errors name the command's options."""
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
            decode_deadline=options.loading.decode_deadline,
            batch_size=options.inference.batch_size,
            worker_threads=options.loading.worker_threads,
            keep_pixels=options.run.report,
        )
    except WishError as error:
        raise UsageError(f"--{_OPTIONS.get(error.argument, error.argument)}{error.detail}") from error
    except OSError as error:
        raise UsageError(f"--labels {module.labels!r}: {error}") from error


def output_spec(options: OutputOptions, inputs: Inputs, derived: Derived) -> OutputSpec:
    """The columns of the output and the metadata of its files."""
    return output_spec_of(
        derived,
        output_format=options.output_format,
        compression=options.tfrecord_compression,
        kept_fields=inputs.kept,
    )
