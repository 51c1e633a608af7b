"""``beamlabel relabel``: the labeling job with rows of earlier outputs and their embeddings as input."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from beamlabel.pipeline.errors import UsageError
from beamlabel.pipeline.options.check import checked
from beamlabel.pipeline.options.declare import positionals
from beamlabel.pipeline.options.job_options import (
    EarlierRunOptions,
    InferenceOptions,
    InputOptions,
    JobOptions,
    LoadingOptions,
    ModuleOptions,
    OutputOptions,
    RunOptions,
    job_options,
)
from beamlabel.pipeline.options.parser import Parser, add_options, check_rest, values_of
from beamlabel.transforms.row_batches import EMBEDDINGS

# The job's options that make sense without images; the outputs determine the others.
_OPTIONS = {
    InputOptions: {"limit"},
    ModuleOptions: {
        "module",
        "module_fingerprint",
        "allow_unsafe_ops",
        "labels",
        "top_k",
        "scores",
        "no_embeddings",
        "module_deadline",
        "module_memory",
    },
    LoadingOptions: {"billing_project", "worker_processes"},
    OutputOptions: {"output", "output_format", "tfrecord_compression", "shard_rows"},
    RunOptions: {
        "run_date",
        "max_error_rate",
        "min_failures",
        "min_input",
        "report",
        "if_exists",
        "time_limit",
    },
}


@dataclass(frozen=True, kw_only=True)
class RelabelOptions:
    """The outputs to label again."""

    outputs: tuple[str, ...] = positionals(
        metavar="OUTPUT",
        help="earlier outputs, directories of outputs or globs; local, gs://, s3:// or azfs://",
    )


def parse(argv: Sequence[str]) -> tuple[JobOptions, list[str]]:
    """Parses the options of the labeling job and the remaining arguments for the runner.

    Raises:
      UsageError: a missing option, a bad value, or an option that this command does not take.
      SystemExit: after ``--help``.
    """
    found, rest = _parser().parse_known_args(argv)
    taken = {name for names in _OPTIONS.values() for name in names}
    for word in rest:
        name = word.split("=", 1)[0].removeprefix("--")
        if word.startswith("--") and name in {one.name for one in job_options()} - taken:
            raise UsageError(
                f"--{name} is not an option of relabel, which reads no images: the outputs record how their images "
                "were decoded and embedded"
            )
    check_rest(rest, taken)
    outputs = values_of(RelabelOptions, found).outputs
    inputs = dataclasses.replace(values_of(InputOptions, found), input=outputs, input_format=EMBEDDINGS)
    options = JobOptions(
        inputs=inputs,
        earlier=EarlierRunOptions(),
        module=values_of(ModuleOptions, found),
        inference=InferenceOptions(),
        loading=values_of(LoadingOptions, found),
        output=values_of(OutputOptions, found),
        run=values_of(RunOptions, found),
    )
    return checked(options), rest


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="beamlabel relabel",
        usage="%(prog)s OUTPUT ... --module MODULE --output DIR [option ...]",
        description="Classifies the rows of earlier outputs by their embeddings with a module that `beamlabel train` "
        "wrote. No image is fetched. This is the labeling job with another input, on any runner.",
        epilog="Options not listed here go to the Beam runner; put them last. "
        "Exit codes: 0 done, 1 too many failures, 2 wrong usage or the output exists, 3 the job failed, "
        "4 out of time, 75 the output is locked by another run, 130/143 cancelled.",
        allow_abbrev=False,
    )
    add_options(parser, RelabelOptions)
    for group, names in _OPTIONS.items():
        add_options(parser, group, only=names)
    return parser
