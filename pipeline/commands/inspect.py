"""``beamlabel inspect MODULE``: shows a module's format, inputs, outputs, and speed on this machine."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from beamlabel.pipeline.options.declare import flag, positional
from beamlabel.pipeline.options.job_options import InferenceOptions, InputOptions, ModuleOptions
from beamlabel.pipeline.options.parser import Parser, add_options, add_payer, values_of, with_minus_joined
from beamlabel.pipeline.process.messages import answer, answer_json
from beamlabel.transforms.storage.billing import set_billing_project

if TYPE_CHECKING:
    from beamlabel.pipeline.commands.inspection import Inspection
    from beamlabel.pipeline.commands.precisions import Row

_MODULE_OPTIONS = (
    "module_fingerprint",
    "allow_unsafe_ops",
    "labels",
    "image_size",
    "input_range",
    "logits_output",
    "features_output",
    "module_deadline",
    "module_memory",
)
_INPUT_OPTIONS = (
    "input",
    "input_format",
    "uri_column",
    "image_column",
    "include",
    "exclude",
    "base_dir",
    "limit",
)
_FORMATS = {
    "tf1_hub": "TF1 Hub module",
    "tf2_saved_model": "TF2 SavedModel",
    "keras_saved_model": "SavedModel, exported by Keras",
    "keras_file": ".keras file",
}


@dataclass(frozen=True, kw_only=True)
class InspectOptions:
    """The module and the form of the answer; the job's options for a module are accepted too."""

    module: str = positional(metavar="MODULE", help="like the job's --module")
    json: bool = flag(help="print JSON instead of text")
    precisions: bool = flag(help="only compare float32, bfloat16 and int8 on images of --input")


def main(argv: list[str]) -> int:
    """Runs the command; returns its exit code.

    Raises:
      UsageError: a wrong argument, or a module that is not available or does not fit the options.
    """
    parser = Parser(
        prog="beamlabel inspect",
        allow_abbrev=False,
        description="Shows a module's format, inputs, outputs, and speed on this machine. "
        "The module is compiled as for a job, into the same cache.",
        epilog="The speed is measured on all cores, once with the module alone and once with decoding of JPEGs of "
        "500x375 pixels; it excludes fetching. Exit codes: 0 done, 2 wrong usage or no such module, 3 failed.",
    )
    add_options(parser, InspectOptions)
    add_options(parser, ModuleOptions, only=_MODULE_OPTIONS)
    add_options(parser, InferenceOptions)
    add_options(parser, InputOptions, only=_INPUT_OPTIONS)
    add_payer(parser)
    parsed = parser.parse_args(with_minus_joined(argv))
    set_billing_project(parsed.billing_project)
    options = values_of(InspectOptions, parsed)

    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from beamlabel.pipeline.places.cache import check_kept

    check_kept()
    if options.precisions:
        return _compare(options, parsed)
    from beamlabel.pipeline.commands.inspection import inspect

    found = inspect(values_of(ModuleOptions, parsed), values_of(InferenceOptions, parsed))
    if options.json:
        answer_json(found.to_json())
    else:
        answer(_text(found))
    return 0


def _compare(options: InspectOptions, parsed: Any) -> int:
    from beamlabel.pipeline.commands.precisions import compare

    # The positional MODULE is the job's --module.
    module = dataclasses.replace(values_of(ModuleOptions, parsed), module=options.module)
    rows = compare(module, values_of(InferenceOptions, parsed), values_of(InputOptions, parsed))
    if options.json:
        answer_json([dataclasses.asdict(row) for row in rows])
    else:
        answer("".join(f"{line}\n" for line in table(rows)))
    return 0


def table(rows: Sequence[Row]) -> list[str]:
    """The lines of the table of precisions."""

    def share(value: float | None) -> str:
        return "" if value is None else f"{value:.2%}"

    cells = [
        ("precision", "computed by", "images/s", "x float32", "best class", "of sure images", "cosine", "")
    ]
    cells += [
        (
            row.precision,
            row.computed_by,
            "" if row.images_per_second is None else f"{row.images_per_second:.0f}",
            "" if row.speedup is None else f"{row.speedup:.2f}",
            share(row.same_class),
            share(row.sure_same_class),
            "" if row.cosine is None else f"{row.cosine:.4f}",
            row.note,
        )
        for row in rows
    ]
    widths = [max(len(line[place]) for line in cells) for place in range(len(cells[0]))]
    return [
        "  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in cells
    ]


def _text(found: Inspection) -> str:
    from beamlabel.pipeline.commands.own_facts import own_lines

    low, high = found.input_range
    engine = f"{found.engine} {found.precision}, on {found.cores} cores"
    rows = [
        ("module", found.handle),
        ("format", f"{_FORMATS[found.format]} ({found.format})"),
        ("fingerprint", found.fingerprint),
        ("to pin it", f"--module_fingerprint {found.fingerprint}"),
        ("size", f"{found.files} files, {_megabytes(found.bytes)}; compiled {_megabytes(found.artifact_bytes)}"),
        ("input", f"{found.height} x {found.width} pixels (height x width), RGB from {low:g} to {high:g}"),
        ("classes", _classes(found)),
        *(() if found.logits is None else (("scores", _scores(found)),)),
        *(() if found.own is None else own_lines(found.own)),
        ("features", f"{found.embedding_dim}, from {found.features}" if found.features else "none"),
        ("engine", engine),
        *(("note", note) for note in found.notes),
        ("speed", f"{found.images_per_second:.0f} images/s: the module alone, {found.batch_size} at a time"),
        ("", f"{found.images_per_second_decoded:.0f} images/s: including the decoding of {found.decoded}"),
    ]  # fmt: skip
    lines = [f"{name:<12} {value}\n" for name, value in rows]
    return "".join([*lines, "\nsignatures\n", *map(_signature, found.signatures)])


def _signature(signature: dict[str, Any]) -> str:
    from beamlabel.transforms.module.outputs import format_shape

    tensors = [
        (arrow, one["key"], f"{one['dtype']} {format_shape(one['shape'])}")
        for arrow, side in (("<-", "inputs"), ("->", "outputs"))
        for one in signature[side]
    ]
    width = max((len(key) for _, key, _ in tensors), default=0)
    return f"  {signature['name']}\n" + "".join(
        f"    {arrow} {key:<{width}}  {kind}\n" for arrow, key, kind in tensors
    )


def _classes(found: Inspection) -> str:
    if found.logits is None:
        return "none"
    names = "without names" if found.class_names is None else f"named by {found.class_names}"
    return f"{found.num_classes}, {names}; {(found.score_kind or '').replace('_', ' ')} from {found.logits}"


def _scores(found: Inspection) -> str:
    by = {"none": "left as they are", None: "unclear, set --scores"}.get(found.scores, f"by {found.scores}")
    return f"{by}: {found.scores_reason}"


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"
