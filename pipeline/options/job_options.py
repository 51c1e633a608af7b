"""The job's options: one frozen dataclass for each group, and one that holds them all.

Names, help texts, types and defaults are declared here and nowhere else. A function takes the group that it needs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from beamlabel.pipeline.options.declare import Option, choice, declared, flag, option, required, several
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
from beamlabel.transforms.module_process.limits import DEADLINE_SECONDS

DEFAULT_BATCH_SIZE = 128
DEFAULT_CALIBRATION_IMAGES = 300
# Values of --precision: in int8 or not at all, and in int8 or in float32.
INT8, INT8_OR_FLOAT32 = "int8", "int8,float32"
DEFAULT_TOP_K = 5
DEFAULT_LOAD_THREADS = 64
DEFAULT_MAX_ERROR_RATE = 0.05
DEFAULT_MIN_FAILURES = 5
DEFAULT_MAX_DELETED_RATE = 0.5
RESUME = "resume"


@dataclass(frozen=True, kw_only=True)
class InputOptions:
    """The references that are labeled."""

    input: tuple[str, ...] = several(
        metavar="PATTERN",
        help="needed, unless --retry_failures: file, folder or glob of references or images: local, file://, "
        "gs://, s3:// or azfs://; repeatable; commas are not split",
    )
    input_format: str = choice(
        ("auto", "text", "csv", "tsv", "jsonl", "parquet", "images", "tar", "zip"),
        default="auto",
        help="text: a URI a line; csv, tsv, jsonl (JSON lines), parquet: a URI a row; images: the files are the "
        "images; tar, zip: their members are; auto: by name and content",
    )
    uri_column: str | None = option(
        TEXT,
        metavar="NAME",
        help="column of URIs, in Parquet also of lists of them (default: uri, url, path, a name like file_name or "
        "image_url, or the only string)",
    )
    image_column: str | None = option(
        TEXT,
        metavar="NAME",
        help="Parquet column of encoded images: binary, struct of bytes and path, or lists of them (default: the only "
        "struct of bytes and path)",
    )
    keep_columns: tuple[str, ...] = several(
        metavar="NAME",
        help="columns, or names of Hive folders, to hand through; SOURCE=NAME renames; classes of Hugging Face "
        "become their names, with SOURCE:id numbers; of archives members of a sample: cls, txt, json.FIELD=NAME",
    )
    include: tuple[str, ...] = several(
        metavar="GLOB",
        help="of folders, patterns and archives only these files: names as *.{jpg,png}, paths as cats/**; repeatable",
    )
    exclude: tuple[str, ...] = several(
        metavar="GLOB", help="of folders, patterns and archives not these files; repeatable"
    )
    base_dir: str | None = option(
        TEXT, metavar="DIR", help="what relative references are relative to (default: the current folder)"
    )
    limit: int | None = option(whole(1), metavar="N", help="label only the first N references")
    sample: float = option(
        number(0, 1, above_low=True),
        default=1.0,
        metavar="F",
        help="label the URIs whose hash falls below F: the same ones on every runner, every time",
    )


@dataclass(frozen=True, kw_only=True)
class EarlierRunOptions:
    """The earlier runs that decide which references are labeled again."""

    skip_labeled: tuple[str, ...] = several(
        metavar="PATTERN",
        help="earlier outputs, such as labels/dt=*/: what they hold of the same module, preprocessing and columns is "
        "skipped; repeatable",
    )
    changed: bool = flag(
        help="with --skip_labeled: label again what has another content now; what has another size or version, and "
        "what is on the web, is fetched to see"
    )
    retry_known_failures: bool = flag(
        help="with --skip_labeled: try again what it failed for a lasting reason (default: skipped, if not changed)"
    )
    tombstones: bool = flag(
        help="with --skip_labeled: write the images of these that the input does not name any more to _deleted/"
    )
    max_deleted_rate: float = option(
        number(0, 1, above_low=False),
        default=DEFAULT_MAX_DELETED_RATE,
        metavar="R",
        help="with --tombstones: if more of the images that were there are gone, write none and exit with 1 "
        f"(default {DEFAULT_MAX_DELETED_RATE})",
    )
    retry_failures: str | None = option(
        TEXT,
        metavar="RUN",
        help="label what the run with this output has failed, and nothing else; --input: that run's, unless given",
    )
    reasons: tuple[str, ...] = option(
        NAMES,
        default=(),
        metavar="A,B",
        help="with --retry_failures: what failed for one of these reasons only",
    )


@dataclass(frozen=True, kw_only=True)
class ModuleOptions:
    """The module, and what becomes of its answers."""

    module: str = required(
        metavar="HANDLE",
        help="Hub handle, folder, .tar.gz, gs:// path or Keras export; demo: the embedded EfficientNet-Lite0",
    )
    module_fingerprint: str | None = option(
        SHA256,
        metavar="SHA256",
        help="refuse the module unless this is its fingerprint, as beamlabel inspect tells it",
    )
    allow_unsafe_ops: bool = flag(
        help="run a module whose graph may read, write or send anything; it runs with your rights"
    )
    labels: str | None = option(
        TEXT,
        metavar="FILE",
        help="a class name a line; none: no names (default: those of a module of beamlabel train, else ImageNet's for "
        "1000 and 1001 classes)",
    )
    top_k: int | None = option(
        whole(1),
        metavar="K",
        help=f"classes in a row (default {DEFAULT_TOP_K}, or all where there are fewer)",
    )
    no_embeddings: bool = flag(help="write no embedding column")
    normalize_embeddings: bool = flag(help="scale embeddings to L2 length 1; zero stays zero")
    image_size: tuple[int, int] | None = option(
        IMAGE_SIZE, metavar="HxW", help="where the module does not fix its input size"
    )
    crop: float | None = option(
        number(0, 1, above_low=True),
        metavar="F",
        help="label the central square of F times the short side, such as 0.875 (default: the whole image, "
        "stretched; of a module of beamlabel train, as its head was trained)",
    )
    color_profile: str = choice(
        ("auto", "convert", "ignore"),
        default="auto",
        help="convert: colours of CMYK images, and of those with a colour profile other than sRGB, become sRGB, as "
        "browsers do; ignore: colours are taken as they are stored; auto: convert, or as the head of a module of "
        "beamlabel train was trained",
    )
    input_range: tuple[float, float] | None = option(
        INPUT_RANGE,
        metavar="LOW,HIGH",
        help="what pixels become: 0,1 or -1,1 or 0,255; default 0,1; required for Keras exports",
    )
    scores: str = choice(
        ("auto", "softmax", "sigmoid", "none"),
        default="auto",
        help="how logits become scores; auto: what fits the module's values and graph, see docs/modules.md",
    )
    logits_output: str | None = option(
        TEXT, metavar="NAME", help="output that holds the logits: SIGNATURE:KEY, SIGNATURE or KEY"
    )
    features_output: str | None = option(
        TEXT, metavar="NAME", help="output that holds the features, named likewise"
    )
    module_deadline: float = option(
        DURATION,
        default=DEADLINE_SECONDS,
        metavar="TIME",
        help="to fetch, load, try and compile the module, in a process of its own that is ended then (default 10m)",
    )
    module_memory: int | None = option(
        BYTE_SIZE, metavar="SIZE", help="for this process, such as 8G (default: what is free, at least 4G)"
    )


@dataclass(frozen=True, kw_only=True)
class InferenceOptions:
    """How the module is run."""

    engine: str = choice(
        ("auto", "litert", "openvino", "tensorflow"),
        default="auto",
        help="what runs the module; auto: LiteRT, or TensorFlow where LiteRT cannot express it; openvino: an extra",
    )
    precision: str = choice(
        ("float32", "bfloat16", INT8, INT8_OR_FLOAT32),
        default="float32",
        help="bfloat16: by OpenVINO, on CPUs where that is faster; numbers are near the module's, not equal; int8: an "
        "extra, quantized with images of the input and compared on others, an error if it is not near enough; "
        "int8,float32: float32 then",
    )
    calibration_images: int = option(
        whole(1),
        default=DEFAULT_CALIBRATION_IMAGES,
        metavar="N",
        help="with --precision int8: images of the input that it is quantized with "
        f"(default {DEFAULT_CALIBRATION_IMAGES})",
    )
    batch_size: int = option(
        whole(1),
        default=DEFAULT_BATCH_SIZE,
        metavar="N",
        help=f"images in a batch (default {DEFAULT_BATCH_SIZE})",
    )
    inference_deadline: float | None = option(
        DURATION,
        metavar="TIME",
        help="for a batch: a worker that hangs is ended then, and an image that hangs twice fails as inference_timeout "
        "(default: 10 s for each image of the batch, at least 10m)",
    )


@dataclass(frozen=True, kw_only=True)
class LoadingOptions:
    """How images are fetched and decoded, and by how many threads."""

    max_bytes: int = option(
        BYTE_SIZE, default=64 * 2**20, metavar="SIZE", help="refuse larger encoded images (default 64M)"
    )
    max_pixels: int = option(
        whole(1), default=100_000_000, metavar="N", help="refuse larger images (default 100 million)"
    )
    decode_deadline: float = option(
        number(0, 86400, above_low=True),
        default=20.0,
        metavar="SECONDS",
        help="for a decode in a child process: of what is no usual JPEG, PNG or WebP (default 20)",
    )
    fetch_deadline: float = option(
        number(0, 86400, above_low=True),
        default=60.0,
        metavar="SECONDS",
        help="for an image, all tries together (default 60)",
    )
    load_threads: int = option(
        whole(1),
        default=DEFAULT_LOAD_THREADS,
        metavar="N",
        help=f"images in flight at a time in a worker (default {DEFAULT_LOAD_THREADS})",
    )
    worker_threads: int | None = option(
        whole(1),
        metavar="N",
        help="threads that decode and infer in a worker process (default: the cores that it may use)",
    )
    worker_processes: int | None = option(
        auto_or_whole(1),
        metavar="N",
        help="worker processes of a local run, which share the cores; auto: one up to 5 cores, then one for every 4, "
        "fewer if memory is short (default auto)",
    )
    allowed_schemes: tuple[str, ...] | None = option(
        SCHEMES,
        metavar="NAMES",
        help="fetch no image but of these, such as gs,https; file: local paths (default: all, but see --allow_http)",
    )
    allow_http: bool = flag(help="fetch http:// and https:// URIs")
    allow_private_hosts: bool = flag(help="fetch from private and link-local addresses too")
    http_header: tuple[HttpHeader, ...] = several(
        HTTP_HEADER,
        metavar="NAME=VALUE",
        help="header for the hosts of http URIs, such as 'Authorization=Bearer TOKEN', and for none that they redirect "
        "to; repeatable; results and logs hold no value",
    )
    user_agent: str | None = option(
        USER_AGENT,
        metavar="TEXT",
        help="who asks, as http servers are told (default: beamlabel, with its address)",
    )
    ignore_robots_tag: bool = flag(help="take images whose server says X-Robots-Tag: noai or noimageai, too")
    http_per_host: int = option(
        whole(1),
        default=PER_HOST,
        metavar="N",
        help=f"requests at a time to one http host from a worker process (default {PER_HOST})",
    )
    billing_project: str | None = option(
        PROJECT, metavar="PROJECT", help="that pays for requests to gs:// (requester-pays buckets need one)"
    )


@dataclass(frozen=True, kw_only=True)
class OutputOptions:
    """The files that a run writes, and where."""

    output: str = required(
        metavar="DIR",
        help="folder of the result: local, gs://, s3:// or azfs://; {date} in it becomes --run_date, as in dt={date}",
    )
    output_format: str = choice(("parquet", "tfrecord"), default="parquet", help="default parquet")
    tfrecord_compression: str = choice(("none", "gzip"), default="none", help="default none")
    shard_rows: int | None = option(
        whole(1), metavar="N", help="rows of a work unit and its shard (default 10000, fewer at first)"
    )


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """One run: its day, its end, and its success."""

    run_date: str | None = option(
        DATE, metavar="YYYY-MM-DD", help="the day that the run is for (default: today, UTC)"
    )
    max_error_rate: float = option(
        number(0, 1, above_low=False),
        default=DEFAULT_MAX_ERROR_RATE,
        metavar="F",
        help=f"failed / (predicted + failed) that is still a success (default {DEFAULT_MAX_ERROR_RATE})",
    )
    min_input: int | None = option(
        whole(1), metavar="N", help="publish nothing, and exit with 2, if the input has fewer references"
    )
    min_failures: int = option(
        whole(1),
        default=DEFAULT_MIN_FAILURES,
        metavar="N",
        help="fewer failures do not fail a run that has predicted something, whatever their rate "
        f"(default {DEFAULT_MIN_FAILURES})",
    )
    report: bool = flag(help="write _report.html too: what happened, with thumbnails of a sample")
    if_exists: str = choice(
        ("error", "overwrite", RESUME),
        default="error",
        help="what to do when the output exists (default error); resume: as overwrite, but what an earlier run "
        "has finished of the same plan is kept, and not done again",
    )
    time_limit: float | None = option(
        DURATION,
        metavar="TIME",
        help="begin no unit after that long, such as 6h: publish what is done and exit with 4; resume goes on there",
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
        """Every option's value by the option's name."""
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
