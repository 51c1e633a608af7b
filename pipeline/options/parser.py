"""The job's command line: plain argparse, declared once, answered before Beam is imported.

Options that are not known here go to the runner.
"""

from __future__ import annotations

import argparse
import difflib
import re
import sys
from collections.abc import Sequence
from datetime import datetime, timezone
from typing import NoReturn

from beamlabel import __version__
from beamlabel.pipeline.errors import UsageError
from beamlabel.pipeline.options.command_table import command_listing
from beamlabel.pipeline.options.types import (
    byte_size,
    date,
    duration,
    image_size,
    input_range,
    names,
    number,
    whole,
)

DEFAULT_BATCH_SIZE = 128
DEFAULT_TOP_K = 5
RESUME = "resume"

# Beam's, though it looks like one of ours misspelt: key=value, a label of a Dataflow job.
_LABEL_OF_JOB = "--label"


class Parser(argparse.ArgumentParser):
    """Raises where argparse would end the process."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(message)


def _add_input(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("input")
    group.add_argument(
        "--input",
        action="extend",
        nargs="+",
        metavar="PATTERN",
        help="needed, unless --retry_failures: file, folder (ending in /) or glob of inputs: local, file:// or "
        "gs://; repeatable; commas are not split",
    )
    group.add_argument(
        "--input_format",
        choices=("auto", "text", "parquet", "images"),
        default="auto",
        help="text: a URI a line; parquet: a URI a row; images: the matches are the images; auto: by content",
    )
    group.add_argument(
        "--uri_column",
        metavar="NAME",
        help="Parquet column of URIs (default: uri, url, path, or the only string)",
    )
    group.add_argument(
        "--image_column",
        metavar="NAME",
        help="Parquet column of encoded images: binary, or struct of bytes and path",
    )
    group.add_argument(
        "--keep_columns",
        action="extend",
        nargs="+",
        default=[],
        metavar="NAME",
        help="Parquet columns to hand through",
    )
    group.add_argument(
        "--base_dir",
        metavar="DIR",
        help="what relative references are relative to (default: the current folder)",
    )
    group.add_argument("--limit", type=whole(1), metavar="N", help="label only the first N references")
    group.add_argument(
        "--sample",
        type=number(0, 1, above_low=True),
        default=1.0,
        metavar="F",
        help="label the URIs whose hash falls below F: the same ones on every runner, every time",
    )


def _add_selection(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("what is labeled again")
    group.add_argument(
        "--skip_labeled",
        action="extend",
        nargs="+",
        default=[],
        metavar="PATTERN",
        help="earlier outputs, such as labels/dt=*/: what they hold of the same module, preprocessing and columns is "
        "skipped; repeatable",
    )
    group.add_argument(
        "--changed",
        action="store_true",
        help="with --skip_labeled: label again what has another size or version now (http: always)",
    )
    group.add_argument(
        "--retry_failures",
        metavar="RUN",
        help="label what the run with this output has failed, and nothing else; --input: that run's, unless given",
    )
    group.add_argument(
        "--reasons",
        type=names,
        default=[],
        metavar="A,B",
        help="with --retry_failures: what failed for one of these reasons only",
    )


def _add_module(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("module")
    group.add_argument(
        "--module",
        required=True,
        metavar="HANDLE",
        help="Hub handle, folder, .tar.gz, gs:// path or Keras export; demo: the embedded EfficientNet-Lite0",
    )
    group.add_argument(
        "--labels",
        metavar="FILE",
        help="a class name a line; none: no names (default: ImageNet's for 1000 and 1001 classes)",
    )
    group.add_argument(
        "--top_k",
        type=whole(1),
        metavar="K",
        help=f"classes in a row (default {DEFAULT_TOP_K}, or all where there are fewer)",
    )
    group.add_argument("--no_embeddings", action="store_true", help="write no embedding column")
    group.add_argument(
        "--normalize_embeddings", action="store_true", help="scale embeddings to L2 length 1; zero stays zero"
    )
    group.add_argument(
        "--image_size", type=image_size, metavar="HxW", help="where the module does not fix its input size"
    )
    group.add_argument(
        "--crop",
        type=number(0, 1, above_low=True),
        metavar="F",
        help="label the central square of F times the short side, such as 0.875 (default: the whole image, stretched)",
    )
    group.add_argument(
        "--input_range",
        type=input_range,
        metavar="LOW,HIGH",
        help="what pixels become: 0,1 or -1,1 or 0,255; default 0,1; required for Keras exports",
    )
    group.add_argument(
        "--scores",
        choices=("auto", "softmax", "sigmoid", "none"),
        default="auto",
        help="how logits become scores; auto: softmax, unless a probe shows that they are probabilities already",
    )
    group.add_argument(
        "--logits_output",
        metavar="NAME",
        help="output that holds the logits: SIGNATURE:KEY, SIGNATURE or KEY",
    )
    group.add_argument(
        "--features_output", metavar="NAME", help="output that holds the features, named likewise"
    )


def _add_engine(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("inference")
    group.add_argument(
        "--engine",
        choices=("auto", "litert", "openvino", "tensorflow"),
        default="auto",
        help="what runs the module; auto: LiteRT, or TensorFlow where LiteRT cannot express it; openvino: an extra",
    )
    group.add_argument(
        "--precision",
        choices=("float32", "bfloat16"),
        default="float32",
        help="bfloat16: by OpenVINO, on CPUs where that is faster; numbers are near the module's, not equal",
    )
    group.add_argument(
        "--batch_size",
        type=whole(1),
        default=DEFAULT_BATCH_SIZE,
        metavar="N",
        help="images in a batch (default %(default)s)",
    )


def _add_loading(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("loading")
    group.add_argument(
        "--max_bytes",
        type=byte_size,
        default=64 * 2**20,
        metavar="SIZE",
        help="refuse larger encoded images (default 64M)",
    )
    group.add_argument(
        "--max_pixels",
        type=whole(1),
        default=100_000_000,
        metavar="N",
        help="refuse larger images (default 100 million)",
    )
    group.add_argument(
        "--fetch_deadline",
        type=number(0, 86400, above_low=True),
        default=60.0,
        metavar="SECONDS",
        help="for an image, all tries together (default 60)",
    )
    group.add_argument(
        "--load_threads",
        type=whole(1),
        default=64,
        metavar="N",
        help="images in flight at a time in a worker (default %(default)s)",
    )
    group.add_argument(
        "--worker_threads",
        type=whole(1),
        metavar="N",
        help="threads that decode and infer in a worker process (default: the cores that it may use)",
    )
    group.add_argument("--allow_http", action="store_true", help="fetch http:// and https:// URIs")
    group.add_argument(
        "--allow_private_hosts", action="store_true", help="fetch from private and link-local addresses too"
    )


def _add_output(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("output")
    group.add_argument(
        "--output",
        required=True,
        metavar="DIR",
        help="folder of the result: local or gs://; {date} in it becomes --run_date, as in dt={date}",
    )
    group.add_argument(
        "--run_date",
        type=date,
        metavar="YYYY-MM-DD",
        help="the day that the run is for (default: today, UTC)",
    )
    group.add_argument(
        "--output_format", choices=("parquet", "tfrecord"), default="parquet", help="default %(default)s"
    )
    group.add_argument(
        "--tfrecord_compression", choices=("none", "gzip"), default="none", help="default %(default)s"
    )
    group.add_argument(
        "--shard_rows",
        type=whole(1),
        metavar="N",
        help="rows of a work unit and its shard (default 10000, fewer at first)",
    )
    group.add_argument(
        "--max_error_rate",
        type=number(0, 1, above_low=False),
        default=0.05,
        metavar="F",
        help="failed / (predicted + failed) that is still a success (default %(default)s)",
    )
    group.add_argument(
        "--report",
        action="store_true",
        help="write _report.html too: what happened, with thumbnails of a sample",
    )
    group.add_argument(
        "--if_exists",
        choices=("error", "overwrite", RESUME),
        default="error",
        help="what to do when the output exists (default %(default)s); resume: as overwrite, but what an earlier run "
        "has finished of the same plan is kept, and not done again",
    )
    group.add_argument(
        "--time_limit",
        type=duration,
        metavar="TIME",
        help="begin no unit after that long, such as 6h: publish what is done and exit with 4; resume goes on there",
    )


def make_parser() -> argparse.ArgumentParser:
    """The job's argument parser."""
    parser = Parser(
        prog="beamlabel",
        usage="%(prog)s --input PATTERN --module HANDLE --output DIR [option ...]\n"
        "       %(prog)s COMMAND ...",
        description="Labels and embeds images in bulk: image URIs in, labels, scores and embeddings out.\n\n"
        f"other commands, each with a --help of its own:\n{command_listing()}",
        epilog="Options not listed here go to the Beam runner, such as --runner FlinkRunner.\n"
        "Exit codes: 0 done, 1 too many failures, 2 wrong usage or the output exists, 3 the job broke,\n"
        "4 out of time, 75 another run is at work on the output, 130/143 cancelled.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"beamlabel {__version__}")
    for add in (_add_input, _add_selection, _add_module, _add_engine, _add_loading, _add_output):
        add(parser)
    return parser


def job_options(*names: str) -> argparse.ArgumentParser:
    """Some of the job's options for another command, which takes them as one of its parser's ``parents``."""
    declared = make_parser()._option_string_actions
    chosen = Parser(add_help=False)
    for name in names:
        chosen._add_action(declared[name])
    return chosen


def with_minus_joined(argv: Sequence[str]) -> list[str]:
    """``--input_range -1,1`` as one word: argparse would take ``-1,1`` for an option."""
    words: list[str] = []
    for word in argv:
        if words and words[-1] == "--input_range" and word.startswith("-1"):
            words[-1] += "=" + word
        else:
            words.append(word)
    return words


def _with_labels_of_jobs(argv: Sequence[str]) -> list[str]:
    """``--labels key=value``, Beam's other name for ``--label``, by that one. Airflow's operator always gives it."""
    words: list[str] = []
    for word in argv:
        is_value = bool(words) and words[-1] == "--labels"
        value = word if is_value else word.removeprefix("--labels=")
        if re.fullmatch(r"[a-z][a-z0-9_-]*=[a-z0-9_-]*", value) and (is_value or value != word):
            words[len(words) - is_value :] = [f"{_LABEL_OF_JOB}={value}"]
        else:
            words.append(word)
    return words


def parse(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Parses the command line into the job's options and what is left for the runner.

    ``--labels key=value`` is the runner's ``--label``; a file of such a name is ``./key=value``.

    Raises:
      UsageError: a missing option, a bad value, or a misspelt option.
      SystemExit: after ``--help`` and ``--version``.
    """
    parser = make_parser()
    options, rest = parser.parse_known_args(_with_labels_of_jobs(with_minus_joined(argv)))
    known = [name for action in parser._actions for name in action.option_strings if name.startswith("--")]
    for argument in rest:
        name = argument.split("=", 1)[0]
        close = difflib.get_close_matches(name, known, n=1, cutoff=0.85)
        if name.startswith("--") and close and name != _LABEL_OF_JOB:
            raise UsageError(f"{name}: no such option; did you mean {close[0]}?")
    for before, argument in zip(["", *rest], rest, strict=False):
        has_value = before.startswith("--") and "=" not in before
        if not argument.startswith("--") and not has_value:
            raise UsageError(f"{argument!r} belongs to no option; inputs are named by --input")
    for name in ("input", "output", "module", "base_dir"):
        value = getattr(options, name)
        if value == "" or (isinstance(value, list) and "" in value):
            raise UsageError(f"--{name}: an empty value")
    if not options.input and not options.retry_failures:
        raise UsageError("the following arguments are required: --input")
    if options.changed and not options.skip_labeled:
        raise UsageError("--changed needs --skip_labeled, which names what has been labeled")
    if options.reasons and not options.retry_failures:
        raise UsageError(f"--reasons {','.join(options.reasons)} needs --retry_failures")
    options.run_date = options.run_date or datetime.now(timezone.utc).date().isoformat()
    options.output = options.output.replace("{date}", options.run_date)
    if options.tfrecord_compression != "none" and options.output_format != "tfrecord":
        raise UsageError(
            f"--tfrecord_compression {options.tfrecord_compression} needs --output_format tfrecord"
        )
    if options.precision == "bfloat16" and options.engine not in ("auto", "openvino"):
        raise UsageError(
            f"--precision bfloat16 is not for --engine {options.engine}; leave --engine out, or say auto"
        )
    if options.input_format == "images":
        for name in ("uri_column", "image_column", "keep_columns"):
            if getattr(options, name):
                raise UsageError(f"--{name} is for Parquet inputs, not for --input_format images")
    return options, rest


def usage(error: UsageError, command: str = "beamlabel") -> None:
    """Tells a usage error as argparse does, and whose ``--help`` to read."""
    sys.stderr.write(f"beamlabel: error: {error}\nTry '{command} --help'.\n")
