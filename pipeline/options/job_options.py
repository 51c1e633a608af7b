"""The job's options: one frozen dataclass for each group, and one that holds them all.

Names, help texts, types and defaults are declared only here. A function takes the group that it needs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from beamlabel.pipeline.options.declare import Option, choice, declared, flag, option, required, several
from beamlabel.pipeline.options.module_limits import deadline_option, memory_option
from beamlabel.pipeline.options.types import (
    BYTE_SIZE,
    DATE,
    DURATION,
    HTTP_HEADER,
    IMAGE_SIZE,
    INPUT_RANGE,
    NAMES,
    PROJECT,
    SCHEMES,
    SHA256,
    TEXT,
    USER_AGENT,
    auto_or_whole,
    number,
    whole,
)
from beamlabel.transforms.loading.web.http_options import PER_HOST, HttpHeader

DEFAULT_BATCH_SIZE = 128
DEFAULT_CALIBRATION_IMAGES = 300
# Values of --precision: int8 or an error, and int8 or else float32.
INT8, INT8_OR_FLOAT32 = "int8", "int8,float32"
DEFAULT_TOP_K = 5
DEFAULT_LOAD_THREADS = 64
DEFAULT_MAX_ERROR_RATE = 0.05
DEFAULT_MIN_FAILURES = 5
DEFAULT_MAX_DELETED_RATE = 0.5
RESUME = "resume"


@dataclass(frozen=True, kw_only=True)
class InputOptions:
    """The references to label."""

    input: tuple[str, ...] = several(
        metavar="PATTERN",
        help="file, directory or glob of references or images: local, file://, gs://, s3:// or azfs://; required "
        "unless --retry_failures is given; repeatable; commas are not split",
    )
    input_format: str = choice(
        ("auto", "text", "csv", "tsv", "jsonl", "parquet", "images", "tar", "zip"),
        default="auto",
        help="text: one URI per line; csv, tsv, jsonl (JSON lines), parquet: one URI per row; images: the files are "
        "images; tar, zip: the members are images; auto: by name and content",
    )
    uri_column: str | None = option(
        TEXT,
        metavar="NAME",
        help="column of URIs; in Parquet also of lists of URIs (default: uri, url, path, a name like file_name or "
        "image_url, or the only string column)",
    )
    image_column: str | None = option(
        TEXT,
        metavar="NAME",
        help="Parquet column of encoded images: binary, struct of bytes and path, or lists of these (default: the "
        "only struct of bytes and path)",
    )
    keep_columns: tuple[str, ...] = several(
        metavar="NAME",
        help="columns or Hive partition keys to copy to the output; SOURCE=NAME renames; Hugging Face classes become "
        "their names, or with SOURCE:id numbers; for archives, members of a sample: cls, txt, json.FIELD=NAME",
    )
    include: tuple[str, ...] = several(
        metavar="GLOB",
        help="read only these files of directories, patterns and archives, such as *.{jpg,png} or cats/**; repeatable",
    )
    exclude: tuple[str, ...] = several(
        metavar="GLOB", help="leave out these files of directories, patterns and archives; repeatable"
    )
    base_dir: str | None = option(
        TEXT, metavar="DIR", help="base directory of relative references (default: the current directory)"
    )
    limit: int | None = option(whole(1), metavar="N", help="label only the first N references")
    sample: float = option(
        number(0, 1, above_low=True),
        default=1.0,
        metavar="F",
        help="label only the URIs whose hash is below F: the same ones on every runner, every time",
    )


@dataclass(frozen=True, kw_only=True)
class EarlierRunOptions:
    """The earlier runs that decide which references are labeled again."""

    skip_labeled: tuple[str, ...] = several(
        metavar="PATTERN",
        help="earlier outputs, such as labels/dt=*/: skip images that these outputs labeled with the same module, "
        "preprocessing and columns; repeatable",
    )
    changed: bool = flag(
        help="with --skip_labeled: label an image again if its content has changed; an image with a new size or "
        "version, or on the web, is fetched to compare"
    )
    retry_known_failures: bool = flag(
        help="with --skip_labeled: retry images that failed for a lasting reason (default: skip them unless changed)"
    )
    tombstones: bool = flag(
        help="with --skip_labeled: record in _deleted/ the images of these outputs that the input no longer names"
    )
    max_deleted_rate: float = option(
        number(0, 1, above_low=False),
        default=DEFAULT_MAX_DELETED_RATE,
        metavar="R",
        help="with --tombstones: write none and exit with 1 if more than this share of the earlier images is gone "
        f"(default {DEFAULT_MAX_DELETED_RATE})",
    )
    retry_failures: str | None = option(
        TEXT,
        metavar="RUN",
        help="label only the images that failed in the run with this output; --input defaults to the input of that run",
    )
    reasons: tuple[str, ...] = option(
        NAMES,
        default=(),
        metavar="A,B",
        help="with --retry_failures: only images that failed for one of these reasons",
    )


@dataclass(frozen=True, kw_only=True)
class ModuleOptions:
    """The module, its inputs and its outputs."""

    module: str = required(
        metavar="HANDLE",
        help="Hub handle, directory, .tar.gz, gs:// path or Keras export; demo: the embedded EfficientNet-Lite0",
    )
    module_fingerprint: str | None = option(
        SHA256,
        metavar="SHA256",
        help="refuse a module with another fingerprint; beamlabel inspect shows a module's fingerprint",
    )
    allow_unsafe_ops: bool = flag(
        help="run a module whose graph may read, write or send anything, with your permissions"
    )
    labels: str | None = option(
        TEXT,
        metavar="FILE",
        help="file with one class name per line; none: no names (default: the names that beamlabel train stored in "
        "the module, else ImageNet's for 1000 and 1001 classes)",
    )
    top_k: int | None = option(
        whole(1),
        metavar="K",
        help=f"classes per row (default {DEFAULT_TOP_K}, or all if there are fewer)",
    )
    no_embeddings: bool = flag(help="write no embedding column")
    normalize_embeddings: bool = flag(help="scale embeddings to L2 length 1; zero stays zero")
    image_size: tuple[int, int] | None = option(
        IMAGE_SIZE, metavar="HxW", help="input size, for a module that does not fix it"
    )
    crop: float | None = option(
        number(0, 1, above_low=True),
        metavar="F",
        help="label the central square of F times the short side, such as 0.875 (default: the whole image, "
        "stretched; for a module of beamlabel train, as in its training)",
    )
    color_profile: str = choice(
        ("auto", "convert", "ignore"),
        default="auto",
        help="convert: convert CMYK images, and images with a color profile other than sRGB, to sRGB, as browsers do; "
        "ignore: use colors as they are stored; auto: convert, or for a module of beamlabel train, as in its training",
    )
    input_range: tuple[float, float] | None = option(
        INPUT_RANGE,
        metavar="LOW,HIGH",
        help="range that pixel values are scaled to: 0,1 or -1,1 or 0,255 (default 0,1); required for Keras exports",
    )
    scores: str = choice(
        ("auto", "softmax", "sigmoid", "none"),
        default="auto",
        help="how logits become scores; auto: chosen by the module's values and graph, see docs/modules.md",
    )
    logits_output: str | None = option(
        TEXT, metavar="NAME", help="output that holds the logits: SIGNATURE:KEY, SIGNATURE or KEY"
    )
    features_output: str | None = option(
        TEXT, metavar="NAME", help="output that holds the features, named in the same way"
    )
    module_deadline: float = deadline_option("fetches, loads, tries and compiles")
    module_memory: int | None = memory_option()


@dataclass(frozen=True, kw_only=True)
class InferenceOptions:
    """How the module is run."""

    engine: str = choice(
        ("auto", "litert", "openvino", "tensorflow"),
        default="auto",
        help="runs the module; auto: LiteRT, or TensorFlow if LiteRT cannot express it; openvino: an extra",
    )
    precision: str = choice(
        ("float32", "bfloat16", INT8, INT8_OR_FLOAT32),
        default="float32",
        help="bfloat16: by OpenVINO, on CPUs on which it is faster; results are near the module's, not equal; int8: an "
        "extra; quantized with images of the input, compared on others, and an error if it is not close enough; "
        "int8,float32: float32 in that case",
    )
    calibration_images: int = option(
        whole(1),
        default=DEFAULT_CALIBRATION_IMAGES,
        metavar="N",
        help="with --precision int8: number of input images that the module is quantized with "
        f"(default {DEFAULT_CALIBRATION_IMAGES})",
    )
    batch_size: int = option(
        whole(1),
        default=DEFAULT_BATCH_SIZE,
        metavar="N",
        help=f"images per batch (default {DEFAULT_BATCH_SIZE})",
    )
    inference_deadline: float | None = option(
        DURATION,
        metavar="TIME",
        help="time limit of a batch: a worker that hangs is ended, and an image that hangs twice fails as "
        "inference_timeout (default: 10 s per image of the batch, at least 10m)",
    )


@dataclass(frozen=True, kw_only=True)
class LoadingOptions:
    """Fetching and decoding of images, with limits and threads."""

    max_bytes: int = option(
        BYTE_SIZE, default=64 * 2**20, metavar="SIZE", help="refuse larger encoded images (default 64M)"
    )
    max_pixels: int = option(
        whole(1), default=100_000_000, metavar="N", help="refuse larger images (default 100 million pixels)"
    )
    decode_deadline: float = option(
        number(0, 86400, above_low=True),
        default=20.0,
        metavar="SECONDS",
        help="time limit of a decode in a child process, which all but usual JPEG, PNG and WebP need (default 20)",
    )
    fetch_deadline: float = option(
        number(0, 86400, above_low=True),
        default=60.0,
        metavar="SECONDS",
        help="time limit to fetch an image, over all attempts (default 60)",
    )
    load_threads: int = option(
        whole(1),
        default=DEFAULT_LOAD_THREADS,
        metavar="N",
        help=f"images in flight at the same time in a worker (default {DEFAULT_LOAD_THREADS})",
    )
    worker_threads: int | None = option(
        whole(1),
        metavar="N",
        help="threads that decode and infer in a worker process (default: the number of cores that it may use)",
    )
    worker_processes: int | None = option(
        auto_or_whole(1),
        metavar="N",
        help="worker processes of a local run, which share the cores; auto: one for up to 5 cores, then one per 4 "
        "cores, fewer if memory is short (default auto)",
    )
    allowed_schemes: tuple[str, ...] | None = option(
        SCHEMES,
        metavar="NAMES",
        help="fetch images only from these, such as gs,https; file: local paths (default: all, but see --allow_http)",
    )
    allow_http: bool = flag(help="fetch http:// and https:// URIs")
    allow_private_hosts: bool = flag(help="fetch from private and link-local addresses too")
    http_header: tuple[HttpHeader, ...] = several(
        HTTP_HEADER,
        metavar="NAME=VALUE",
        help="header for the hosts of http URIs, such as 'Authorization=Bearer TOKEN', but not for hosts that they "
        "redirect to; repeatable; results and logs never contain its value",
    )
    user_agent: str | None = option(
        USER_AGENT,
        metavar="TEXT",
        help="User-Agent header for http servers (default: beamlabel, with its address)",
    )
    ignore_robots_tag: bool = flag(help="label images despite an X-Robots-Tag of noai or noimageai")
    http_per_host: int = option(
        whole(1),
        default=PER_HOST,
        metavar="N",
        help=f"concurrent requests of a worker process to one http host (default {PER_HOST})",
    )
    billing_project: str | None = option(
        PROJECT, metavar="PROJECT", help="project that pays for gs:// (requester-pays buckets need one)"
    )


@dataclass(frozen=True, kw_only=True)
class OutputOptions:
    """The files that a run writes, and their location."""

    output: str = required(
        metavar="DIR",
        help="directory of the result: local, gs://, s3:// or azfs://; {date}, as in dt={date}, becomes --run_date",
    )
    output_format: str = choice(("parquet", "tfrecord"), default="parquet", help="default parquet")
    tfrecord_compression: str = choice(("none", "gzip"), default="none", help="default none")
    shard_rows: int | None = option(
        whole(1), metavar="N", help="rows per work unit and shard (default 10000, fewer at first)"
    )


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """The date, the end and the success of a run."""

    run_date: str | None = option(DATE, metavar="YYYY-MM-DD", help="date of the run (default: today, UTC)")
    max_error_rate: float = option(
        number(0, 1, above_low=False),
        default=DEFAULT_MAX_ERROR_RATE,
        metavar="F",
        help=f"highest failed / (predicted + failed) of a successful run (default {DEFAULT_MAX_ERROR_RATE})",
    )
    min_input: int | None = option(
        whole(1), metavar="N", help="publish nothing, and exit with 2, if the input has fewer references"
    )
    min_failures: int = option(
        whole(1),
        default=DEFAULT_MIN_FAILURES,
        metavar="N",
        help="a run with fewer failures and at least one prediction succeeds at any error rate "
        f"(default {DEFAULT_MIN_FAILURES})",
    )
    report: bool = flag(help="also write _report.html, a summary of the run with thumbnails of a sample")
    if_exists: str = choice(
        ("error", "overwrite", RESUME),
        default="error",
        help="what to do if the output exists (default error); resume: like overwrite, but keep the units that an "
        "earlier run of the same plan has finished",
    )
    time_limit: float | None = option(
        DURATION,
        metavar="TIME",
        help="start no unit after this time, such as 6h; publish the finished ones and exit with 4; resume continues",
    )


@dataclass(frozen=True, kw_only=True)
class JobOptions:
    """All options of a labeling job, by group."""

    inputs: InputOptions
    earlier: EarlierRunOptions
    module: ModuleOptions
    inference: InferenceOptions
    loading: LoadingOptions
    output: OutputOptions
    run: RunOptions

    def flat(self) -> dict[str, Any]:
        """The value of every option by its name."""
        groups = (getattr(self, field.name) for field in dataclasses.fields(self))
        return {name: value for group in groups for name, value in vars(group).items()}


# Each group's title in --help, its field of ``JobOptions`` and its class, in the order of --help.
GROUPS: tuple[tuple[str, str, type[Any]], ...] = (
    ("input", "inputs", InputOptions),
    ("earlier runs", "earlier", EarlierRunOptions),
    ("module", "module", ModuleOptions),
    ("inference", "inference", InferenceOptions),
    ("loading", "loading", LoadingOptions),
    ("output", "output", OutputOptions),
    ("run", "run", RunOptions),
)


def job_options() -> Iterator[Option]:
    """The declarations of all options, in the order of --help."""
    for _, _, group in GROUPS:
        yield from declared(group)
